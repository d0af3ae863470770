#include "supervisor/config/yaml_tree.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

std::string Refusal(const std::string& text) {
  const absl::StatusOr<YamlNode> tree = ParseYaml(text, "f.yaml");
  return tree.ok() ? "accepted" : std::string(tree.status().message());
}

TEST_SUITE("YamlTree") {
  TEST_CASE("values keep their place") {
    const absl::StatusOr<YamlNode> tree = ParseYaml("a:\n  b: [x, \"1\"]\n", "f.yaml");
    REQUIRE(tree.ok());
    const YamlNode& list = tree->entries.at(0).second.entries.at(0).second;
    CHECK(list.items.at(0).text == "x");
    CHECK(list.items.at(0).line == 2);
    CHECK(list.items.at(0).column == 7);
    CHECK_FALSE(list.items.at(0).quoted);
    CHECK(list.items.at(1).quoted);
  }
  TEST_CASE("an empty file is nothing") {
    CHECK(ParseYaml("", "f.yaml")->kind == YamlNode::Kind::kNull);
    CHECK(ParseYaml("# only a comment\n", "f.yaml")->kind == YamlNode::Kind::kNull);
  }
  TEST_CASE("what a configuration has no use for is refused with its place") {
    const struct {
      std::string text;
      std::string begins;
    } kRows[] = {
        {"a: &x 1\nb: *x\n", "f.yaml:1:4: anchors"},
        {"b: *x\n", "f.yaml:1:4: "},
        {"a: !!binary aGk=\n", "f.yaml:1:4: tags"},
        {"a: 1\na: 2\n", "f.yaml:2:1: 'a' stands here twice; the first is in line 1"},
        {"a: 1\n---\nb: 2\n", "f.yaml:3:1: a second document"},
        {"? [1]\n: 2\n", "f.yaml:1:3: a key must be a plain word"},
        {"? {x: 1}\n: 2\n", "f.yaml:1:3: a key must be a plain word"},
        {"~: 2\n", "f.yaml:1:1: a key must be a plain word"},
        {std::string("a: 1\nb: \0\n", 10), "f.yaml:2:4: the file holds a NUL byte"},
        {"a: 1\nb: \xff\n", "f.yaml:2:1: the line is not UTF-8"},
        {"a: \"\\0\"\n", "f.yaml:1:4: a value holds a NUL"},
        {"a: [1\n", "f.yaml:"},
        {"a: 'x\n", "f.yaml:1:4: the quote that begins here is never closed"},
        {"a: b: c\n", "f.yaml:1:"},
        {"a: \"x\nb: 1\n", "f.yaml:1:4: the quote"},
        {"a: 'it''s\n", "f.yaml:1:4: the quote"},
        {"\ta: 1\n", "f.yaml:1:"},
        {std::string(2u << 20, '#'), "f.yaml:1:1: a configuration of more than 1 MiB"},
        {std::string(100, '[') + std::string(100, ']'), "f.yaml:1:"},
        {std::string(500'000, '['), "f.yaml:1:"},
        {std::string(500'000, '{'), "f.yaml:1:"},
        {"- - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - x\n",
         "f.yaml:1:65: more than 32 levels"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text.substr(0, 60));
      const std::string got = Refusal(row.text);
      CAPTURE(got);
      CHECK(got.starts_with(row.begins));
    }
  }
}

}  // namespace
}  // namespace creel
