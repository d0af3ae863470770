#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/engine_address.h"

namespace creel {

struct HttpCall {
  const char* method = "GET";
  std::string target;  // path and query, escaped
  std::string_view body{};
  const char* content_type = nullptr;  // null: no body
  // Asked for again, on a new connection, if the one at hand turns out to be dead. Other calls have
  // a new connection each, so that none is ever carried out twice.
  bool repeatable = true;
  Deadline deadline;
  // Where the body of an answer of success goes as it comes, unbounded; returns false to end the
  // transfer. Empty: into HttpAnswer, up to `max_answer` bytes.
  std::function<bool(std::string_view)> sink{};
  size_t max_answer = size_t{64} << 20;
};

struct HttpAnswer {
  long status = 0;  // of an error too
  std::string body;
};

// HTTP/1.1 to one address, with connections kept for the next call. Thread-safe. No proxy, no
// redirect and no other protocol is ever followed. With TLS the process must ignore SIGPIPE, as
// OpenSSL does not ask to be spared it. Errors:
//   kUnavailable        no connection, or one that broke before the answer was whole
//   kDeadlineExceeded   not done by the deadline
//   kCancelled          the sink ended the transfer
//   kInternal           an answer that is too large or is not HTTP
class HttpClient {
 public:
  explicit HttpClient(EngineAddress address);
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  absl::StatusOr<HttpAnswer> Do(const HttpCall& call);

  // A GET without end, on a connection of its own. `connected` is called when an answer of success
  // has begun, `cancelled` at least every 200 ms. OK if the sink or `cancelled` ended it,
  // kUnavailable if the other side did, kDeadlineExceeded if no answer began by `begin_by`. One
  // that is no success is returned as by Do.
  struct StreamCall {
    std::string target;
    std::function<bool(std::string_view)> sink;
    std::function<void()> connected;
    std::function<bool()> cancelled;
    Deadline begin_by{};
  };
  absl::StatusOr<HttpAnswer> Stream(const StreamCall& call);

  [[nodiscard]] const EngineAddress& address() const;

 private:
  class Pool;
  std::unique_ptr<Pool> pool_;
};

// `text` as it may stand in a query.
std::string EscapeQuery(std::string_view text);

}  // namespace creel
