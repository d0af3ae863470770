#include "supervisor/policy/secret_finder.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

uint32_t Load4(const char* at) {
  uint32_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

uint32_t FilterSlot(uint32_t start) { return start * 0x9E3779B1u >> 16; }

// Length of the invisible or white character of several bytes at `at`; 0 if there is none.
size_t InvisibleLength(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto within = [&](size_t i, unsigned least, unsigned most) {
    return byte(i) >= least && byte(i) <= most;
  };
  switch (byte(0)) {
    case 0xc2:  // no-break space, soft hyphen
      return byte(1) == 0xa0 || byte(1) == 0xad ? 2 : 0;
    case 0xcd:  // U+034F
      return byte(1) == 0x8f ? 2 : 0;
    case 0xd8:  // U+061C
      return byte(1) == 0x9c ? 2 : 0;
    case 0xe1:  // U+115F, U+180E
      return (byte(1) == 0x85 && byte(2) == 0x9f) || (byte(1) == 0xa0 && byte(2) == 0x8e) ? 3 : 0;
    case 0xe2:  // U+2000 to U+200F, U+2028 to U+202F, U+205F to U+2064, U+2066 to U+2069
      if (byte(1) == 0x80) {
        return within(2, 0x80, 0x8f) || within(2, 0xa8, 0xaf) ? 3 : 0;
      }
      return byte(1) == 0x81 && (within(2, 0x9f, 0xa4) || within(2, 0xa6, 0xa9)) ? 3 : 0;
    case 0xe3:  // U+3000
      return byte(1) == 0x80 && byte(2) == 0x80 ? 3 : 0;
    case 0xef:  // U+FE00 to U+FE0F, U+FEFF
      return (byte(1) == 0xb8 && within(2, 0x80, 0x8f)) || (byte(1) == 0xbb && byte(2) == 0xbf) ? 3
                                                                                                : 0;
    case 0xf3:  // U+E0000 to U+E0FFF
      return byte(1) == 0xa0 && within(2, 0x80, 0xbf) && within(3, 0x80, 0xbf) ? 4 : 0;
    default:
      return 0;
  }
}

enum class CharClass : uint8_t { kKeep, kDrop, kLook };

constexpr std::array<CharClass, 256> MakeClasses() {
  std::array<CharClass, 256> classes{};
  for (size_t c = 0; c <= 0x20; ++c) {
    classes[c] = CharClass::kDrop;
  }
  classes[0x7f] = CharClass::kDrop;
  for (const unsigned char c : {0xc2, 0xcd, 0xd8, 0xe1, 0xe2, 0xe3, 0xef, 0xf3}) {
    classes[c] = CharClass::kLook;
  }
  return classes;
}
constexpr std::array<CharClass, 256> kClasses = MakeClasses();

// The text without white space and invisible characters. `places`, if wanted, tells where each byte
// stood.
std::string Squeeze(std::string_view text, std::vector<uint32_t>* places) {
  std::string view(text.size(), '\0');
  size_t length = 0;
  size_t i = 0;
  while (i < text.size()) {
    const CharClass kind = kClasses[static_cast<unsigned char>(text[i])];
    if (kind == CharClass::kLook) {
      const size_t skip = InvisibleLength(text, i);
      i += skip;
      if (skip > 0) {
        continue;
      }
    }
    if (places != nullptr && kind != CharClass::kDrop) {
      places->push_back(static_cast<uint32_t>(i));
    }
    // Written in any case and counted if it is to stay, so that there is nothing to guess.
    view[length] = text[i++];
    length += kind == CharClass::kDrop ? 0 : 1;
  }
  view.resize(length);
  return view;
}

int HexDigit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

// `c` of lower-case hexadecimal in upper case.
char UpperHex(char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c; }

// Whether hexadecimal with `:` or `-` after every byte begins somewhere: four bytes of it.
bool HoldsPairs(std::string_view text) {
  for (const char between : {':', '-'}) {
    for (size_t at = text.find(between); at != std::string_view::npos;
         at = text.find(between, at + 1)) {
      if (at < 2 || at + 8 >= text.size() || text[at + 3] != between || text[at + 6] != between) {
        continue;
      }
      bool hex = true;
      for (const size_t i : {at - 2, at - 1, at + 1, at + 2, at + 4, at + 5, at + 7, at + 8}) {
        hex = hex && HexDigit(text[i]) >= 0;
      }
      if (hex) {
        return true;
      }
    }
  }
  return false;
}

// `view` with its `%41` filled in; `places` are kept in step.
std::string PercentDecoded(std::string_view view, const std::vector<uint32_t>& places,
                           std::vector<uint32_t>& decoded_places) {
  std::string decoded;
  decoded.reserve(view.size());
  for (size_t i = 0; i < view.size(); ++i) {
    decoded_places.push_back(places[i]);
    const int high = view[i] == '%' && i + 2 < view.size() ? HexDigit(view[i + 1]) : -1;
    const int low = high < 0 ? -1 : HexDigit(view[i + 2]);
    if (low >= 0) {
      decoded += static_cast<char>(high << 4 | low);
      i += 2;
    } else {
      decoded += view[i];
    }
  }
  return decoded;
}

// Whether a character that can be invisible may be there.
bool MayHideSome(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t piece = 0;
    std::memcpy(&piece, text.data() + i, sizeof(piece));
    if ((piece & 0x8080808080808080u) != 0) {
      return true;
    }
  }
  return std::any_of(text.begin() + static_cast<ptrdiff_t>(i), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

}  // namespace

bool WithoutInvisible(std::string_view text, std::string& visible, std::vector<uint32_t>& places) {
  if (!MayHideSome(text)) {
    return false;
  }
  size_t done = 0;  // copied up to here
  for (size_t i = 0; i < text.size();) {
    const size_t skip = kClasses[static_cast<unsigned char>(text[i])] == CharClass::kLook
                            ? InvisibleLength(text, i)
                            : 0;
    if (skip == 0) {
      ++i;
      continue;
    }
    for (; done < i; ++done) {
      visible += text[done];
      places.push_back(static_cast<uint32_t>(done));
    }
    i += skip;
    done = i;
  }
  if (done == 0) {
    return false;
  }
  for (; done < text.size(); ++done) {
    visible += text[done];
    places.push_back(static_cast<uint32_t>(done));
  }
  return true;
}

std::string Base64(std::string_view bytes, bool url) {
  const char* const alphabet =
      url ? "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
          : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    count += 8;
    while (count >= 6) {
      count -= 6;
      out += alphabet[bits >> count & 63];
    }
  }
  if (count > 0) {
    out += alphabet[bits << (6 - count) & 63];
  }
  return out;
}

