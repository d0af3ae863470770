#include "supervisor/web/operator_calls.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "supervisor/base/mutex.h"

namespace creel::web {

// The calls that have not ended.
struct OperatorCalls::UnderWay {
  Mutex mu;
  CondVar changed;
  bool stopped ABSL_GUARDED_BY(mu) = false;
  int calls ABSL_GUARDED_BY(mu) = 0;
  std::map<const void*, std::weak_ptr<Stream>> streams ABSL_GUARDED_BY(mu);

  // Whether another one may begin.
  bool Begin() {
    MutexLock lock(mu);
    calls += stopped ? 0 : 1;
    return !stopped;
  }
  void Add(const std::shared_ptr<Stream>& stream) {
    MutexLock lock(mu);
    streams[stream.get()] = stream;
  }
  void End(const void* stream) {
    MutexLock lock(mu);
    streams.erase(stream);
    --calls;
    changed.SignalAll();
  }
};

namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::MethodDescriptor;

constexpr std::string_view kPackage = "creel.operator.v1.";
// Collecting evidence has bounds of its own.
constexpr std::chrono::minutes kWithin{16};
// Of a stream that is answered as one.
constexpr std::chrono::seconds kGatherWithin{30};
constexpr size_t kMaxGathered = 4u << 20;

std::unique_ptr<Message> Make(const Descriptor* type) {
  const Message* const prototype = MessageFactory::generated_factory()->GetPrototype(type);
  return prototype == nullptr ? nullptr : std::unique_ptr<Message>(prototype->New());
}

std::string ToJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) {
    return "{}";
  }
  return json;
}

grpc::ByteBuffer ToBuffer(const Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return {&slice, 1};
}

// The message in a buffer, as JSON; nothing if it is none.
bool BufferToJson(grpc::ByteBuffer& buffer, const Descriptor* type, std::string& json) {
  const std::unique_ptr<Message> message = Make(type);
  if (message == nullptr ||
      !grpc::GenericDeserialize<grpc::ProtoBufferReader, Message>(&buffer, message.get()).ok()) {
    return false;
  }
  json = ToJson(*message);
  return true;
}

struct Prepared {
  const MethodDescriptor* method = nullptr;
  grpc::ByteBuffer request;
  grpc::Status status;
};

Prepared Prepare(std::string_view name, std::string_view json) {
  Prepared prepared;
  const size_t slash = name.find('/');
  if (name.starts_with(kPackage) && slash != std::string_view::npos) {
    std::string full(name);
    full[slash] = '.';
    prepared.method = DescriptorPool::generated_pool()->FindMethodByName(full);
  }
  if (prepared.method == nullptr || prepared.method->client_streaming()) {
    prepared.method = nullptr;
    prepared.status = {grpc::StatusCode::UNIMPLEMENTED, "the operator has no such call"};
    return prepared;
  }
  const std::unique_ptr<Message> request = Make(prepared.method->input_type());
  if (request == nullptr) {
    prepared.status = {grpc::StatusCode::UNIMPLEMENTED, "the operator has no such call"};
    return prepared;
  }
  if (!json.empty()) {
    const auto read = google::protobuf::util::JsonStringToMessage(
        google::protobuf::StringPiece(json.data(), json.size()), request.get());
    if (!read.ok()) {
      prepared.status = {grpc::StatusCode::INVALID_ARGUMENT,
                         "this is not the call's request: " + std::string(read.message())};
      return prepared;
    }
  }
  prepared.request = ToBuffer(*request);
  return prepared;
}

std::string PathOf(const MethodDescriptor& method) {
  return "/" + method.service()->full_name() + "/" + method.name();
}

void Carry(const Caller& caller, grpc::ClientContext& context) {
  for (const auto& [key, value] : caller) {
    context.AddMetadata(key, value);
  }
}

