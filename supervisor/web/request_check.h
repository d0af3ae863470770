#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace creel::web {

// What a browser tells of where a request comes from; empty: it does not say.
struct RequestOrigin {
  std::string_view host;
  std::string_view origin;
  std::string_view fetch_site;  // Sec-Fetch-Site
  bool changes = false;         // any method but GET and HEAD
  bool opens_page = false;      // the page itself or a file of it, which a link may lead to
};

enum class OriginVerdict {
  kGood,
  kWrongHost,    // another name led here, as when a foreign name was bound to this address
  kWrongOrigin,  // another page asks
};

// Decides by the names that we go by: `hosts` as a Host header has them. Whatever is not certain to
// come from our own page is refused.
OriginVerdict CheckOrigin(const RequestOrigin& request, const std::vector<std::string>& hosts);

// The value of a cookie in a Cookie header; empty if it is not there exactly once.
std::string CookieOf(std::string_view header, std::string_view name);

}  // namespace creel::web
