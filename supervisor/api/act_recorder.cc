#include "supervisor/api/act_recorder.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "supervisor/audit/events.h"
#include "supervisor/base/crypto.h"

namespace creel {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;

// How the names of calls begin that change nothing.
constexpr std::array<std::string_view, 13> kLooking{
    "Get",  "List", "Inspect", "Watch",  "Diagnose", "Explain", "Check",
    "Show", "Read", "Verify",  "Report", "Server",   "Describe"};

// Fields that say what a call is about; all others, such as variables with their values, stay out.
constexpr std::array<std::string_view, 22> kTold{"session",      "sender",
                                                 "reason",       "force",
                                                 "id",           "allow",
                                                 "on",           "all",
                                                 "level",        "code",
                                                 "service",      "name",
                                                 "scope",        "host",
                                                 "channel",      "account",
                                                 "method",       "incident",
                                                 "workspace",    "teardown",
                                                 "stop_gateway", "without_evidence"};

bool Changes(std::string_view method) {
  const std::string_view name = method.substr(method.rfind('/') + 1);
  return method.starts_with("/creel.") &&
         std::none_of(kLooking.begin(), kLooking.end(),
                      [&](std::string_view word) { return name.starts_with(word); });
}

void Collect(const Message& message, int depth, std::string& detail, std::string& session) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->is_repeated()) {
      continue;
    }
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (depth < 3) {
        Collect(message.GetReflection()->GetMessage(message, field), depth + 1, detail, session);
      }
      continue;
    }
    if (std::find(kTold.begin(), kTold.end(), field->name()) == kTold.end()) {
      continue;
    }
    std::string value;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      value = message.GetReflection()->GetString(message, field);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      value = message.GetReflection()->GetBool(message, field) ? "true" : "false";
    }
    if (field->name() == "session") {
      session = value;
    } else if (!value.empty()) {
      detail +=
          fmt::format("{}{}={}", detail.empty() ? "" : " ", field->name(), value.substr(0, 256));
    }
  }
}

class ActRecorder final : public grpc::experimental::Interceptor {
 public:
  ActRecorder(AuditLog& audit, const std::string& page_key, grpc::experimental::ServerRpcInfo* info)
      : audit_(audit),
        page_key_(page_key),
        method_(info->method()),
        changes_(Changes(method_)),
        context_(info->server_context()) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    if (changes_) {
      if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE) &&
          methods->GetRecvMessage() != nullptr) {
        // All our messages are generated ones, whose first base is Message.
        Collect(*static_cast<const Message*>(methods->GetRecvMessage()), 0, detail_, session_);
        audit_.Keep(OperatorAct(Name(), session_, detail_, By()));
      }
      if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
        const grpc::Status status = methods->GetSendStatus();
        if (!status.ok()) {
          audit_.Keep(OperatorAct(Name() + " failed", session_, status.error_message(), By()));
        }
      }
    }
    methods->Proceed();
  }

 private:
  // Through which door, and by whom where that is known.
  [[nodiscard]] std::string By() const {
    const auto& metadata = context_->client_metadata();
    const auto text = [&](std::string_view key) {
      const auto found = metadata.find(grpc::string_ref(key.data(), key.size()));
      return found == metadata.end() ? std::string()
                                     : std::string(found->second.data(), found->second.size());
    };
    return !page_key_.empty() && ConstantTimeEqual(text(kPageKeyMetadata), page_key_)
               ? text(kPageByMetadata)
               : "operator.sock";
  }

  [[nodiscard]] std::string Name() const { return method_.substr(method_.rfind('/') + 1); }

  AuditLog& audit_;
  const std::string& page_key_;
  const std::string method_;
  const bool changes_;
  grpc::ServerContextBase* const context_;
  std::string session_;
  std::string detail_;
};

class ActRecorderFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  ActRecorderFactory(AuditLog& audit, std::string page_key)
      : audit_(audit), page_key_(std::move(page_key)) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new ActRecorder(audit_, page_key_, info);
  }

 private:
  AuditLog& audit_;
  const std::string page_key_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> RecordActs(
    AuditLog& audit, const std::string& page_key) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<ActRecorderFactory>(audit, page_key));
  return factories;
}

}  // namespace creel
