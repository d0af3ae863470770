#include "supervisor/web/request_check.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace creel::web;  // NOLINT: a test of one room

TEST_SUITE("RequestCheck") {
  TEST_CASE("only our own page is let through") {
    const std::vector<std::string> hosts{"127.0.0.1:773", "localhost:773", "creel.example"};
    struct Row {
      const char* host;
      const char* origin;
      const char* fetch_site;
      bool changes;
      bool opens_page;
      OriginVerdict verdict;
    };
    const Row rows[] = {
        {"127.0.0.1:773", "http://127.0.0.1:773", "same-origin", true, false, OriginVerdict::kGood},
        {"127.0.0.1:773", "http://127.0.0.1:773", "", true, false, OriginVerdict::kGood},
        {"LOCALHOST:773", "http://localhost:773", "", true, false, OriginVerdict::kGood},
        {"creel.example", "https://creel.example", "same-origin", true, false,
         OriginVerdict::kGood},
        {"127.0.0.1:773", "", "none", false, true, OriginVerdict::kGood},
        {"127.0.0.1:773", "", "", false, false, OriginVerdict::kGood},
        // A link of another page may lead to ours, and to nothing else.
        {"127.0.0.1:773", "", "cross-site", false, true, OriginVerdict::kGood},
        {"127.0.0.1:773", "", "cross-site", false, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "", "same-site", false, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "http://evil.test", "cross-site", false, true,
         OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "null", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "127.0.0.1:773", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "ftp://127.0.0.1:773", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "http://127.0.0.1:774", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "http://127.0.0.1:773.evil.test", "", true, false,
         OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "http://x@127.0.0.1:773", "", true, false, OriginVerdict::kWrongOrigin},
        // Both are ours, but not the same page.
        {"127.0.0.1:773", "http://localhost:773", "", true, false, OriginVerdict::kWrongOrigin},
        {"127.0.0.1:773", "http://127.0.0.1:773", "same-site", true, false,
         OriginVerdict::kWrongOrigin},
        {"evil.test:773", "http://evil.test:773", "same-origin", true, false,
         OriginVerdict::kWrongHost},
        {"127.0.0.1", "http://127.0.0.1", "", true, false, OriginVerdict::kWrongHost},
        {"127.0.0.1:773.evil.test", "", "", false, true, OriginVerdict::kWrongHost},
        {"", "", "", false, true, OriginVerdict::kWrongHost},
    };
    for (const Row& row : rows) {
      CAPTURE(row.host);
      CAPTURE(row.origin);
      CAPTURE(row.fetch_site);
      CHECK(CheckOrigin({.host = row.host,
                         .origin = row.origin,
                         .fetch_site = row.fetch_site,
                         .changes = row.changes,
                         .opens_page = row.opens_page},
                        hosts) == row.verdict);
    }
  }

  TEST_CASE("a cookie counts where it stands once, by its whole name") {
    CHECK(CookieOf("a=1; creel-773=x", "creel-773") == "x");
    CHECK(CookieOf("creel-773=x;b=2", "creel-773") == "x");
    CHECK(CookieOf("creel-7733=x", "creel-773").empty());
    CHECK(CookieOf("xcreel-773=x", "creel-773").empty());
    CHECK(CookieOf("creel-773=x; creel-773=y", "creel-773").empty());
    CHECK(CookieOf("", "creel-773").empty());
    CHECK(CookieOf(";;=;", "creel-773").empty());
  }
}
