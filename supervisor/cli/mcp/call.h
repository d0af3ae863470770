#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "creel/gateway/v1/gateway.grpc.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/connection.h"
#include "supervisor/cli/mcp/json_rpc.h"

namespace creel::cli::mcp {

// The way to the supervisor, made anew when it was away. Thread-safe.
class Door {
 public:
  explicit Door(Globals globals) : globals_(std::move(globals)) {}
  // kUnavailable and kPermissionDenied as ConnectGateway.
  absl::StatusOr<std::shared_ptr<gateway::v1::Gateway::Stub>> Stub();

 private:
  const Globals globals_;
  Mutex mu_;
  GatewayLink link_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<gateway::v1::Gateway::Stub> stub_ ABSL_GUARDED_BY(mu_);
};

// A call that may be cancelled from another thread. Thread-safe.
class Cancellation {
 public:
  void Cancel();
  [[nodiscard]] bool cancelled();

 private:
  friend class CancellableContext;
  Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;
};

// The context of one gRPC call, which ends when its Cancellation is cancelled. One at a time for
// each Cancellation.
class CancellableContext {
 public:
  explicit CancellableContext(Cancellation& cancellation);
  ~CancellableContext();
  CancellableContext(const CancellableContext&) = delete;
  CancellableContext& operator=(const CancellableContext&) = delete;
  grpc::ClientContext* get() { return &context_; }
  grpc::ClientContext* operator->() { return &context_; }

 private:
  Cancellation& cancellation_;
  grpc::ClientContext context_;
};

// One `tools/call`, as the tool sees it.
struct ToolCall {
  Door& door;
  Cancellation& cancellation;
  const std::string& session;
  const std::string& sender;
  std::string id;
  const Json& arguments;
  // Tells the client how far it is: a number that grows, and words. Empty: it does not want to
  // know.
  std::function<void(double, std::string_view)> progress;

  void Fill(gateway::v1::CallContext& context) const {
    context.set_session(session);
    context.set_sender(sender);
    context.set_tool_call_id(id);
  }
};

// What the client is shown.
struct ToolResult {
  Json content = Json::array();
  Json structured{};  // null: none
  bool is_error = false;

  static ToolResult OfText(std::string text, Json structured = nullptr) {
    ToolResult result;
    result.content.push_back({{"type", "text"}, {"text", std::move(text)}});
    result.structured = std::move(structured);
    return result;
  }
};

// gRPC's error as ours.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace creel::cli::mcp
