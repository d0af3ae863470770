#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "supervisor/policy/span.h"

namespace creel {

// Finds known secrets in a text: as they are, in hexadecimal, in base64 (both alphabets, at any
// place of a longer encoded text) and URL-encoded, each also with white space, line breaks or
// invisible characters in between. In time linear in the text, whatever it holds.
class SecretFinder {
 public:
  // Shorter ones are not looked for: they would be found everywhere.
  static constexpr size_t kLeastBytes = 8;

  SecretFinder() = default;
  explicit SecretFinder(const std::vector<std::string>& secrets);

  // Adds what it finds, with the kind `secret.known`.
  void Find(std::string_view text, Spans& found) const;
  [[nodiscard]] bool empty() const { return forms_.empty(); }

 private:
  static constexpr size_t kFilterBits = 1u << 16;

  void Add(std::string form);
  // Lower-case hexadecimal, found in any case.
  void AddHex(const std::string& hex);
  // Whether a form stands in `view` from `at` on.
  [[nodiscard]] bool IsAt(std::string_view view, size_t at, uint32_t index) const;
  // Begins and ends of forms in `view`.
  void Search(std::string_view view, std::vector<std::pair<size_t, size_t>>& hits) const;

  std::vector<std::string> forms_;
  std::unordered_set<uint32_t> hex_forms_;
  // By their first four bytes: a quick no, then the forms themselves.
  std::bitset<kFilterBits> filter_;
  std::unordered_map<uint32_t, std::vector<uint32_t>> by_start_;
};

// The text without characters that nobody sees, white space of one byte stays. `places` tells where
// each byte stood. False: there are none, and nothing was written.
bool WithoutInvisible(std::string_view text, std::string& visible, std::vector<uint32_t>& places);

// Standard base64 without padding; `url` has the other alphabet.
std::string Base64(std::string_view bytes, bool url);

}  // namespace creel
