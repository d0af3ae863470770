#include "supervisor/policy/key_finder.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <string>

namespace creel {
namespace {

// Looked at for each name that comes before, so that not too much is looked at twice.
constexpr size_t kMaxValue = 256;
constexpr size_t kMaxUrl = 512;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsAlnum(char c) { return IsDigit(c) || IsUpper(c) || IsLower(c); }

constexpr std::array<bool, 256> MakeWord() {
  std::array<bool, 256> word{};
  for (int c = '0'; c <= '9'; ++c) {
    word[static_cast<size_t>(c)] = true;
  }
  for (int c = 'a'; c <= 'z'; ++c) {
    word[static_cast<size_t>(c)] = word[static_cast<size_t>(c - 'a' + 'A')] = true;
  }
  word['_'] = word['-'] = true;
  return word;
}
constexpr std::array<bool, 256> kWord = MakeWord();
bool IsWord(char c) { return kWord[static_cast<unsigned char>(c)]; }

// A provider's tokens: `prefix`, then letters, digits, `_` and `-`.
struct Shape {
  std::string_view prefix;
  const char* kind;
  size_t least;         // characters after the prefix
  size_t least_digits;  // among them; words joined by dashes have few
};

constexpr std::array<Shape, 42> kShapes{{
    {"sk-ant-", "key.anthropic", 20, 2},
    {"sk-proj-", "key.openai", 20, 2},
    {"sk-or-", "key.openrouter", 20, 2},
    {"sk-", "key.openai", 20, 2},
    {"sk_live_", "key.stripe", 16, 1},
    {"sk_test_", "key.stripe", 16, 1},
    {"rk_live_", "key.stripe", 16, 1},
    {"whsec_", "key.stripe", 24, 1},
    {"ghp_", "key.github", 30, 1},
    {"gho_", "key.github", 30, 1},
    {"ghu_", "key.github", 30, 1},
    {"ghs_", "key.github", 30, 1},
    {"ghr_", "key.github", 30, 1},
    {"github_pat_", "key.github", 22, 1},
    {"glpat-", "key.gitlab", 18, 1},
    {"gldt-", "key.gitlab", 18, 1},
    {"glrt-", "key.gitlab", 18, 1},
    {"xoxb-", "key.slack", 16, 6},
    {"xoxp-", "key.slack", 16, 6},
    {"xoxa-", "key.slack", 16, 6},
    {"xoxr-", "key.slack", 16, 6},
    {"xoxs-", "key.slack", 16, 6},
    {"xapp-", "key.slack", 16, 6},
    {"AIza", "key.google", 35, 1},
    {"npm_", "key.npm", 36, 1},
    {"pypi-AgE", "key.pypi", 40, 1},
    {"dop_v1_", "key.digitalocean", 40, 2},
    {"hf_", "key.huggingface", 30, 1},
    {"gsk_", "key.groq", 30, 1},
    {"xai-", "key.xai", 40, 1},
    {"pplx-", "key.perplexity", 30, 1},
    {"tvly-", "key.tavily", 20, 1},
    {"r8_", "key.replicate", 30, 1},
    {"shpat_", "key.shopify", 32, 1},
    {"shpss_", "key.shopify", 32, 1},
    {"EAAC", "key.facebook", 60, 2},
    {"lin_api_", "key.linear", 30, 1},
    {"nvapi-", "key.nvidia", 40, 1},
    {"dckr_pat_", "key.docker", 20, 1},
    {"tskey-", "key.tailscale", 20, 1},
    {"sntrys_", "key.sentry", 40, 1},
    {"AGE-SECRET-KEY-1", "key.age", 50, 2},
}};

// Beginnings of two characters of all that Run looks at, so that most words are left at once.
const std::bitset<65536>& Beginnings() {
  static const auto& set = *new std::bitset<65536>([] {
    std::bitset<65536> bits;
    const auto add = [&](std::string_view prefix) {
      bits.set(static_cast<size_t>(static_cast<unsigned char>(prefix[0])) << 8 |
               static_cast<unsigned char>(prefix[1]));
    };
    for (const Shape& shape : kShapes) {
      add(shape.prefix);
    }
    for (const std::string_view other : {"AKIA", "ASIA", "ABIA", "ACCA", "eyJ", "--", "ya29"}) {
      add(other);
    }
    return bits;
  }());
  return set;
}

bool Holds(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Whether the value looks random rather than written.
bool LooksRandom(std::string_view value) {
  std::bitset<256> seen;
  size_t digits = 0;
  size_t letters = 0;
  for (const char c : value) {
    seen.set(static_cast<unsigned char>(c));
    digits += IsDigit(c) ? 1 : 0;
    letters += IsUpper(c) || IsLower(c) ? 1 : 0;
  }
  return value.size() >= 20 && seen.count() >= 10 && digits >= 3 && letters >= 3;
}

// Walks the text once, word by word.
class Walk {
 public:
  Walk(std::string_view text, Spans& found) : text_(text), found_(found) {}

  void Run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (!IsWord(c)) {
        if (c == ':' && text_.substr(at_).starts_with("://")) {
          Url();
        }
        ++at_;
        continue;
      }
      const size_t begin = at_;
      const size_t end = WordEnd(begin);
      at_ = end;
      if (end - begin >= 4) {
        Word(begin, end);
      }
    }
  }

