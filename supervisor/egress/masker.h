#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace creel::egress {

// Puts asterisks in place of secrets in a stream that comes in pieces. Each occurrence is replaced
// by as many bytes, so lengths stay what they were said to be.
class Masker {
 public:
  // What is shorter than four bytes is too common to be looked for.
  explicit Masker(std::vector<std::string> secrets);

  // Appends to `out` what can be passed on now. Only bytes that may be the beginning of a secret
  // are held back until more has come.
  void Feed(std::string_view in, std::string& out);
  // Nothing more comes: appends what was held back.
  void Finish(std::string& out);

  [[nodiscard]] std::string Masked(std::string_view text) const;
  // Occurrences so far.
  [[nodiscard]] size_t found() const { return found_; }

 private:
  void Move(std::string& out, bool last);

  std::vector<std::string> secrets_;
  bool first_[256] = {};  // bytes that a secret begins with
  std::string held_;      // as it came
  size_t cover_ = 0;      // so many bytes at the front of held_ are the end of a secret
  size_t found_ = 0;
};

// `value` in the forms in which a reply may echo it: as it is, percent-encoded, as base64, and
// escaped for JSON.
std::vector<std::string> FormsOf(std::string_view value);

}  // namespace creel::egress
