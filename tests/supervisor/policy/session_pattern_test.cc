#include "supervisor/policy/session_pattern.h"

#include <doctest/doctest.h>

namespace creel {
namespace {

TEST_SUITE("SessionPattern") {
  TEST_CASE("a star stands for any text, and all else for itself") {
    const struct {
      const char* pattern;
      const char* session;
      bool matches;
    } kRows[] = {
        {"agent:main:main", "agent:main:main", true},
        {"agent:main:main", "agent:main:main2", false},
        {"*", "anything", true},
        {"*", "", true},
        {"agent:*", "agent:main:main", true},
        {"agent:*", "agen", false},
        {"agent:*:whatsapp:group:*", "agent:main:whatsapp:group:123", true},
        {"agent:*:whatsapp:group:*", "agent:main:telegram:group:123", false},
        {"*:group:*", "agent:main:whatsapp:group:1", true},
        {"*:main", "agent:main:main", true},
        {"*:main", "agent:main:main:x", false},
        {"a*b*c", "abc", true},
        {"a*b*c", "aXbYc", true},
        {"a*b*c", "acb", false},
        {"aa*aa", "aaa", false},
        {"a**b", "ab", true},
        {"", "", true},
        {"", "x", false},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.pattern);
      CAPTURE(row.session);
      CHECK(SessionPattern(row.pattern).Matches(row.session) == row.matches);
    }
  }
}

}  // namespace
}  // namespace creel
