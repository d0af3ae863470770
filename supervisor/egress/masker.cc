#include "supervisor/egress/masker.h"

#include <algorithm>
#include <utility>

#include "supervisor/egress/target.h"

namespace creel::egress {
namespace {

constexpr size_t kShortest = 4;

}  // namespace

Masker::Masker(std::vector<std::string> secrets) : secrets_(std::move(secrets)) {
  std::erase_if(secrets_, [](const std::string& each) { return each.size() < kShortest; });
  // The longest first: where one begins like another, all of it is covered.
  std::sort(secrets_.begin(), secrets_.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  for (const std::string& each : secrets_) {
    first_[static_cast<unsigned char>(each[0])] = true;
  }
}

void Masker::Feed(std::string_view in, std::string& out) {
  if (secrets_.empty()) {
    out.append(in);
    return;
  }
  held_.append(in);
  Move(out, /*last=*/false);
}

void Masker::Finish(std::string& out) { Move(out, /*last=*/true); }

void Masker::Move(std::string& out, bool last) {
  const std::string_view text = held_;
  size_t covered = std::exchange(cover_, 0);  // up to here; two secrets may overlap
  size_t i = 0;
  for (; i < text.size(); ++i) {
    if (first_[static_cast<unsigned char>(text[i])]) {
      const std::string_view rest = text.substr(i);
      const bool may_begin =
          !last && std::any_of(secrets_.begin(), secrets_.end(), [&](const std::string& secret) {
            return rest.size() < secret.size() && secret.starts_with(rest);
          });
      if (may_begin) {
        cover_ = covered > i ? covered - i : 0;
        break;
      }
      const auto whole =
          std::find_if(secrets_.begin(), secrets_.end(),
                       [&](const std::string& secret) { return rest.starts_with(secret); });
      if (whole != secrets_.end()) {
        covered = std::max(covered, i + whole->size());
        ++found_;
      }
    }
    out.push_back(i < covered ? '*' : text[i]);
  }
  held_.erase(0, i);
}

std::string Masker::Masked(std::string_view text) const {
  Masker once(secrets_);
  std::string out;
  once.Feed(text, out);
  once.Finish(out);
  return out;
}

std::vector<std::string> FormsOf(std::string_view value) {
  std::vector<std::string> forms{std::string(value), PercentEncoded(value), Base64(value)};
  // In the middle of something longer, base64 has three ways to write it; the characters at both
  // ends depend on the neighbours too.
  for (size_t shift = 0; shift < 3; ++shift) {
    const std::string coded = Base64(std::string(shift, 'x') + std::string(value));
    const size_t begin = shift == 0 ? 0 : shift + 1;
    const size_t end = (shift + value.size()) * 8 / 6;
    forms.push_back(coded.substr(begin, end - begin));
  }
  for (size_t i = 2, count = forms.size(); i < count; ++i) {
    std::string url_safe = forms[i];
    std::replace(url_safe.begin(), url_safe.end(), '+', '-');
    std::replace(url_safe.begin(), url_safe.end(), '/', '_');
    forms.push_back(std::move(url_safe));
  }
  std::string json;
  for (const char c : value) {
    if (c == '"' || c == '\\' || c == '/') {
      json.push_back('\\');
    }
    json.push_back(c);
  }
  forms.push_back(json);
  std::sort(forms.begin(), forms.end());
  forms.erase(std::unique(forms.begin(), forms.end()), forms.end());
  return forms;
}

}  // namespace creel::egress