 private:
  [[nodiscard]] size_t WordEnd(size_t at) const {
    while (at < text_.size() && IsWord(text_[at])) {
      ++at;
    }
    return at;
  }
  [[nodiscard]] char At(size_t at) const { return at < text_.size() ? text_[at] : '\0'; }

  void Take(size_t begin, size_t end, const char* kind) {
    found_.push_back({begin, end, kind});
    at_ = std::max(at_, end);
  }

  // Also where the word begins later than it seems: after the letter of a `\n` that is written out,
  // as JSON has it, and after `_` and `-`.
  void Word(size_t begin, size_t end) {
    if (begin > 0 && text_[begin - 1] == '\\') {
      const char c = text_[begin];
      const size_t skip = c == 'n' || c == 'r' || c == 't' ? 1 : c == 'u' ? 5 : 0;
      if (skip > 0 && end - begin >= skip + 4) {
        Look(begin + skip, end);
      }
    }
    if (at_ == end && Look(begin, end)) {
      return;
    }
    if (at_ == end && end - begin > 10) {
      Inside(begin, end);
    }
  }

  void Inside(size_t begin, size_t end) {
    const std::string_view word = text_.substr(begin, end - begin);
    for (size_t i = 1; i + 10 <= word.size(); ++i) {
      if (word[i] == '-' && word.substr(i).starts_with("-----BEGIN") &&
          Pem(word.substr(i, 10), begin + i)) {
        return;
      }
      if ((word[i - 1] == '_' || word[i - 1] == '-') && word[i] != '-' &&
          Beginnings().test(static_cast<size_t>(static_cast<unsigned char>(word[i])) << 8 |
                            static_cast<unsigned char>(word[i + 1])) &&
          Token(word.substr(i), begin + i, end)) {
        return;
      }
    }
  }

  // Whether something was found; an assignment may be besides.
  bool Look(size_t begin, size_t end) {
    const std::string_view word = text_.substr(begin, end - begin);
    const size_t start = static_cast<size_t>(static_cast<unsigned char>(word[0])) << 8 |
                         static_cast<unsigned char>(word[1]);
    if (Beginnings().test(start) && (Provider(word, begin, end) || Pem(word, begin))) {
      return true;
    }
    if (IsDigit(word[0]) && Telegram(word, begin, end)) {
      return true;
    }
    if (word.size() >= 23 && Discord(word, begin, end)) {
      return true;
    }
    const char next = At(end);
    if (next == '=' || next == ':' || ((next == '"' || next == '\'') && At(end + 1) == ':')) {
      Assignment(word, end);
    } else if (next == ' ' && (At(end + 1) == '=' || At(end + 1) == ':')) {
      Assignment(word, end + 1);
    }
    return at_ != end;
  }

