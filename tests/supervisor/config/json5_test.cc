#include "supervisor/config/json5.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

std::string Refusal(const std::string& text) {
  const absl::StatusOr<YamlNode> node = ParseJson5(text, "g.json5");
  return node.ok() ? "accepted" : std::string(node.status().message());
}

TEST_SUITE("Json5") {
  TEST_CASE("scalars keep their text, and strings are told from numbers") {
    const struct {
      const char* text;
      const char* value;
      bool quoted;
    } kRows[] = {
        {"\"a\"", "a", true},
        {"'a'", "a", true},
        {"'it\\'s'", "it's", true},
        {"\"\\u00e4\"", "ä", true},
        {"\"\\ud83e\\udd9e\"", "🦞", true},
        {"\"a\\nb\"", "a\nb", true},
        {"\"a\\\nb\"", "ab", true},
        {"1", "1", false},
        {"-1.5e3", "-1.5e3", false},
        {"+7", "7", false},
        {".5", "0.5", false},
        {"0xFF", "255", false},
        {"true", "true", false},
        {"Infinity", "Infinity", false},
        {" // c\n 1 /* d */ ", "1", false},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const absl::StatusOr<YamlNode> node = ParseJson5(row.text, "g.json5");
      REQUIRE(node.ok());
      CHECK(node->kind == YamlNode::Kind::kScalar);
      CHECK(node->text == row.value);
      CHECK(node->quoted == row.quoted);
    }
  }

  TEST_CASE("objects and lists keep order and place") {
    const absl::StatusOr<YamlNode> node =
        ParseJson5("{\n  a: [1, 2,],\n  'b c': null, $d: {},\n}", "g.json5");
    REQUIRE(node.ok());
    REQUIRE(node->entries.size() == 3);
    CHECK(node->entries[0].first.text == "a");
    CHECK(node->entries[0].second.items.size() == 2);
    CHECK(node->entries[0].second.line == 2);
    CHECK(node->entries[0].second.column == 6);
    CHECK(node->entries[1].first.text == "b c");
    CHECK(node->entries[1].second.kind == YamlNode::Kind::kNull);
    CHECK(node->entries[2].first.text == "$d");
  }

  TEST_CASE("what is no JSON5 is refused with its place") {
    const struct {
      std::string text;
      const char* where;
      const char* why;
    } kRows[] = {
        {"", "g.json5:1:1", "a value must come here"},
        {"{", "g.json5:1:2", "never closed"},
        {"[1", "g.json5:1:3", "never closed"},
        {"{a 1}", "g.json5:1:4", "':' must follow"},
        {"{a: 1 b: 2}", "g.json5:1:7", "',' or '}'"},
        {"{a: 1, a: 2}", "g.json5:1:8", "twice"},
        {"{1: 2}", "g.json5:1:2", "a key must come here"},
        {"{a: word}", "g.json5:1:5", "'word' is no value"},
        {"{a: 01x}", "g.json5:1:5", "no value"},
        {"\"a\nb\"", "g.json5:1:1", "not closed on its line"},
        {"\"a", "g.json5:1:1", "not closed"},
        {"\"\\u12\"", "g.json5:1:4", "hexadecimal"},
        {"\"\\u0000\"", "g.json5:1:8", "no character"},
        {"\"\\ud83e\"", "g.json5:1:8", "no character"},
        {"1 2", "g.json5:1:3", "follows the end"},
        {"/* x", "g.json5:1:1", "never closed"},
        {std::string("{a: \"\0\"}", 9), "g.json5:1:1", "NUL"},
        {"{a: \"\xff\"}", "g.json5:1:1", "UTF-8"},
        {std::string(10'000, '['), "g.json5:1:66", "more than 64 levels"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const std::string refusal = Refusal(row.text);
      CAPTURE(refusal);
      CHECK(refusal.starts_with(row.where));
      CHECK(refusal.find(row.why) != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace creel
