#include "supervisor/web/request_check.h"

#include <algorithm>

namespace creel::web {
namespace {

bool Same(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    const auto lower = [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    return lower(x) == lower(y);
  });
}

}  // namespace

OriginVerdict CheckOrigin(const RequestOrigin& request, const std::vector<std::string>& hosts) {
  const bool ours = std::any_of(hosts.begin(), hosts.end(),
                                [&](const std::string& host) { return Same(host, request.host); });
  if (!ours) {
    return OriginVerdict::kWrongHost;
  }
  if (request.origin.empty()) {
    // Every browser of today sends it with what changes something.
    if (request.changes) {
      return OriginVerdict::kWrongOrigin;
    }
  } else {
    std::string_view origin = request.origin;
    for (const std::string_view scheme : {"http://", "https://"}) {
      if (origin.starts_with(scheme)) {
        origin.remove_prefix(scheme.size());
        break;
      }
    }
    if (origin.size() == request.origin.size() || !Same(origin, request.host)) {
      return OriginVerdict::kWrongOrigin;
    }
  }
  if (!request.fetch_site.empty() && request.fetch_site != "same-origin" &&
      request.fetch_site != "none" && !request.opens_page) {
    return OriginVerdict::kWrongOrigin;
  }
  return OriginVerdict::kGood;
}

std::string CookieOf(std::string_view header, std::string_view name) {
  std::string value;
  bool found = false;
  while (!header.empty()) {
    std::string_view pair = header.substr(0, header.find(';'));
    header.remove_prefix(std::min(header.size(), pair.size() + 1));
    while (!pair.empty() && pair.front() == ' ') {
      pair.remove_prefix(1);
    }
    if (pair.size() > name.size() && pair.starts_with(name) && pair[name.size()] == '=') {
      if (found) {
        return {};
      }
      found = true;
      value = pair.substr(name.size() + 1);
    }
  }
  return value;
}

}  // namespace creel::web