  bool Token(std::string_view word, size_t begin, size_t end) {
    for (const Shape& shape : kShapes) {
      if (!word.starts_with(shape.prefix)) {
        continue;
      }
      const std::string_view rest = word.substr(shape.prefix.size());
      // Not of all of it, as one word may begin like a token in many places.
      const std::string_view near = rest.substr(0, kMaxValue);
      const auto digits = std::count_if(near.begin(), near.end(), IsDigit);
      if (rest.size() >= shape.least && static_cast<size_t>(digits) >= shape.least_digits) {
        Take(begin, end, shape.kind);
        return true;
      }
    }
    for (const std::string_view prefix : {"AKIA", "ASIA", "ABIA", "ACCA"}) {
      if (word.size() == 20 && word.starts_with(prefix) &&
          std::all_of(word.begin(), word.end(), [](char c) { return IsUpper(c) || IsDigit(c); })) {
        Take(begin, end, "key.aws");
        return true;
      }
    }
    return false;
  }

  bool Provider(std::string_view word, size_t begin, size_t end) {
    if (Token(word, begin, end)) {
      return true;
    }
    if (word == "ya29" && At(end) == '.' && WordEnd(end + 1) - end > 20) {
      Take(begin, WordEnd(end + 1), "key.google");
      return true;
    }
    if (word.starts_with("eyJ") && word.size() >= 10 && At(end) == '.') {
      const size_t second = WordEnd(end + 1);
      if (second - end > 10 && At(second) == '.') {
        const size_t third = WordEnd(second + 1);
        if (third - second > 10) {
          Take(begin, third, "key.jwt");
          return true;
        }
      }
    }
    return false;
  }

  // `-----BEGIN … PRIVATE KEY-----` up to its end, or to that of the text if it has none.
  bool Pem(std::string_view word, size_t begin) {
    const size_t dashes = word.find("-----BEGIN");
    if (dashes == std::string_view::npos) {
      return false;
    }
    const std::string_view head = text_.substr(begin + dashes, 64);
    const size_t key = head.find("PRIVATE KEY");
    if (key == std::string_view::npos || Holds(head.substr(0, key), "\n")) {
      return false;
    }
    size_t end = text_.size();
    if (!no_more_ends_) {
      const size_t tail = text_.find("-----END", begin + dashes + key);
      no_more_ends_ = tail == std::string_view::npos;
      if (!no_more_ends_) {
        // Its own line is `-----END … KEY-----`.
        const size_t line = text_.find('\n', tail);
        const size_t close = text_.substr(0, std::min(line, tail + 64)).find("-----", tail + 8);
        end = close == std::string_view::npos ? std::min(line, text_.size()) : close + 5;
      }
    }
    Take(begin + dashes, end, "key.pem");
    return true;
  }

  bool Telegram(std::string_view word, size_t begin, size_t end) {
    if (word.size() < 8 || word.size() > 11 || At(end) != ':' ||
        !std::all_of(word.begin(), word.end(), IsDigit)) {
      return false;
    }
    const size_t stop = WordEnd(end + 1);
    if (stop - end - 1 < 34 || stop - end - 1 > 37 || At(end + 1) != 'A') {
      return false;
    }
    Take(begin, stop, "key.telegram");
    return true;
  }

  bool Discord(std::string_view word, size_t begin, size_t end) {
    if (word.size() > 30 || At(end) != '.' ||
        (word[0] != 'M' && word[0] != 'N' && word[0] != 'O')) {
      return false;
    }
    const size_t second = WordEnd(end + 1);
    if (second - end - 1 < 6 || second - end - 1 > 7 || At(second) != '.') {
      return false;
    }
    const size_t third = WordEnd(second + 1);
    if (third - second - 1 < 27 || third - second - 1 > 45) {
      return false;
    }
    Take(begin, third, "key.discord");
    return true;
  }

