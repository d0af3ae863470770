#include "supervisor/config/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "supervisor/base/escape.h"
#include "supervisor/config/text.h"

namespace creel {

YamlNode::YamlNode() = default;
YamlNode::~YamlNode() = default;
YamlNode::YamlNode(const YamlNode& other) = default;
YamlNode& YamlNode::operator=(const YamlNode& other) = default;
YamlNode::YamlNode(YamlNode&& other) noexcept = default;
YamlNode& YamlNode::operator=(YamlNode&& other) noexcept = default;
namespace {

constexpr size_t kMaxBytes = 1u << 20;
constexpr size_t kMaxDepth = 32;

// Leaves the parser from inside a handler; caught in ParseYaml.
struct Refused {
  YAML::Mark mark;
  std::string why;
};

// Builds the tree from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode TakeRoot() { return std::move(root_); }
  // Where the last scalar in quotes began; a null mark if there was none.
  [[nodiscard]] YAML::Mark last_quoted() const { return last_quoted_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    RefuseAnchor(mark, anchor);
    Add(Make(YamlNode::Kind::kNull, mark), mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{mark, "aliases (*name) are not accepted here; write the value out"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    YamlNode node = Make(YamlNode::Kind::kScalar, mark);
    node.quoted = tag == "!";
    if (node.quoted) {
      last_quoted_ = mark;
    }
    if (value.find('\0') != std::string::npos) {
      throw Refused{mark, "a value holds a NUL character"};
    }
    if (!node.quoted && (value.empty() || value == "~" || value == "null")) {
      node.kind = YamlNode::Kind::kNull;
    }
    node.text = value;
    Add(std::move(node), mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    Open(Make(YamlNode::Kind::kList, mark), mark);
  }
  void OnSequenceEnd() override { CloseTop(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    RefuseAnchor(mark, anchor);
    RefuseTag(mark, tag);
    Open(Make(YamlNode::Kind::kMap, mark), mark);
  }
  void OnMapEnd() override { CloseTop(); }

 private:
  struct Level {
    YamlNode node;
    bool has_key = false;
    YamlNode key;
  };

  static YamlNode Make(YamlNode::Kind kind, const YAML::Mark& mark) {
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    return node;
  }
  static void RefuseAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      throw Refused{mark, "anchors (&name) are not accepted here; write the value out"};
    }
  }
  static void RefuseTag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") {
      throw Refused{mark, "tags (!name) are not accepted here"};
    }
  }
  void Open(YamlNode node, const YAML::Mark& mark) {
    if (levels_.size() >= kMaxDepth) {
      throw Refused{mark, fmt::format("more than {} levels", kMaxDepth)};
    }
    if (!levels_.empty() && levels_.back().node.kind == YamlNode::Kind::kMap &&
        !levels_.back().has_key) {
      throw Refused{mark, "a key must be a plain word"};
    }
    levels_.push_back({.node = std::move(node), .has_key = false, .key = {}});
  }
  void CloseTop() {
    YamlNode done = std::move(levels_.back().node);
    levels_.pop_back();
    Add(std::move(done), {});
  }
  void Add(YamlNode node, const YAML::Mark& mark) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& top = levels_.back();
    if (top.node.kind == YamlNode::Kind::kList) {
      top.node.items.push_back(std::move(node));
      return;
    }
    if (top.has_key) {
      top.node.entries.emplace_back(std::move(top.key), std::move(node));
      top.has_key = false;
      return;
    }
    if (node.kind != YamlNode::Kind::kScalar) {
      throw Refused{mark, "a key must be a plain word"};
    }
    for (const auto& [key, value] : top.node.entries) {
      if (key.text == node.text) {
        throw Refused{mark, fmt::format("'{}' stands here twice; the first is in line {}",
                                        Printable(node.text, 80), key.line)};
      }
    }
    top.key = std::move(node);
    top.has_key = true;
  }

  std::vector<Level> levels_;
  YamlNode root_;
  YAML::Mark last_quoted_ = YAML::Mark::null_mark();
};

// Whether the quote at the start of `text` is closed. The parser takes the end of the file for the
// missing quote, and with it the rest of the keys for text.
bool QuoteIsClosed(std::string_view text) {
  const char quote = text.empty() ? '\0' : text[0];
  if (quote != '\'' && quote != '"') {
    return true;
  }
  for (size_t i = 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 >= text.size() || text[i + 1] != quote) {
        return true;
      }
      ++i;
    }
  }
  return false;
}

absl::Status At(const std::string& file, int line, int column, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("{}:{}:{}: {}", file, line, column, why));
}

// Line and column, from 1, of the byte at `offset`.
std::pair<int, int> PlaceOf(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t line_start =
      before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return {static_cast<int>(line), static_cast<int>(offset - line_start + 1)};
}

}  // namespace

absl::StatusOr<YamlNode> ParseYaml(std::string_view text, const std::string& file) {
  if (text.size() > kMaxBytes) {
    return At(file, 1, 1, "a configuration of more than 1 MiB is not read");
  }
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    const auto [line, column] = PlaceOf(text, nul);
    return At(file, line, column, "the file holds a NUL byte; it must be text in UTF-8");
  }
  if (!IsValidUtf8(text)) {
    size_t good = 0;
    while (good < text.size()) {
      const size_t end = text.find('\n', good);
      const std::string_view one =
          text.substr(good, end == std::string_view::npos ? end : end - good);
      if (!IsValidUtf8(one)) {
        break;
      }
      good += one.size() + 1;
    }
    return At(file, PlaceOf(text, std::min(good, text.size())).first, 1,
              "the line is not UTF-8; save the file in that encoding");
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder;
    if (!parser.HandleNextDocument(builder)) {
      return YamlNode{};
    }
    YamlNode root = builder.TakeRoot();
    const YAML::Mark quote = builder.last_quoted();
    if (quote.pos >= 0 && !QuoteIsClosed(text.substr(
                              std::min<size_t>(static_cast<size_t>(quote.pos), text.size())))) {
      return At(file, quote.line + 1, quote.column + 1,
                "the quote that begins here is never closed");
    }
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      const YamlNode extra = second.TakeRoot();
      return At(file, extra.line, extra.column, "a second document begins; one is expected");
    }
    return root;
  } catch (const Refused& refused) {
    return At(file, refused.mark.line + 1, refused.mark.column + 1, refused.why);
  } catch (const YAML::Exception& e) {
    return At(file, std::max(e.mark.line, 0) + 1, std::max(e.mark.column, 0) + 1, e.msg);
  }
}

}  // namespace creel
