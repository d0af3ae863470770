#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/cli/mcp/arguments.h"
#include "supervisor/cli/mcp/base64.h"
#include "supervisor/cli/mcp/bounded_output.h"

using namespace creel::cli::mcp;  // NOLINT: a test of one room

TEST_SUITE("Arguments") {
  TEST_CASE("what does not fit the schema is named") {
    const Json schema = Json::parse(R"({"type":"object","required":["a"],
      "additionalProperties":false,"properties":{
        "a":{"type":"string","minLength":1},
        "n":{"type":"integer","minimum":1,"maximum":9},
        "e":{"type":"string","enum":["x","y"]},
        "l":{"type":"array","items":{"type":"string"},"maxItems":2},
        "m":{"type":"object","additionalProperties":{"type":"string"}}}})");
    struct Row {
      const char* value;
      const char* words;  // empty: it fits
    };
    const std::vector<Row> rows = {{R"({"a":"t"})", ""},
                                   {R"({"a":"t","n":9,"e":"y","l":["p"],"m":{"k":"v"}})", ""},
                                   {R"({})", "`a` is missing"},
                                   {R"({"a":""})", "`a` must not be empty"},
                                   {R"({"a":1})", "`a` must be of the type string"},
                                   {R"({"a":"t","n":0})", "`n` must be at least 1"},
                                   {R"({"a":"t","n":10})", "`n` must be at most 9"},
                                   {R"({"a":"t","n":1.5})", "`n` must be of the type integer"},
                                   {R"({"a":"t","e":"z"})", "`e` must be one of"},
                                   {R"({"a":"t","l":["p",2]})", "`l` must be of the type string"},
                                   {R"({"a":"t","l":["p","q","r"]})", "`l` has more than 2"},
                                   {R"({"a":"t","m":{"k":1}})", "`k` must be of the type string"},
                                   {R"({"a":"t","z":1})", "`z` is not known"},
                                   {R"([])", "must be of the type object"}};
    for (const Row& row : rows) {
      CAPTURE(row.value);
      const auto misfit = FindMisfit(schema, Json::parse(row.value));
      CHECK(misfit.has_value() == (*row.words != '\0'));
      CHECK(misfit.value_or("").find(row.words) != std::string::npos);
    }
  }
}

TEST_SUITE("BoundedOutput") {
  TEST_CASE("what fits is kept whole, of what does not its beginning and end") {
    const auto hint = [](uint64_t from, uint64_t to) {
      return "<" + std::to_string(from) + "-" + std::to_string(to) + ">";
    };
    BoundedOutput small(100);
    small.Add(0, "abc");
    small.Add(3, "def");
    CHECK(small.Text(hint) == "abcdef");
    for (const size_t piece : {1, 7, 1000}) {
      CAPTURE(piece);
      BoundedOutput large(100);
      std::string all;
      for (int i = 0; i < 1000; ++i) {
        all += static_cast<char>('a' + i % 26);
      }
      for (size_t at = 0; at < all.size(); at += piece) {
        large.Add(at, std::string_view(all).substr(at, piece));
      }
      CHECK(large.Text(hint) == all.substr(0, 25) + "<25-925>" + all.substr(925));
      CHECK(large.left_out() == 900);
      CHECK(large.end() == 1000);
    }
  }
}

TEST_SUITE("Base64") {
  TEST_CASE("what was encoded comes back, whatever its length") {
    CHECK(creel::Base64("") == "");
    CHECK(creel::Base64("f") == "Zg==");
    CHECK(creel::Base64("fo") == "Zm8=");
    CHECK(creel::Base64("foo") == "Zm9v");
    std::string data;
    for (int i = 0; i < 259; ++i) {
      CHECK(DecodeBase64(creel::Base64(data)) == data);
      data += static_cast<char>(i * 37);
    }
  }

  TEST_CASE("what is not base64 is refused") {
    for (const char* text : {"Z", "Zg=", "Zg", "Z===", "=Zg=", "Zg==Zg==", "Zm9\n", "Zm9v!AAA"}) {
      CAPTURE(text);
      CHECK_FALSE(DecodeBase64(text).has_value());
    }
  }
}
