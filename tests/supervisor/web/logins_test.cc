#include "supervisor/web/logins.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/supervisor/audit/audit_world.h"

using namespace creel;  // NOLINT: a test of one room
using web::Logins;

namespace {

struct Place {
  Place() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~Place() { std::filesystem::remove_all(path); }
  std::string path = "/tmp/creel-logins-XXXXXX";
  [[nodiscard]] std::string file() const { return path + "/page-logins"; }
};

}  // namespace

TEST_SUITE("Logins") {
  TEST_CASE("a token is good once and for five minutes") {
    MovableClock clock;
    Logins logins({}, clock);
    const Logins::Token token = *logins.MakeToken();
    CHECK(token.text.size() == 64);
    CHECK_FALSE(logins.Redeem("").has_value());
    CHECK_FALSE(logins.Redeem(token.text.substr(1)).has_value());
    CHECK(logins.Redeem(token.text).has_value());
    CHECK_FALSE(logins.Redeem(token.text).has_value());
    const Logins::Token late = *logins.MakeToken();
    clock.Move(std::chrono::seconds(301));
    CHECK_FALSE(logins.Redeem(late.text).has_value());
    for (int i = 0; i < 16; ++i) {
      CHECK(logins.MakeToken().ok());
    }
    CHECK(absl::IsResourceExhausted(logins.MakeToken().status()));
    clock.Move(std::chrono::seconds(301));
    CHECK(logins.MakeToken().ok());
  }

  TEST_CASE("a login needs both halves, and ends by time, by itself and with all") {
    MovableClock clock;
    Logins logins({}, clock);
    const Logins::Login a = *logins.Redeem(logins.MakeToken()->text);
    const Logins::Login b = *logins.Redeem(logins.MakeToken()->text);
    CHECK(logins.Check(a.cookie, a.key) == a.name);
    CHECK_FALSE(logins.Check(a.cookie, b.key).has_value());
    CHECK_FALSE(logins.Check(b.cookie, a.key).has_value());
    CHECK_FALSE(logins.Check(a.cookie, "").has_value());
    CHECK_FALSE(logins.Check("", a.key).has_value());
    CHECK_FALSE(logins.Check(a.key, a.cookie).has_value());
    logins.End(a.cookie);
    CHECK_FALSE(logins.Check(a.cookie, a.key).has_value());
    CHECK(logins.Check(b.cookie, b.key) == b.name);
    clock.Move(std::chrono::hours(12));
    CHECK_FALSE(logins.Check(b.cookie, b.key).has_value());
    const Logins::Login c = *logins.Redeem(logins.MakeToken()->text);
    const std::string waiting = logins.MakeToken()->text;
    logins.EndAll();
    CHECK_FALSE(logins.Check(c.cookie, c.key).has_value());
    CHECK_FALSE(logins.Redeem(waiting).has_value());
  }

  TEST_CASE("logins outlive the process, by their hashes; a file that is none is no harm") {
    MovableClock clock;
    Place place;
    Logins::Login login;
    {
      Logins logins({.file = place.file()}, clock);
      login = *logins.Redeem(logins.MakeToken()->text);
    }
    std::ostringstream text;
    text << std::ifstream(place.file()).rdbuf();
    CHECK(text.str().find(login.cookie) == std::string::npos);
    CHECK(text.str().find(login.key) == std::string::npos);
    struct stat about {};
    REQUIRE(::stat(place.file().c_str(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0600);
    {
      Logins logins({.file = place.file()}, clock);
      CHECK(logins.Check(login.cookie, login.key) == login.name);
      // Who can write the file can let nobody in for longer than a login lasts.
      std::ofstream(place.file(), std::ios::app) << "x y z 99999999999\n";
    }
    clock.Move(std::chrono::hours(13));
    CHECK_FALSE(Logins({.file = place.file()}, clock).Check(login.cookie, login.key).has_value());
    std::ofstream(place.file(), std::ios::binary) << std::string(100'000, '\xff');
    Logins logins({.file = place.file()}, clock);
    CHECK_FALSE(logins.Check(login.cookie, login.key).has_value());
    CHECK(logins.Redeem(logins.MakeToken()->text).has_value());
  }

  TEST_CASE("more logins than there is room for end the oldest") {
    MovableClock clock;
    Logins logins({}, clock);
    const Logins::Login first = *logins.Redeem(logins.MakeToken()->text);
    for (int i = 0; i < 64; ++i) {
      clock.Move(std::chrono::seconds(1));
      CHECK(logins.Redeem(logins.MakeToken()->text).has_value());
    }
    CHECK_FALSE(logins.Check(first.cookie, first.key).has_value());
  }
}
