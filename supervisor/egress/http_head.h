#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/status.h"

namespace creel::egress {

struct Header {
  std::string name;  // as it was sent
  std::string value;
};

// The head of a request, as it was sent; nothing is decoded.
struct RequestHead {
  std::string method{};
  std::string target{};
  int minor = 1;  // of HTTP/1.x
  std::vector<Header> headers{};
};

struct ResponseHead {
  int status = 0;
  int minor = 1;
  std::vector<Header> headers;
};

// How long a message's body is.
struct Framing {
  enum class Kind { kNone, kLength, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  uint64_t length = 0;  // of kLength
};

// Where the head at the start of `buffer` ends, its empty line included; nothing while it is not
// complete. kInvalidArgument as soon as it is seen that it will never be one: a line that ends in
// LF alone, a control character, an empty first line. kResourceExhausted: longer than `max_bytes`.
// Bytes before `searched` were looked at before.
absl::StatusOr<std::optional<size_t>> FindHeadEnd(std::string_view buffer, size_t searched,
                                                  size_t max_bytes);

// With what UpstreamHead adds (Host, the framing, the credential, an upgrade) a head stays within
// the hundred that common servers read.
inline constexpr size_t kMaxRequestHeaders = 90;

// `head` is complete, with its empty line. Whatever two readers could understand differently is
// refused (kInvalidArgument): folded lines, spaces around a name, names with `_`, more than one
// space in the first line, a version other than 1.0 and 1.1, two Host, several Content-Length, more
// than `most` headers in a request or 128 in a reply.
absl::StatusOr<RequestHead> ParseRequestHead(std::string_view head,
                                             size_t most = kMaxRequestHeaders);
absl::StatusOr<ResponseHead> ParseResponseHead(std::string_view head);

// kInvalidArgument: Content-Length together with Transfer-Encoding, several of either, a length
// that is not digits alone, a coding other than `chunked`, chunks in HTTP/1.0.
absl::StatusOr<Framing> FramingOf(const RequestHead& head);
absl::StatusOr<Framing> FramingOf(const ResponseHead& head, std::string_view request_method);

// Whether two texts are the same but for the case of ASCII letters.
bool EqualsIgnoreCase(std::string_view a, std::string_view b);
std::string AsciiLower(std::string_view text);
// Whether `text` is a token of RFC 9110.
bool IsToken(std::string_view text);

// The first header of this name; null if there is none.
const Header* FindHeader(const std::vector<Header>& headers, std::string_view name);
size_t CountHeaders(const std::vector<Header>& headers, std::string_view name);
// Whether one of the headers `name`, as a comma-separated list, holds `word` (case ignored).
bool ListHolds(const std::vector<Header>& headers, std::string_view name, std::string_view word);

}  // namespace creel::egress