  // `scheme://user:password@host`; at_ is at the colon.
  void Url() {
    const size_t from = at_ + 3;
    const size_t most = std::min(text_.size(), from + kMaxUrl);
    size_t colon = 0;
    size_t slash = 0;
    size_t host = 0;  // the last `@`: those before it are the password's
    for (size_t i = from; i < most; ++i) {
      const char c = text_[i];
      if (c == '@') {
        host = i;
        if (colon == 0) {
          return;
        }
      } else if (c == ':' && colon == 0) {
        colon = i;
      } else if (c == '/' || c == '?' || c == '#') {
        if (colon == 0) {
          return;
        }
        slash = slash == 0 ? i : slash;
      } else if (static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '\'' || c == '`' ||
                 c == '<' || c == '>') {
        break;
      }
    }
    if (host == 0 || colon == 0) {
      return;
    }
    if (slash != 0 && slash < host) {
      // `host:8080/@name`: a port and a path.
      const std::string_view port = text_.substr(colon + 1, slash - colon - 1);
      if (std::all_of(port.begin(), port.end(), IsDigit)) {
        return;
      }
    }
    const size_t i = host;
    const std::string_view password = text_.substr(colon + 1, i - colon - 1);
    if (password.size() < 4 || IsPlaceholder(password)) {
      return;
    }
    Take(colon + 1, i, "key.url-password");
  }

  // What stands in documentation for a value.
  static bool IsPlaceholder(std::string_view value) {
    std::string lower;
    for (const char c : value) {
      lower += IsUpper(c) ? static_cast<char>(c - 'A' + 'a') : c;
    }
    if (value[0] == '$' || value[0] == '{' || value[0] == '<' || value[0] == '%' ||
        value[0] == '[') {
      return true;
    }
    if (std::all_of(value.begin(), value.end(), [&](char c) { return c == value[0]; })) {
      return true;
    }
    for (const std::string_view word :
         {"password", "passwd", "pass", "secret", "changeme", "example", "user", "token", "your",
          "postgres", "mysql", "root", "admin", "test", "dummy", "redacted", "xxx"}) {
      if (lower.starts_with(word) && lower.size() <= word.size() + 6 &&
          std::none_of(lower.begin(), lower.end(), IsDigit)) {
        return true;
      }
    }
    return false;
  }

  // A name, and from `at` on `=` or `:` and a value.
  void Assignment(std::string_view name, size_t at) {
    if (!SpeaksOfSecrets(name)) {
      return;
    }
    size_t value = at;
    // `": "`, ` = '`, `=`.
    while (value < text_.size() && value < at + 6 &&
           (text_[value] == '=' || text_[value] == ':' || text_[value] == ' ' ||
            text_[value] == '"' || text_[value] == '\'')) {
      ++value;
    }
    size_t end = value;
    while (end < text_.size() && end < value + kMaxValue &&
           (IsWord(text_[end]) || text_[end] == '/' || text_[end] == '+' || text_[end] == '=' ||
            text_[end] == '.')) {
      ++end;
    }
    const char after = At(end);
    if (after == '(' || after == '[' || after == '{') {
      return;  // a call, not a value
    }
    if (LooksRandom(text_.substr(value, end - value))) {
      Take(value, end, "key.assignment");
    }
  }

  static bool SpeaksOfSecrets(std::string_view name) {
    if (name.size() > 64) {
      return false;
    }
    std::string lower;
    for (const char c : name) {
      if (IsAlnum(c)) {
        lower += IsUpper(c) ? static_cast<char>(c - 'A' + 'a') : c;
      }
    }
    for (const std::string_view end :
         {"token", "secret", "password", "passwd", "apikey", "accesskey", "accountkey",
          "privatekey", "secretkey", "secretaccesskey", "authkey", "signingkey", "encryptionkey",
          "sharedaccesskey"}) {
      if (lower.ends_with(end)) {
        return true;
      }
    }
    return false;
  }

  const std::string_view text_;
  Spans& found_;
  size_t at_ = 0;
  bool no_more_ends_ = false;
};

}  // namespace

void FindKeys(std::string_view text, Spans& found) { Walk(text, found).Run(); }

}  // namespace creel