SecretFinder::SecretFinder(const std::vector<std::string>& secrets) {
  for (const std::string& given : secrets) {
    const std::string secret = Squeeze(given, nullptr);
    if (secret.size() < kLeastBytes) {
      continue;
    }
    Add(secret);
    AddHex(Hex(secret));
    // Encoded inside a longer text, only the middle is the same, and it is another one for each of
    // three places.
    for (const std::string& form : {given, secret}) {
      for (size_t before = 0; before < 3; ++before) {
        for (const bool url : {false, true}) {
          const std::string encoded = Base64(std::string(before, 'x') + form, url);
          const size_t from = before == 0 ? 0 : before == 1 ? 2 : 3;
          const size_t sure = (before + form.size()) * 8 / 6;
          if (sure > from) {
            Add(encoded.substr(from, sure - from));
          }
        }
      }
    }
  }
}

void SecretFinder::Add(std::string form) {
  if (form.size() < kLeastBytes) {
    return;
  }
  const uint32_t start = Load4(form.data());
  std::vector<uint32_t>& same = by_start_[start];
  for (const uint32_t index : same) {
    if (forms_[index] == form && !hex_forms_.contains(index)) {
      return;
    }
  }
  filter_.set(FilterSlot(start));
  same.push_back(static_cast<uint32_t>(forms_.size()));
  forms_.push_back(std::move(form));
}

