#include "supervisor/config/json5.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"

namespace creel {
namespace {

constexpr size_t kMaxBytes = 16u << 20;
constexpr int kMaxDepth = 64;
constexpr size_t kMaxValues = 1'000'000;

void AppendUtf8(uint32_t code, std::string& out) {
  const auto byte = [&](uint32_t value) { out += static_cast<char>(value); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | code >> 6);
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3f));
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

bool IsIdentifier(unsigned char c) {
  return c >= 0x80 || c == '_' || c == '$' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
         (c >= 'A' && c <= 'Z');
}

// Descends through the text once, from its start to its end.
class Parser {
 public:
  Parser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  absl::StatusOr<YamlNode> Parse() {
    YamlNode root;
    if (!Space() || !Value(root, 0) || !Space()) {
      return error_;
    }
    if (!AtEnd()) {
      Fail("something follows the end of the document");
      return error_;
    }
    return root;
  }

 private:
  [[nodiscard]] bool AtEnd() const { return at_ >= text_.size(); }
  [[nodiscard]] char Now() const { return AtEnd() ? '\0' : text_[at_]; }
  [[nodiscard]] int Column() const { return static_cast<int>(at_ - line_start_ + 1); }

  bool Fail(std::string_view why) { return FailAt(line_, Column(), why); }
  bool FailAt(int line, int column, std::string_view why) {
    error_ = absl::InvalidArgumentError(fmt::format("{}:{}:{}: {}", file_, line, column, why));
    return false;
  }

  // Takes one character; counts lines.
  void Step() {
    if (text_[at_] == '\n') {
      ++line_;
      line_start_ = at_ + 1;
    }
    ++at_;
  }

  // White space and comments.
  bool Space() {
    while (!AtEnd()) {
      const char c = Now();
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f') {
        Step();
      } else if (text_.substr(at_).starts_with("\xef\xbb\xbf")) {
        at_ += 3;
      } else if (text_.substr(at_).starts_with("\xc2\xa0")) {
        at_ += 2;
      } else if (text_.substr(at_).starts_with("//")) {
        while (!AtEnd() && Now() != '\n') {
          Step();
        }
      } else if (text_.substr(at_).starts_with("/*")) {
        const int line = line_;
        const int column = Column();
        const size_t end = text_.find("*/", at_ + 2);
        if (end == std::string_view::npos) {
          return FailAt(line, column, "the comment that begins here is never closed");
        }
        while (at_ < end + 2) {
          Step();
        }
      } else {
        break;
      }
    }
    return true;
  }

  bool Value(YamlNode& node, int depth) {
    if (depth > kMaxDepth) {
      return Fail(fmt::format("more than {} levels", kMaxDepth));
    }
    if (++values_ > kMaxValues) {
      return Fail(fmt::format("more than {} values", kMaxValues));
    }
    node.line = line_;
    node.column = Column();
    switch (Now()) {
      case '{':
        return Object(node, depth);
      case '[':
        return Array(node, depth);
      case '"':
      case '\'':
        node.kind = YamlNode::Kind::kScalar;
        node.quoted = true;
        return String(node.text);
      default:
        return Word(node);
    }
  }

  bool Object(YamlNode& node, int depth) {
    node.kind = YamlNode::Kind::kMap;
    std::unordered_map<std::string, int> seen;
    Step();
    while (true) {
      if (!Space()) {
        return false;
      }
      if (Now() == '}') {
        Step();
        return true;
      }
      YamlNode key;
      if (!Key(key)) {
        return false;
      }
      if (const auto [first, fresh] = seen.emplace(key.text, key.line); !fresh) {
        return FailAt(key.line, key.column,
                      fmt::format("'{}' stands here twice; the first is in line {}",
                                  Printable(key.text, 80), first->second));
      }
      if (!Space()) {
        return false;
      }
      if (Now() != ':') {
        return Fail(fmt::format("a ':' must follow the key '{}'", Printable(key.text, 80)));
      }
      Step();
      YamlNode value;
      if (!Space() || !Value(value, depth + 1) || !Space()) {
        return false;
      }
      node.entries.emplace_back(std::move(key), std::move(value));
      if (Now() == ',') {
        Step();
      } else if (Now() != '}') {
        return Fail(AtEnd() ? "the '{' is never closed" : "a ',' or '}' must come here");
      }
    }
  }

  bool Key(YamlNode& key) {
    key.kind = YamlNode::Kind::kScalar;
    key.line = line_;
    key.column = Column();
    if (Now() == '"' || Now() == '\'') {
      key.quoted = true;
      return String(key.text);
    }
    const size_t start = at_;
    while (!AtEnd() && IsIdentifier(static_cast<unsigned char>(Now()))) {
      ++at_;
    }
    key.text = text_.substr(start, at_ - start);
    if (key.text.empty() || (key.text[0] >= '0' && key.text[0] <= '9')) {
      at_ = start;
      return Fail(AtEnd() ? "the '{' is never closed" : "a key must come here");
    }
    return true;
  }

  bool Array(YamlNode& node, int depth) {
    node.kind = YamlNode::Kind::kList;
    Step();
    while (true) {
      if (!Space()) {
        return false;
      }
      if (Now() == ']') {
        Step();
        return true;
      }
      YamlNode item;
      if (!Value(item, depth + 1) || !Space()) {
        return false;
      }
      node.items.push_back(std::move(item));
      if (Now() == ',') {
        Step();
      } else if (Now() != ']') {
        return Fail(AtEnd() ? "the '[' is never closed" : "a ',' or ']' must come here");
      }
    }
  }

