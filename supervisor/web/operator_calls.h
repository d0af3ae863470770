#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace creel::web {

// Names whoever a call is made for, as metadata.
using Caller = std::vector<std::pair<std::string, std::string>>;

// The operator's services for those who speak JSON: a call by its name
// (`creel.operator.v1.Operator/ ThawSession`), a request in protobuf's JSON, and the answer in the
// same. Whatever operator.sock can do is done here, by the same code, and nothing else.
// Thread-safe.
class OperatorCalls {
 public:
  // What a page gets: an HTTP status, and JSON.
  struct Reply {
    unsigned http_status = 200;
    std::string json;
  };
  using OnReply = std::function<void(Reply)>;

  explicit OperatorCalls(std::shared_ptr<grpc::Channel> channel);
  // Drains.
  ~OperatorCalls();
  OperatorCalls(const OperatorCalls&) = delete;
  OperatorCalls& operator=(const OperatorCalls&) = delete;

  // Calls `done` once, from any thread, possibly before it returns. A call that answers with a
  // stream gets `{"messages": […]}`, the first 4 MiB of what comes within half a minute.
  void Unary(std::string_view method, std::string_view json, const Caller& caller, OnReply done);

  // One call whose answers come one after the other. Thread-safe.
  class Stream {
   public:
    virtual ~Stream() = default;
    // Asks for the next one; at most one is asked for at a time.
    virtual void Next() = 0;
    // No more answers are delivered than one that is under way.
    virtual void Cancel() = 0;
  };
  struct StreamEvents {
    // From any thread. One piece of JSON; the next comes when it is asked for.
    std::function<void(std::string json)> on_message;
    // Once, last: how it ended.
    std::function<void(const grpc::Status&)> on_end;
  };
  // Null and a reply that says why, if the call cannot be made. Nothing is delivered before Next.
  std::shared_ptr<Stream> Open(std::string_view method, std::string_view json, const Caller& caller,
                               StreamEvents events, Reply& refused);

  // Cancels every stream, and makes no more calls.
  void Stop();
  // Stops, and returns when nothing is delivered any more: calls under way end by themselves, or
  // with the operator's door.
  void Drain();

  struct UnderWay;

 private:
  void Collect(std::string_view method, std::string_view json, const Caller& caller, OnReply done);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<UnderWay> under_way_;
};

// An error as the page gets it.
OperatorCalls::Reply ErrorReply(const grpc::Status& status);

}  // namespace creel::web