// A call under way; holds itself until gRPC is done with it.
class ServerStream final : public OperatorCalls::Stream,
                           public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           public std::enable_shared_from_this<ServerStream> {
 public:
  ServerStream(const Descriptor* type, OperatorCalls::StreamEvents events,
               std::shared_ptr<OperatorCalls::UnderWay> under_way)
      : type_(type), events_(std::move(events)), under_way_(std::move(under_way)) {}

  void Run(const std::shared_ptr<grpc::Channel>& channel, const MethodDescriptor& method,
           grpc::ByteBuffer request, const Caller& caller) {
    self_ = shared_from_this();
    request_ = std::move(request);
    Carry(caller, context_);
    grpc::GenericStub stub(channel);
    stub.PrepareBidiStreamingCall(&context_, PathOf(method), {}, this);
    AddHold();  // for Next, which may come at any time
    StartWriteLast(&request_, {});
    StartCall();
  }

  void Next() override {
    MutexLock lock(mu_);
    if (!held_) {
      return;
    }
    StartRead(&answer_);
  }

  void Cancel() override {
    context_.TryCancel();
    Release();
  }

  void OnReadDone(bool ok) override {
    std::string json;
    if (!ok || !BufferToJson(answer_, type_, json)) {
      if (ok) {
        context_.TryCancel();
      }
      Release();
      return;
    }
    events_.on_message(std::move(json));
  }

  void OnDone(const grpc::Status& status) override {
    events_.on_end(status);
    const auto self = std::move(self_);
    under_way_->End(static_cast<OperatorCalls::Stream*>(this));
  }

 private:
  void Release() {
    MutexLock lock(mu_);
    if (held_) {
      held_ = false;
      RemoveHold();
    }
  }

  const Descriptor* const type_;
  const OperatorCalls::StreamEvents events_;
  const std::shared_ptr<OperatorCalls::UnderWay> under_way_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer answer_;
  std::shared_ptr<ServerStream> self_;
  Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = true;
};

}  // namespace

