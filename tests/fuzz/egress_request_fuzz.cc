// What a sandbox may send as a request: whatever the bytes and the pieces they come in, head and
// body are read alike, and what is accepted says the same to a second reader.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "supervisor/egress/http_body.h"
#include "supervisor/egress/http_head.h"
#include "supervisor/egress/rewrite.h"
#include "supervisor/egress/target.h"

namespace creel::egress {
namespace {

constexpr size_t kMaxHead = 4096;
// The headers that common servers read of a request.
constexpr size_t kCommonServersRead = 100;

void Require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// The end of the head, looked for as pieces of this size come; 0 if it is refused or not there.
size_t HeadEnd(std::string_view bytes, size_t piece) {
  size_t searched = 0;
  for (size_t have = std::min(piece, bytes.size());; have = std::min(have + piece, bytes.size())) {
    const auto end = FindHeadEnd(bytes.substr(0, have), searched, kMaxHead);
    if (!end.ok()) {
      return 0;
    }
    if (end->has_value()) {
      return **end;
    }
    searched = have;
    if (have == bytes.size()) {
      return 0;
    }
  }
}

// What is read of the body, and how much of `bytes` it took; "!" in front if it is refused.
std::string Body(const Framing& framing, std::string_view bytes, size_t piece, size_t& taken) {
  BodyReader reader(framing);
  std::string out;
  taken = 0;
  while (taken < bytes.size() && !reader.done()) {
    const auto got = reader.Take(bytes.substr(taken, piece), out, SIZE_MAX);
    if (!got.ok()) {
      return "!";
    }
    Require(*got > 0);
    taken += *got;
  }
  return (reader.done() ? "done:" : "more:") + out;
}

// What goes on to the upstream must be one head, and the same one.
void CheckRewritten(const RequestHead& head, const UrlTarget& to, const Framing& framing) {
  if (!CheckPath(to.path).ok()) {
    return;
  }
  Require(to.path.find("/../") == std::string::npos && to.path.find("//") == std::string::npos);
  const std::string out =
      UpstreamHead(head, to, {.host = "h.example", .base = "/b", .framing = framing});
  const auto end = FindHeadEnd(out, 0, out.size());
  Require(end.ok() && end->has_value() && **end == out.size());
  const auto again = ParseRequestHead(out, kCommonServersRead);
  Require(again.ok());
  Require(again->method == head.method);
  Require(again->target.starts_with("/b" + to.path));
  Require(CountHeaders(again->headers, "Host") == 1);
  Require(FindHeader(again->headers, "Proxy-Authorization") == nullptr);
  const auto same = FramingOf(*again);
  Require(same.ok() && same->kind == framing.kind && same->length == framing.length);
}

}  // namespace
}  // namespace creel::egress

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace creel::egress;  // NOLINT(google-build-using-namespace): this is a main
  if (size < 1) {
    return 0;
  }
  const size_t piece = data[0] % 41 + 1;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t end = HeadEnd(bytes, SIZE_MAX / 2);
  Require(end == HeadEnd(bytes, piece));
  if (end == 0) {
    return 0;
  }
  const auto response = ParseResponseHead(bytes.substr(0, end));
  if (response.ok()) {
    static_cast<void>(FramingOf(*response, "GET"));
  }
  const auto head = ParseRequestHead(bytes.substr(0, end));
  if (!head.ok()) {
    return 0;
  }
  Require(CountHeaders(head->headers, "Host") <= 1);
  const auto framing = FramingOf(*head);
  if (!framing.ok()) {
    return 0;
  }
  Require(CountHeaders(head->headers, "Content-Length") +
              CountHeaders(head->headers, "Transfer-Encoding") <=
          1);
  size_t taken = 0;
  size_t taken_in_pieces = 0;
  const std::string whole = Body(*framing, bytes.substr(end), SIZE_MAX / 2, taken);
  const std::string pieces = Body(*framing, bytes.substr(end), piece, taken_in_pieces);
  Require(whole == pieces && (whole == "!" || taken == taken_in_pieces));
  if (const auto to = ParseUrlTarget(head->target); to.ok()) {
    Require(to->authority.host.find_first_of("@/\\[]: %") == std::string::npos);
    CheckRewritten(*head, *to, *framing);
  }
  return 0;
}