// Found by each way of writing its first four digits.
void SecretFinder::AddHex(const std::string& hex) {
  const auto index = static_cast<uint32_t>(forms_.size());
  forms_.push_back(hex);
  hex_forms_.insert(index);
  for (unsigned upper = 0; upper < 16; ++upper) {
    std::string start = hex.substr(0, 4);
    bool letters = true;
    for (size_t i = 0; i < start.size(); ++i) {
      if ((upper >> i & 1) != 0) {
        letters = letters && start[i] >= 'a';
        start[i] = UpperHex(start[i]);
      }
    }
    if (letters) {
      filter_.set(FilterSlot(Load4(start.data())));
      by_start_[Load4(start.data())].push_back(index);
    }
  }
}

bool SecretFinder::IsAt(std::string_view view, size_t at, uint32_t index) const {
  const std::string& form = forms_[index];
  if (view.size() - at < form.size()) {
    return false;
  }
  const std::string_view here = view.substr(at, form.size());
  return hex_forms_.contains(index)
             ? std::equal(form.begin(), form.end(), here.begin(),
                          [](char a, char b) { return a == b || UpperHex(a) == b; })
             : here == form;
}

void SecretFinder::Search(std::string_view view,
                          std::vector<std::pair<size_t, size_t>>& hits) const {
  if (view.size() < kLeastBytes) {
    return;
  }
  const size_t last = view.size() - kLeastBytes;
  for (size_t i = 0; i <= last; ++i) {
    const uint32_t start = Load4(view.data() + i);
    if (!filter_.test(FilterSlot(start))) {
      continue;
    }
    const auto found = by_start_.find(start);
    if (found == by_start_.end()) {
      continue;
    }
    size_t longest = 0;
    for (const uint32_t index : found->second) {
      const std::string& form = forms_[index];
      if (form.size() > longest && IsAt(view, i, index)) {
        longest = form.size();
      }
    }
    if (longest > 0) {
      hits.emplace_back(i, i + longest);
      i += longest - 1;
    }
  }
}

void SecretFinder::Find(std::string_view text, Spans& found) const {
  if (forms_.empty() || text.size() < kLeastBytes) {
    return;
  }
  const bool percent = text.find('%') != std::string_view::npos;
  const bool pairs = HoldsPairs(text);
  std::vector<std::pair<size_t, size_t>> hits;
  const std::string view = Squeeze(text, nullptr);
  Search(view, hits);
  if (hits.empty() && !percent && !pairs) {
    return;
  }
  // Only now is it worth knowing where each byte stood.
  std::vector<uint32_t> places;
  places.reserve(view.size());
  Squeeze(text, &places);
  const auto add = [&](const std::vector<uint32_t>& of) {
    for (const auto& [begin, end] : hits) {
      // Up to the byte after the last one, with its `%41` if it is one.
      const size_t after = end < of.size() ? of[end] : text.size();
      size_t stop = of[end - 1] + 1u;
      if (text[of[end - 1]] == '%' && stop + 2 <= after) {
        stop += 2;
      }
      found.push_back({of[begin], stop, "secret.known"});
    }
  };
  add(places);
  if (percent) {
    hits.clear();
    std::vector<uint32_t> decoded_places;
    decoded_places.reserve(view.size());
    const std::string decoded = PercentDecoded(view, places, decoded_places);
    Search(decoded, hits);
    add(decoded_places);
  }
  if (pairs) {
    hits.clear();
    std::string joined;
    std::vector<uint32_t> joined_places;
    for (size_t i = 0; i < view.size(); ++i) {
      if (view[i] != ':' && view[i] != '-') {
        joined += view[i];
        joined_places.push_back(places[i]);
      }
    }
    Search(joined, hits);
    add(joined_places);
  }
}

}  // namespace creel