  bool String(std::string& out) {
    const char quote = Now();
    const int line = line_;
    const int column = Column();
    Step();
    while (!AtEnd() && Now() != quote) {
      const char c = Now();
      if (c == '\n') {
        break;
      }
      Step();
      if (c != '\\') {
        out += c;
      } else if (!Escape(out)) {
        return false;
      }
    }
    if (Now() != quote || AtEnd()) {
      return FailAt(line, column, "the quote that begins here is not closed on its line");
    }
    Step();
    return true;
  }

  bool Escape(std::string& out) {
    const char c = Now();
    if (AtEnd()) {
      return true;  // String tells that the quote is open
    }
    Step();
    switch (c) {
      case 'b':
        out += '\b';
        return true;
      case 'f':
        out += '\f';
        return true;
      case 'n':
        out += '\n';
        return true;
      case 'r':
        out += '\r';
        return true;
      case 't':
        out += '\t';
        return true;
      case 'v':
        out += '\v';
        return true;
      case '0':
        return Fail("a string must not hold NUL");
      case '\r':
        if (Now() == '\n') {
          Step();
        }
        return true;
      case '\n':
        return true;
      case 'x':
        return Unicode(2, out);
      case 'u':
        return Unicode(4, out);
      default:
        if (c >= '1' && c <= '9') {
          return Fail("an escape is not a digit");
        }
        out += c;
        return true;
    }
  }

  std::optional<uint32_t> Hex(size_t digits) {
    uint32_t code = 0;
    const std::string_view hex = text_.substr(std::min(at_, text_.size()), digits);
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (hex.size() != digits || error != std::errc() || end != hex.data() + digits) {
      Fail("an escape lacks its hexadecimal digits");
      return {};
    }
    at_ += digits;
    return code;
  }

  bool Unicode(size_t digits, std::string& out) {
    std::optional<uint32_t> code = Hex(digits);
    if (!code) {
      return false;
    }
    if (*code >= 0xd800 && *code < 0xdc00 && text_.substr(at_).starts_with("\\u")) {
      at_ += 2;
      const std::optional<uint32_t> low = Hex(4);
      if (!low) {
        return false;
      }
      if (*low >= 0xdc00 && *low < 0xe000) {
        code = 0x10000 + ((*code - 0xd800) << 10) + (*low - 0xdc00);
      }
    }
    if (*code == 0 || (*code >= 0xd800 && *code < 0xe000)) {
      return Fail("an escape stands for no character");
    }
    AppendUtf8(*code, out);
    return true;
  }

  // A number, a truth value or null.
  bool Word(YamlNode& node) {
    const size_t start = at_;
    while (!AtEnd() && (IsIdentifier(static_cast<unsigned char>(Now())) || Now() == '+' ||
                        Now() == '-' || Now() == '.')) {
      ++at_;
    }
    const std::string_view word = text_.substr(start, at_ - start);
    node.text = word;
    if (word == "null") {
      node.kind = YamlNode::Kind::kNull;
      return true;
    }
    node.kind = YamlNode::Kind::kScalar;
    if (word == "true" || word == "false" || Number(node.text)) {
      return true;
    }
    at_ = start;
    return Fail(AtEnd() || word.empty()
                    ? "a value must come here"
                    : fmt::format("'{}' is no value; text stands in quotes", Printable(word, 40)));
  }

  // Whether `text` is a number; hexadecimal ones and a leading plus are written as YAML has them.
  static bool Number(std::string& text) {
    std::string_view digits = text;
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) {
      digits.remove_prefix(1);
    }
    if (digits == "Infinity" || digits == "NaN") {
      return true;
    }
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
      uint64_t value = 0;
      const char* const last = digits.data() + digits.size();
      const auto [end, error] = std::from_chars(digits.data() + 2, last, value, 16);
      if (error != std::errc() || end != last) {
        return false;
      }
      text = fmt::format("{}{}", negative ? "-" : "", value);
      return true;
    }
    double value = 0;
    std::string plain(digits);
    if (plain.starts_with('.')) {
      plain.insert(0, "0");
    }
    const char* const last = plain.data() + plain.size();
    const auto [end, error] = std::from_chars(plain.data(), last, value);
    if (plain.empty() || plain[0] < '0' || plain[0] > '9' || error == std::errc::invalid_argument ||
        end != last) {
      return false;
    }
    text = (negative ? "-" : "") + plain;
    return true;
  }

  const std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
  int line_ = 1;
  size_t line_start_ = 0;
  size_t values_ = 0;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<YamlNode> ParseJson5(std::string_view text, const std::string& file) {
  const auto refuse = [&](size_t at, std::string_view why) {
    const auto line = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n') + 1;
    return absl::InvalidArgumentError(fmt::format("{}:{}:1: {}", file, line, why));
  };
  if (text.size() > kMaxBytes) {
    return refuse(0, "a file of more than 16 MiB is not read");
  }
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return refuse(nul, "the file holds a NUL byte; it must be text in UTF-8");
  }
  if (!IsValidUtf8(text)) {
    return refuse(0, "the file is not UTF-8");
  }
  return Parser(text, file).Parse();
}

}  // namespace creel
