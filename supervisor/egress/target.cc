#include "supervisor/egress/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"
#include "supervisor/egress/http_head.h"

namespace creel::egress {
namespace {

constexpr size_t kMaxPath = 8u << 10;

absl::Status Bad(const std::string& why) { return absl::InvalidArgumentError(why); }

bool IsDigit(unsigned char c) { return c >= '0' && c <= '9'; }
bool IsLetter(unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsUnreserved(unsigned char c) {
  return IsDigit(c) || IsLetter(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

int HexValue(unsigned char c) {
  return IsDigit(c)             ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// The byte of the percent-encoding at `at`; -1 if it is none.
int DecodedAt(std::string_view text, size_t at) {
  if (at + 2 >= text.size()) {
    return -1;
  }
  const int high = HexValue(static_cast<unsigned char>(text[at + 1]));
  const int low = HexValue(static_cast<unsigned char>(text[at + 2]));
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

absl::Status CheckHost(std::string_view host) {
  if (host.empty() || host.size() > 253) {
    return Bad("the host's name is empty or too long");
  }
  std::string_view last;
  for (std::string_view rest = host; !rest.empty();) {
    const size_t dot = std::min(rest.find('.'), rest.size());
    last = rest.substr(0, dot);
    const bool good = !last.empty() && last.size() <= 63 &&
                      std::all_of(last.begin(), last.end(), [](unsigned char c) {
                        return IsDigit(c) || IsLetter(c) || c == '-' || c == '_';
                      });
    if (!good || (dot + 1 == rest.size())) {
      return Bad(fmt::format("'{}' is no host's name", Printable(host, 80)));
    }
    rest.remove_prefix(std::min(dot + 1, rest.size()));
  }
  // A name whose last part is a number is an address to one reader or another; no real one is.
  if (IsDigit(static_cast<unsigned char>(last[0]))) {
    return Bad(fmt::format("'{}' is an IP address; rules name hosts", Printable(host, 80)));
  }
  return absl::OkStatus();
}

// What readers that fold characters (NFKC, a code page's "best fit") take for what a path may not
// hold: a slash, backslash, percent sign, semicolon or dots.
constexpr std::array<std::string_view, 26> kLookAlikes{
    "\u2044", "\u2215", "\u29f8", "\uff0f",            // /
    "\u2100", "\u2101", "\u2105", "\u2106",            // a/c, a/s, c/o, c/u
    "\u2216", "\u29f5", "\u29f9", "\ufe68", "\uff3c",  // backslash
    "\u00a5", "\u20a9",                                // backslash, in Japanese and Korean ones
    "\u066a", "\ufe6a", "\uff05",                      // %
    "\u037e", "\ufe54", "\uff1b",                      // ;
    "\u2024", "\ufe52", "\uff0e",                      // .
    "\u2025", "\ufe30",                                // ..
};

// Of a path once it is decoded: `decoded` is all of it.
absl::Status CheckCharacters(std::string_view decoded) {
  if (!IsValidUtf8(decoded)) {
    return Bad("the path holds an encoding of what is not UTF-8");
  }
  for (const std::string_view each : kLookAlikes) {
    if (decoded.find(each) != std::string_view::npos) {
      return Bad(fmt::format("the path holds the encoding '{}', which some read otherwise",
                             PercentEncoded(each)));
    }
  }
  return absl::OkStatus();
}

bool MatchesWith(std::string_view pattern, std::string_view text, bool free) {
  // reach[i]: the pattern so far matches the first i characters.
  std::vector<char> reach(text.size() + 1, 0);
  reach[0] = 1;
  for (size_t p = 0; p < pattern.size(); ++p) {
    if (pattern[p] == '*') {
      const bool any = free || (p + 1 < pattern.size() && pattern[p + 1] == '*');
      p += p + 1 < pattern.size() && pattern[p + 1] == '*' ? 1 : 0;
      for (size_t i = 0; i < text.size(); ++i) {
        if (reach[i] != 0 && (any || text[i] != '/')) {
          reach[i + 1] = 1;
        }
      }
      continue;
    }
    for (size_t i = text.size(); i > 0; --i) {
      reach[i] = static_cast<char>(reach[i - 1] != 0 && text[i - 1] == pattern[p] ? 1 : 0);
    }
    reach[0] = 0;
  }
  return reach[text.size()] != 0;
}

}  // namespace

absl::StatusOr<Authority> ParseAuthority(std::string_view text, std::optional<uint16_t> port) {
  if (text.find('[') != std::string_view::npos || text.find(']') != std::string_view::npos) {
    return Bad(fmt::format("'{}' is an IP address; rules name hosts", Printable(text, 80)));
  }
  if (text.find('@') != std::string_view::npos) {
    return Bad("the target holds a user name");
  }
  const size_t colon = text.find(':');
  Authority authority;
  std::string_view host = text.substr(0, colon);
  if (colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    const auto [stop, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), authority.port);
    if (digits.empty() || error != std::errc() || stop != digits.data() + digits.size() ||
        digits[0] == '0') {
      return Bad(fmt::format("'{}' is no port", Printable(digits, 40)));
    }
  } else if (port.has_value()) {
    authority.port = *port;
  } else {
    return Bad("the target has no port");
  }
  if (host.ends_with('.')) {
    host.remove_suffix(1);
  }
  RETURN_IF_ERROR(CheckHost(host));
  authority.host = AsciiLower(host);
  return authority;
}

absl::StatusOr<UrlTarget> ParseUrlTarget(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  if (!EqualsIgnoreCase(target.substr(0, kScheme.size()), kScheme)) {
    return Bad("the target of a request to a proxy begins with http://");
  }
  target.remove_prefix(kScheme.size());
  if (target.find('#') != std::string_view::npos) {
    return Bad("the target holds a fragment");
  }
  UrlTarget url;
  const size_t end = std::min(target.find_first_of("/?"), target.size());
  ASSIGN_OR_RETURN(url.authority, ParseAuthority(target.substr(0, end), 80));
  target.remove_prefix(end);
  const size_t mark = target.find('?');
  url.path = target.substr(0, mark);
  url.has_query = mark != std::string_view::npos;
  if (url.has_query) {
    url.query = target.substr(mark + 1);
  }
  if (url.path.empty()) {
    url.path = "/";
  }
  return url;
}

absl::Status CheckPath(std::string_view path) {
  if (path.empty() || path[0] != '/') {
    return Bad("the path does not begin with '/'");
  }
  if (path.size() > kMaxPath) {
    return Bad(fmt::format("the path is longer than {} bytes", kMaxPath));
  }
  std::string whole;
  for (size_t i = 0; i < path.size(); ++i) {
    const auto c = static_cast<unsigned char>(path[i]);
    if (c == '%') {
      const int byte = DecodedAt(path, i);
      if (byte < 0) {
        return Bad("the path holds a malformed percent-encoding");
      }
      const auto decoded = static_cast<unsigned char>(byte);
      if (decoded == '/' || decoded == '\\' || decoded == '%' || decoded == ';' || decoded < 0x20 ||
          decoded == 0x7f || IsUnreserved(decoded)) {
        return Bad(fmt::format("the path holds the encoding '{}'", path.substr(i, 3)));
      }
      whole.push_back(static_cast<char>(decoded));
      i += 2;
      continue;
    }
    if (c == ';' || c == '\\' || c <= 0x20 || c >= 0x7f) {
      return Bad(fmt::format("the path holds '{}'", Printable(path.substr(i, 1), 8)));
    }
    whole.push_back(path[i]);
  }
  RETURN_IF_ERROR(CheckCharacters(whole));
  // The slash at the end makes each segment stand between two.
  const std::string closed = fmt::format("{}{}", path, path.ends_with('/') ? "" : "/");
  for (const std::string_view trick : {"//", "/./", "/../"}) {
    if (closed.find(trick) != std::string::npos) {
      return Bad(fmt::format("the path holds '{}'", trick));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseQuery(
    std::string_view query) {
  std::vector<std::pair<std::string, std::string>> parameters;
  const auto decode = [](std::string_view text) -> absl::StatusOr<std::string> {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      int byte = static_cast<unsigned char>(text[i]);
      if (byte == '%') {
        byte = DecodedAt(text, i);
        i += 2;
      } else if (byte == '+') {
        byte = ' ';
      }
      if (byte < 0x20 || byte == 0x7f) {
        return Bad("the query holds a malformed percent-encoding, or a control character");
      }
      out.push_back(static_cast<char>(byte));
    }
    return out;
  };
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view part = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const size_t equals = std::min(part.find('='), part.size());
    ASSIGN_OR_RETURN(std::string name, decode(part.substr(0, equals)));
    ASSIGN_OR_RETURN(std::string value, decode(part.substr(std::min(equals + 1, part.size()))));
    parameters.emplace_back(std::move(name), std::move(value));
  }
  return parameters;
}

std::string LooseName(std::string_view name) {
  name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
  const size_t open = name.find('[');
  if (open != 0 && open != std::string_view::npos &&
      name.find(']', open) != std::string_view::npos) {
    name = name.substr(0, open);
  }
  std::string loose = AsciiLower(name);
  std::replace_if(
      loose.begin(), loose.end(), [](char c) { return c == '.' || c == ' ' || c == '['; }, '_');
  return loose;
}

bool Matches(std::string_view pattern, std::string_view text) {
  return MatchesWith(pattern, text, /*free=*/false);
}

bool MatchesFreely(std::string_view pattern, std::string_view text) {
  return MatchesWith(pattern, text, /*free=*/true);
}

bool CoversHost(std::string_view name, std::string_view host) {
  if (name.starts_with("*.")) {
    const std::string_view suffix = name.substr(1);
    return host.size() > suffix.size() && host.ends_with(suffix);
  }
  return host == name;
}

std::string PercentEncoded(std::string_view text) {
  std::string out;
  for (const char each : text) {
    const auto c = static_cast<unsigned char>(each);
    if (IsUnreserved(c)) {
      out.push_back(each);
    } else {
      fmt::format_to(std::back_inserter(out), "%{:02X}", c);
    }
  }
  return out;
}

}  // namespace creel::egress
