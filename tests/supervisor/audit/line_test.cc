#include "supervisor/audit/line.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

namespace creel {
namespace {

using std::chrono::system_clock;

const system_clock::time_point kNoon{std::chrono::microseconds(1'795'780'800'123'456)};

std::string Written(const AuditEvent& event, const SecretMask& mask = SecretMask()) {
  std::string text = LineWriter::Write(event, 7, kNoHash, kNoon, mask).text;
  REQUIRE(text.back() == '\n');
  text.pop_back();
  return text;
}

TEST_SUITE("Line") {
  TEST_CASE("a line is one JSON object with its frame around what is told") {
    const std::string line = Written(AuditEvent("call.allowed")
                                         .Number("call", 3)
                                         .Text("session", "agent:main:dm:1")
                                         .Text("empty", "")
                                         .List("sessions", {"a", "b\"c"}));
    CHECK(line.starts_with("{\"seq\":7,\"prev\":\"" + kNoHash +
                           "\",\"at\":\"2026-11-27T12:00:00.123456Z\",\"event\":\"call.allowed\","
                           "\"call\":3,\"session\":\"agent:main:dm:1\",\"sessions\":[\"a\","
                           "\"b\\\"c\"],\"hash\":\""));
    const std::optional<LineFrame> frame = ParseFrame(line);
    REQUIRE(frame.has_value());
    CHECK(frame->seq == 7);
    CHECK(frame->event == "call.allowed");
    CHECK(HashFits(line, *frame));
  }

  TEST_CASE("fields are read back as they were written") {
    const std::string line = Written(AuditEvent("x")
                                         .Text("summary", "say \"hi\" \\ {}[],:\t\xff")
                                         .Number("n", -4)
                                         .List("l", {"one", "two"}));
    CHECK(FieldOf(line, "summary") == "say \"hi\" \\ {}[],:\\x09\\xff");
    CHECK(FieldOf(line, "n") == "-4");
    CHECK(FieldOf(line, "l") == "one, two");
    CHECK_FALSE(FieldOf(line, "missing").has_value());
    CHECK(FieldsOf(line).back().first == "hash");
  }

  TEST_CASE("a value cannot pass for a key, an end of line or a hash") {
    const std::string hostile =
        "\",\"session\":\"other\",\"hash\":\"" + kNoHash + "\"}\n{\"seq\":8";
    const std::string line = Written(AuditEvent("x").Text("summary", hostile));
    CHECK(line.find('\n') == std::string::npos);
    CHECK(line.find(FieldPattern("session", "other")) == std::string::npos);
    REQUIRE(ParseFrame(line).has_value());
    CHECK(HashFits(line, *ParseFrame(line)));
  }

  TEST_CASE("one changed byte anywhere shows") {
    const std::string line = Written(AuditEvent("call.allowed").Text("tool", "exec"));
    for (size_t i = 0; i < line.size(); ++i) {
      std::string changed = line;
      changed[i] = static_cast<char>(changed[i] ^ 1);
      const std::optional<LineFrame> frame = ParseFrame(changed);
      CAPTURE(i);
      CHECK_FALSE((frame && HashFits(changed, *frame)));
    }
  }

  TEST_CASE("long text is cut, and says so") {
    const std::string line = Written(AuditEvent("x").Text("t", std::string(10'000, 'a'), 100));
    const std::string value = FieldOf(line, "t").value_or("");
    CHECK(value.size() <= 100);
    CHECK(value.ends_with("…"));
  }

  TEST_CASE("known secrets do not get in, in any of their spellings, not even cut") {
    const SecretMask mask({{"gowa", "s3cr+t/value"}, {"tiny", "abc"}});
    const std::string base64 = "czNjcit0L3ZhbHVl";
    const std::vector<std::string> texts{"curl -H 'Bearer s3cr+t/value'", "x=s3cr%2Bt%2Fvalue",
                                         "auth " + base64, std::string(95, 'x') + "s3cr+t/value"};
    for (const std::string& text : texts) {
      const std::string line = Written(AuditEvent("x").Text("t", text, 100), mask);
      CAPTURE(line);
      CHECK(line.find("s3cr") == std::string::npos);
      CHECK(line.find(base64) == std::string::npos);
    }
    CHECK(Written(AuditEvent("x").Text("t", "abc"), mask).find("abc") != std::string::npos);
    CHECK(mask.Apply("a s3cr+t/value b") == "a [secret gowa] b");
  }

  TEST_CASE("what is no line of ours has no frame") {
    const std::string good = Written(AuditEvent("x"));
    for (const std::string& bad :
         {std::string(), std::string("{}"), std::string("hello"), good + " ", " " + good,
          good.substr(0, good.size() - 1), "{\"seq\":0" + good.substr(8),
          "{\"seq\":07" + good.substr(8), "{\"seq\":-7" + good.substr(8),
          "{\"seq\":99999999999999999999" + good.substr(8)}) {
      CAPTURE(bad);
      CHECK_FALSE(ParseFrame(bad).has_value());
    }
  }

  TEST_CASE("known secrets are masked, whole or cut off, and found by name") {
    const std::vector<std::pair<std::string, std::string>> known{{"api", "k3y-0f-the-0perator"},
                                                                 {"short", "abc"}};
    const SecretMask mask(known);
    CHECK(mask.Apply("x k3y-0f-the-0perator y") == "x [secret api] y");
    CHECK(mask.Apply("abc") == "abc");
    // What is cut off by the bound of a text.
    CHECK(mask.Apply("x k3y-0f-the") == "x [secret api]");
    CHECK(mask.Apply("x k3y-0f") == "x [secret api]");
    CHECK(mask.Apply("x k3y-0") == "x k3y-0");
    CHECK(mask.Apply("k3y-0f-the, he said") == "k3y-0f-the, he said");
    // As base64 and in the escapes of a URL.
    CHECK(mask.Apply("azN5LTBmLXRoZS0wcGVyYXRvcg==").find("azN5") == std::string::npos);
    const std::vector<std::pair<std::string, std::string>> phrase{{"u", "pass word!"}};
    CHECK(SecretMask(phrase).Apply("q=pass%20word%21") == "q=[secret u]");
    // As `Authorization: Basic` has it, with another alphabet, in hexadecimal digits.
    CHECK(mask.Apply("dTprM3ktMGYtdGhlLTBwZXJhdG9y").find("LTBwZXJhdG9") == std::string::npos);
    CHECK(mask.Apply("6b33792d30662d7468652d307065726174 6f72").find("6b33") != std::string::npos);
    CHECK(mask.Apply("6b33792d30662d7468652d3070657261746f72") == "[secret api]");
    CHECK(mask.Apply("6B33792D30662D7468652D3070657261746F72") == "[secret api]");
    // As programs write it into JSON, HTML and forms; the list of forms has its own test.
    const SecretMask signs(
        std::vector<std::pair<std::string, std::string>>{{"v", "a/b&c <d>'\"+e"}});
    for (const char* form : {"a\\/b\\u0026c \\u003cd\\u003e'\\\"+e", "a/b&c <d>'\\\"+e",
                             "a/b&amp;c &lt;d&gt;&#39;&quot;+e", "a%2Fb%26c+%3Cd%3E%27%22%2Be"}) {
      CAPTURE(form);
      CHECK(signs.Apply(form) == "[secret v]");
    }
    CHECK(SecretMask(phrase).Apply("q=pass%20word%21 pass%20word%21") == "q=[secret u] [secret u]");
    // Our mark is nobody else's to write.
    CHECK(mask.Apply("a [secret api] b") == "a [\\secret api] b");
    // Cut off, with the mark of who cut it and without.
    CHECK(SecretMask(phrase).Apply("see pass wo") == "see [secret u]");
    CHECK(SecretMask(phrase).Apply("see pass wo…") == "see [secret u]…");
    CHECK(mask.Find("a k3y-0f-the-0perator b") == std::set<std::string>{"api"});
    CHECK(mask.Find("k3y-0f-the").empty());
    const std::string line = Written(AuditEvent("x")
                                         .Text("summary", "echo k3y-0f-the-0perator")
                                         .List("l", {"k3y-0f-the-0perator"}),
                                     mask);
    CHECK(line.find("k3y-0f") == std::string::npos);
    CHECK(FieldOf(line, "summary") == "echo [secret api]");
  }
}

}  // namespace
}  // namespace creel