OperatorCalls::Reply ErrorReply(const grpc::Status& status) {
  struct Row {
    grpc::StatusCode code;
    unsigned http;
    const char* name;
  };
  static constexpr Row kRows[] = {
      {grpc::StatusCode::INVALID_ARGUMENT, 400, "INVALID_ARGUMENT"},
      {grpc::StatusCode::NOT_FOUND, 404, "NOT_FOUND"},
      {grpc::StatusCode::UNIMPLEMENTED, 404, "UNIMPLEMENTED"},
      {grpc::StatusCode::PERMISSION_DENIED, 403, "PERMISSION_DENIED"},
      {grpc::StatusCode::ALREADY_EXISTS, 409, "ALREADY_EXISTS"},
      {grpc::StatusCode::FAILED_PRECONDITION, 409, "FAILED_PRECONDITION"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, 429, "RESOURCE_EXHAUSTED"},
      {grpc::StatusCode::UNAVAILABLE, 503, "UNAVAILABLE"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, 504, "DEADLINE_EXCEEDED"},
  };
  OperatorCalls::Reply reply{.http_status = 500, .json = {}};
  const char* name = "INTERNAL";
  for (const Row& row : kRows) {
    if (row.code == status.error_code()) {
      reply.http_status = row.http;
      name = row.name;
    }
  }
  // What cannot be UTF-8 is replaced, never thrown over.
  reply.json = nlohmann::json{{"code", name}, {"error", status.error_message()}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
  return reply;
}

OperatorCalls::OperatorCalls(std::shared_ptr<grpc::Channel> channel)
    : channel_(std::move(channel)), under_way_(std::make_shared<UnderWay>()) {}

OperatorCalls::~OperatorCalls() { Drain(); }

void OperatorCalls::Stop() {
  std::vector<std::shared_ptr<Stream>> streams;
  {
    MutexLock lock(under_way_->mu);
    under_way_->stopped = true;
    for (const auto& [address, weak] : under_way_->streams) {
      if (auto stream = weak.lock()) {
        streams.push_back(std::move(stream));
      }
    }
  }
  for (const auto& stream : streams) {
    stream->Cancel();
  }
}

void OperatorCalls::Drain() {
  Stop();
  MutexLock lock(under_way_->mu);
  while (under_way_->calls > 0) {
    under_way_->changed.Wait(under_way_->mu);
  }
}

void OperatorCalls::Unary(std::string_view method, std::string_view json, const Caller& caller,
                          OnReply done) {
  Prepared prepared = Prepare(method, json);
  if (prepared.status.ok() && prepared.method->server_streaming()) {
    Collect(method, json, caller, std::move(done));
    return;
  }
  if (prepared.status.ok() && !under_way_->Begin()) {
    prepared.status = {grpc::StatusCode::UNAVAILABLE, "the supervisor is stopping"};
  }
  if (!prepared.status.ok()) {
    done(ErrorReply(prepared.status));
    return;
  }
  struct Call {
    grpc::ClientContext context;
    grpc::ByteBuffer request;
    grpc::ByteBuffer response;
  };
  auto call = std::make_shared<Call>();
  call->request = std::move(prepared.request);
  call->context.set_deadline(std::chrono::system_clock::now() + kWithin);
  Carry(caller, call->context);
  grpc::GenericStub stub(channel_);
  stub.UnaryCall(&call->context, PathOf(*prepared.method), {}, &call->request, &call->response,
                 [call, type = prepared.method->output_type(), under_way = under_way_,
                  done = std::move(done)](const grpc::Status& status) {
                   Reply reply;
                   if (!status.ok()) {
                     reply = ErrorReply(status);
                   } else if (!BufferToJson(call->response, type, reply.json)) {
                     reply = ErrorReply({grpc::StatusCode::INTERNAL, "the answer is none"});
                   }
                   done(std::move(reply));
                   under_way->End(nullptr);
                 });
}

void OperatorCalls::Collect(std::string_view method, std::string_view json, const Caller& caller,
                            OnReply done) {
  struct Gathered {
    Mutex mu;
    std::shared_ptr<Stream> stream ABSL_GUARDED_BY(mu);
    std::string messages ABSL_GUARDED_BY(mu);
    bool full ABSL_GUARDED_BY(mu) = false;
    grpc::Alarm late;
  };
  auto gathered = std::make_shared<Gathered>();
  StreamEvents events;
  events.on_message = [gathered](std::string message) {
    std::shared_ptr<Stream> stream;
    bool full = false;
    {
      MutexLock lock(gathered->mu);
      gathered->messages += (gathered->messages.empty() ? "" : ",") + message;
      full = gathered->full = gathered->messages.size() > kMaxGathered;
      stream = gathered->stream;
    }
    if (full) {
      stream->Cancel();
    } else {
      stream->Next();
    }
  };
  events.on_end = [gathered, done](const grpc::Status& status) {
    gathered->late.Cancel();
    Reply reply;
    {
      MutexLock lock(gathered->mu);
      gathered->stream = nullptr;
      if (status.ok() || gathered->full) {
        reply.json = "{\"messages\":[" + gathered->messages + "]}";
      }
    }
    done(reply.json.empty() ? ErrorReply(status) : std::move(reply));
  };
  Reply refused;
  auto stream = Open(method, json, caller, std::move(events), refused);
  if (stream == nullptr) {
    done(std::move(refused));
    return;
  }
  {
    MutexLock lock(gathered->mu);
    gathered->stream = stream;
  }
  gathered->late.Set(std::chrono::system_clock::now() + kGatherWithin,
                     [weak = std::weak_ptr(gathered)](bool due) {
                       const auto late = weak.lock();
                       if (!due || late == nullptr) {
                         return;
                       }
                       std::shared_ptr<Stream> slow;
                       {
                         MutexLock lock(late->mu);
                         late->full = true;
                         slow = late->stream;
                       }
                       if (slow != nullptr) {
                         slow->Cancel();
                       }
                     });
  stream->Next();
}

std::shared_ptr<OperatorCalls::Stream> OperatorCalls::Open(std::string_view method,
                                                           std::string_view json,
                                                           const Caller& caller,
                                                           StreamEvents events, Reply& refused) {
  Prepared prepared = Prepare(method, json);
  if (prepared.status.ok() && !prepared.method->server_streaming()) {
    prepared.status = {grpc::StatusCode::UNIMPLEMENTED, "this call has one answer"};
  }
  if (prepared.status.ok() && !under_way_->Begin()) {
    prepared.status = {grpc::StatusCode::UNAVAILABLE, "the supervisor is stopping"};
  }
  if (!prepared.status.ok()) {
    refused = ErrorReply(prepared.status);
    return nullptr;
  }
  auto stream =
      std::make_shared<ServerStream>(prepared.method->output_type(), std::move(events), under_way_);
  under_way_->Add(stream);
  stream->Run(channel_, *prepared.method, std::move(prepared.request), caller);
  return stream;
}

}  // namespace creel::web
