#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "supervisor/base/mutex.h"

namespace creel::cli::mcp {

using Json = nlohmann::json;

// Codes of JSON-RPC 2.0, and of MCP's own range.
enum class ErrorCode {
  kParseError = -32700,
  kInvalidRequest = -32600,
  kMethodNotFound = -32601,
  kInvalidParams = -32602,
  kInternalError = -32603,
  kServerBusy = -32000,
  kUnsupportedVersion = -32022,
};

// An error that is answered as one. `data` may be null: none.
struct RpcError {
  ErrorCode code = ErrorCode::kInternalError;
  std::string message;
  Json data{};
};

// A request, or a notification, which has no id.
struct Message {
  std::optional<Json> id;  // text or whole number
  std::string method;
  Json params = Json::object();
};

// A response of the peer; we ask nothing of it, so it is dropped.
struct StrayResponse {};

struct BadMessage {
  Json id;  // null where none could be read
  RpcError error;
};

// One line of the wire. Nothing in it makes this throw or recurse without bound.
std::variant<Message, StrayResponse, BadMessage> ParseMessage(std::string_view line);

// Writes messages to a descriptor, a line each. Thread-safe.
class Writer {
 public:
  explicit Writer(int fd) : fd_(fd) {}
  void Result(const Json& id, Json result);
  void Error(const Json& id, const RpcError& error);
  void Notify(std::string_view method, Json params);
  // False once the peer no longer reads.
  bool open();

 private:
  void Send(Json message);

  const int fd_;
  Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = true;
};

// Reads lines from a descriptor, at most `max_bytes` each.
class LineReader {
 public:
  LineReader(int fd, size_t max_bytes) : fd_(fd), max_bytes_(max_bytes) {}
  enum class Outcome { kLine, kTooLong, kEnd };
  // kTooLong: the line was skipped.
  Outcome Next(std::string& line);

 private:
  const int fd_;
  const size_t max_bytes_;
  std::string buffer_;
  bool skipping_ = false;
};

}  // namespace creel::cli::mcp
