#include "supervisor/cli/mcp/json_rpc.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "supervisor/cli/output.h"

namespace creel::cli::mcp {
namespace {

constexpr int kMaxDepth = 64;

// Before it is parsed: what is nested deeper would end in as deep a recursion when it is destroyed.
bool NestedTooDeep(std::string_view text) {
  int depth = 0;
  bool in_text = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_text) {
      i += c == '\\' ? 1 : 0;
      in_text = c != '"';
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) {
        return true;
      }
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

bool IsId(const Json& id) { return id.is_string() || id.is_number_integer(); }

BadMessage Bad(const Json& id, ErrorCode code, std::string message) {
  return {.id = id, .error = {.code = code, .message = std::move(message)}};
}

}  // namespace

std::variant<Message, StrayResponse, BadMessage> ParseMessage(std::string_view line) {
  if (NestedTooDeep(line)) {
    return Bad(nullptr, ErrorCode::kInvalidRequest,
               fmt::format("the message is nested deeper than {} levels", kMaxDepth));
  }
  Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return Bad(nullptr, ErrorCode::kParseError, "the line is not JSON");
  }
  if (!json.is_object()) {
    return Bad(nullptr, ErrorCode::kInvalidRequest,
               json.is_array() ? "batches are not part of the protocol; send one message a line"
                               : "a message is an object");
  }
  const auto id = json.find("id");
  const Json known_id = id != json.end() && IsId(*id) ? *id : Json(nullptr);
  if (const auto version = json.find("jsonrpc"); version == json.end() || *version != "2.0") {
    return Bad(known_id, ErrorCode::kInvalidRequest, "`jsonrpc` must be \"2.0\"");
  }
  const auto method = json.find("method");
  if (method == json.end() && (json.contains("result") || json.contains("error"))) {
    return StrayResponse{};
  }
  if (id != json.end() && !IsId(*id)) {
    return Bad(nullptr, ErrorCode::kInvalidRequest, "`id` must be a text or a whole number");
  }
  if (method == json.end() || !method->is_string()) {
    return Bad(known_id, ErrorCode::kInvalidRequest, "`method` must be a text");
  }
  Message message;
  message.method = method->get<std::string>();
  if (id != json.end()) {
    message.id = *id;
  }
  if (const auto params = json.find("params"); params != json.end()) {
    if (!params->is_object()) {
      return Bad(known_id, ErrorCode::kInvalidParams, "`params` must be an object");
    }
    message.params = std::move(*params);
  }
  return message;
}

void Writer::Result(const Json& id, Json result) {
  Send({{"id", id}, {"result", std::move(result)}});
}

void Writer::Error(const Json& id, const RpcError& error) {
  Json body = {{"code", static_cast<int>(error.code)}, {"message", error.message}};
  if (!error.data.is_null()) {
    body["data"] = error.data;
  }
  Send({{"id", id}, {"error", std::move(body)}});
}

void Writer::Notify(std::string_view method, Json params) {
  Send({{"method", method}, {"params", std::move(params)}});
}

bool Writer::open() {
  MutexLock lock(mu_);
  return open_;
}

void Writer::Send(Json message) {
  message["jsonrpc"] = "2.0";
  // Text of a sandbox may be of any encoding; the wire is UTF-8.
  std::string line = message.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
  line += '\n';
  MutexLock lock(mu_);
  open_ = open_ && WriteAll(fd_, line);
}

LineReader::Outcome LineReader::Next(std::string& line) {
  size_t searched = 0;
  while (true) {
    if (const size_t end = buffer_.find('\n', searched); end != std::string::npos) {
      line.assign(buffer_, 0, end);
      buffer_.erase(0, end + 1);
      return std::exchange(skipping_, false) || line.size() > max_bytes_ ? Outcome::kTooLong
                                                                         : Outcome::kLine;
    }
    if (buffer_.size() > max_bytes_) {
      skipping_ = true;
      buffer_.clear();
    }
    searched = buffer_.size();
    constexpr size_t kPiece = 64u << 10;
    buffer_.resize(searched + kPiece);
    ssize_t got = 0;
    do {
      got = read(fd_, buffer_.data() + searched, kPiece);
    } while (got < 0 && errno == EINTR);
    buffer_.resize(searched + (got > 0 ? static_cast<size_t>(got) : 0));
    if (got <= 0) {
      // The last line may lack its end.
      if (buffer_.empty() || skipping_) {
        return Outcome::kEnd;
      }
      line = std::exchange(buffer_, "");
      return Outcome::kLine;
    }
  }
}

}  // namespace creel::cli::mcp
