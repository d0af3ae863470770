#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/base/status.h"

namespace creel::egress {

// A host's name with a port.
struct Authority {
  std::string host;  // in lower case, without a dot at its end
  uint16_t port = 0;
  bool operator==(const Authority&) const = default;
};

// `host:port`, or `host` where there is a default. kInvalidArgument: user names, brackets,
// characters that no DNS name has, a port that is not 1 to 65535, or no port. What some reader may
// take for an IP address (`127.1`, `0x7f000001`, `2130706433`, `[::1]`) is refused too, in any
// notation: rules name hosts.
absl::StatusOr<Authority> ParseAuthority(std::string_view text, std::optional<uint16_t> port);

// The target of a plain request.
struct UrlTarget {
  Authority authority;
  std::string path;   // begins with '/', as sent
  std::string query;  // without '?', as sent
  bool has_query = false;
};

// `http://host[:port]/path[?query]`. kInvalidArgument for everything else: other schemes, a target
// without a host, fragments, and whatever ParseAuthority refuses.
absl::StatusOr<UrlTarget> ParseUrlTarget(std::string_view target);

// A path that every reader understands alike: no empty segment, `.` or `..`, `;` or backslash, no
// percent-encoding of a slash, backslash, percent sign, control character, of a character that
// needs none, of bytes that are not UTF-8, or of a character that some reader folds into one of
// these. kInvalidArgument says which.
absl::Status CheckPath(std::string_view path);

// Names and values of a query, decoded. kInvalidArgument: a malformed percent-encoding, or control
// characters.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseQuery(std::string_view query);

// A parameter's name as the most generous server reads it, for what must not be there under any
// name: without spaces in front and an index behind (`a[]`, `a[x]`), with `_` for a dot, a space
// and a lone bracket, in lower case.
std::string LooseName(std::string_view name);

// Whether `text` is of the form `pattern`: `*` is any characters but '/', `**` any at all.
bool Matches(std::string_view pattern, std::string_view text);
// The same where `*` is any characters at all.
bool MatchesFreely(std::string_view pattern, std::string_view text);

// Whether a rule for `name` (in lower case; `*.suffix` for all below) covers `host`.
bool CoversHost(std::string_view name, std::string_view host);

std::string PercentEncoded(std::string_view text);

}  // namespace creel::egress
