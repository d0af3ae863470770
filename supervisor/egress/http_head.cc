#include "supervisor/egress/http_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "supervisor/base/escape.h"

namespace creel::egress {
namespace {

constexpr size_t kMaxResponseHeaders = 128;
constexpr size_t kMaxMethod = 32;

absl::Status Bad(const std::string& why) { return absl::InvalidArgumentError(why); }

bool IsTokenChar(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}

unsigned char LowerByte(unsigned char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c;
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The minor version, -1 if it is not HTTP/1.0 or HTTP/1.1.
int MinorOf(std::string_view version) {
  return version == "HTTP/1.1" ? 1 : version == "HTTP/1.0" ? 0 : -1;
}

// The line at the start of `rest`, which it is taken from.
std::string_view TakeLine(std::string_view& rest) {
  const size_t end = rest.find("\r\n");
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(rest.size(), end == std::string_view::npos ? end : end + 2));
  return line;
}

absl::Status ReadHeaders(std::string_view rest, size_t most, std::vector<Header>& headers) {
  for (;;) {
    const std::string_view line = TakeLine(rest);
    if (line.empty()) {
      return rest.empty() ? absl::OkStatus() : Bad("there is more after the head's end");
    }
    if (headers.size() >= most) {
      return Bad(fmt::format("there are more than {} headers", most));
    }
    if (line[0] == ' ' || line[0] == '\t') {
      return Bad("a header is folded over two lines");
    }
    const size_t colon = line.find(':');
    const std::string_view name = line.substr(0, colon);
    if (colon == std::string_view::npos || !IsToken(name)) {
      return Bad(fmt::format("'{}' is no header's name", Printable(name, 64)));
    }
    if (name.find('_') != std::string_view::npos) {
      return Bad(
          fmt::format("the header '{}' has a '_', which some take for '-'", Printable(name, 64)));
    }
    headers.push_back({std::string(name), std::string(Trimmed(line.substr(colon + 1)))});
  }
}

// FindHeadEnd has looked at what comes from a socket; tests and fuzzers come without it.
absl::Status CheckBytes(std::string_view head) {
  if (!head.ends_with("\r\n\r\n")) {
    return Bad("the head is not complete");
  }
  const absl::StatusOr<std::optional<size_t>> end = FindHeadEnd(head, 0, head.size());
  if (!end.ok()) {
    return end.status();
  }
  return end->has_value() && **end == head.size() ? absl::OkStatus()
                                                  : Bad("there is more after the head's end");
}

absl::StatusOr<uint64_t> ReadLength(std::string_view text) {
  uint64_t length = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(),
                                                   [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || error != std::errc() || stop != text.data() + text.size() ||
      length > (1ull << 53)) {
    return Bad(fmt::format("Content-Length is '{}'", Printable(text, 64)));
  }
  return length;
}

// kNone: neither of the two headers is there.
absl::StatusOr<Framing> FramingByHeaders(const std::vector<Header>& headers, int minor) {
  const size_t lengths = CountHeaders(headers, "Content-Length");
  const size_t codings = CountHeaders(headers, "Transfer-Encoding");
  if (codings > 0 && lengths > 0) {
    return Bad("there is a Content-Length beside a Transfer-Encoding");
  }
  if (codings > 1 || lengths > 1) {
    return Bad("the length of the body is given twice");
  }
  if (codings == 1) {
    const std::string& coding = FindHeader(headers, "Transfer-Encoding")->value;
    if (minor == 0 || !EqualsIgnoreCase(coding, "chunked")) {
      return Bad(
          fmt::format("the Transfer-Encoding '{}' is not understood", Printable(coding, 64)));
    }
    return Framing{.kind = Framing::Kind::kChunked};
  }
  if (lengths == 1) {
    ASSIGN_OR_RETURN(const uint64_t length,
                     ReadLength(FindHeader(headers, "Content-Length")->value));
    return Framing{.kind = Framing::Kind::kLength, .length = length};
  }
  return Framing{};
}

}  // namespace

absl::StatusOr<std::optional<size_t>> FindHeadEnd(std::string_view buffer, size_t searched,
                                                  size_t max_bytes) {
  // A line's end may have been cut by the end of what was there before.
  for (size_t i = searched < 3 ? 0 : searched - 3; i < buffer.size(); ++i) {
    const auto c = static_cast<unsigned char>(buffer[i]);
    if (c == '\r') {
      if (i + 1 < buffer.size() && buffer[i + 1] != '\n') {
        return Bad("a CR without LF");
      }
      continue;
    }
    if (c == '\n') {
      if (i == 0 || buffer[i - 1] != '\r') {
        return Bad("a line ends in LF alone");
      }
      if (i == 1) {
        return Bad("the first line is empty");
      }
      if (i >= 3 && buffer[i - 2] == '\n' && buffer[i - 3] == '\r') {
        if (i + 1 > max_bytes) {
          return absl::ResourceExhaustedError(
              fmt::format("the head is longer than {} bytes", max_bytes));
        }
        return std::optional<size_t>(i + 1);
      }
      continue;
    }
    if ((c < 0x20 && c != '\t') || c == 0x7f) {
      return Bad("a control character in the head");
    }
  }
  if (buffer.size() > max_bytes) {
    return absl::ResourceExhaustedError(fmt::format("the head is longer than {} bytes", max_bytes));
  }
  return std::optional<size_t>();
}

absl::StatusOr<RequestHead> ParseRequestHead(std::string_view head, size_t most) {
  RETURN_IF_ERROR(CheckBytes(head));
  const std::string_view line = TakeLine(head);
  const size_t first = line.find(' ');
  const size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) {
    return Bad("the first line is not a request's");
  }
  RequestHead request;
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, second - first - 1);
  request.minor = MinorOf(line.substr(second + 1));
  if (request.minor < 0) {
    return Bad("the first line does not end in HTTP/1.0 or HTTP/1.1");
  }
  if (!IsToken(request.method) || request.method.size() > kMaxMethod) {
    return Bad(fmt::format("'{}' is no method", Printable(request.method, 40)));
  }
  const bool visible = std::all_of(request.target.begin(), request.target.end(),
                                   [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (request.target.empty() || !visible) {
    return Bad("the target holds something else than visible ASCII characters");
  }
  RETURN_IF_ERROR(ReadHeaders(head, most, request.headers));
  if (CountHeaders(request.headers, "Host") > 1) {
    return Bad("there are two Host headers");
  }
  return request;
}

absl::StatusOr<ResponseHead> ParseResponseHead(std::string_view head) {
  RETURN_IF_ERROR(CheckBytes(head));
  const std::string_view line = TakeLine(head);
  ResponseHead response;
  response.minor = MinorOf(line.substr(0, 8));
  const std::string_view code = line.size() >= 12 ? line.substr(9, 3) : std::string_view();
  const bool digits = code.size() == 3 && std::all_of(code.begin(), code.end(),
                                                      [](char c) { return c >= '0' && c <= '9'; });
  if (response.minor < 0 || !digits || line[8] != ' ' || (line.size() > 12 && line[12] != ' ') ||
      code[0] == '0') {
    return Bad("the first line is not a reply's");
  }
  response.status = (code[0] - '0') * 100 + (code[1] - '0') * 10 + (code[2] - '0');
  RETURN_IF_ERROR(ReadHeaders(head, kMaxResponseHeaders, response.headers));
  return response;
}

absl::StatusOr<Framing> FramingOf(const RequestHead& head) {
  return FramingByHeaders(head.headers, head.minor);
}

absl::StatusOr<Framing> FramingOf(const ResponseHead& head, std::string_view request_method) {
  ASSIGN_OR_RETURN(Framing framing, FramingByHeaders(head.headers, head.minor));
  if (request_method == "HEAD" || head.status < 200 || head.status == 204 || head.status == 304) {
    return Framing{};
  }
  if (framing.kind == Framing::Kind::kNone) {
    framing.kind = Framing::Kind::kUntilClose;
  }
  return framing;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](unsigned char x, unsigned char y) { return LowerByte(x) == LowerByte(y); });
}

std::string AsciiLower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    c = static_cast<char>(LowerByte(static_cast<unsigned char>(c)));
  }
  return lower;
}

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

const Header* FindHeader(const std::vector<Header>& headers, std::string_view name) {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const Header& header) {
    return EqualsIgnoreCase(header.name, name);
  });
  return found == headers.end() ? nullptr : &*found;
}

size_t CountHeaders(const std::vector<Header>& headers, std::string_view name) {
  return static_cast<size_t>(
      std::count_if(headers.begin(), headers.end(),
                    [&](const Header& header) { return EqualsIgnoreCase(header.name, name); }));
}

bool ListHolds(const std::vector<Header>& headers, std::string_view name, std::string_view word) {
  for (const Header& header : headers) {
    if (!EqualsIgnoreCase(header.name, name)) {
      continue;
    }
    std::string_view rest = header.value;
    while (!rest.empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      if (EqualsIgnoreCase(Trimmed(rest.substr(0, comma)), word)) {
        return true;
      }
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

}  // namespace creel::egress
