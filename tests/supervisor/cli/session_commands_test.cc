#include "supervisor/cli/session_commands.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/supervisor/api/doors_house.h"
#include "tests/supervisor/cli/command.h"

using namespace creel;  // NOLINT: a test of one room

namespace {

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("creel") {
  TEST_CASE("open, ps, inspect, freeze, thaw, close") {
    DoorsHouse house;
    const std::string& run = house.folder.path();
    CHECK(Has(Creel(run, {"ps"}).out, "no session is open"));
    const CommandResult opened = Creel(run, {"open", "k\x1b[31m", "--sender", "whatsapp:+1"});
    CHECK(opened.code == 0);
    CHECK(opened.out == "opened k\\x1b[31m as sandbox 0123456789abcdef\n");
    const CommandResult listed = Creel(run, {"ps"});
    CHECK(listed.code == 0);
    CHECK(Has(listed.out, "SESSION"));
    CHECK(Has(listed.out, "k\\x1b[31m"));
    CHECK(!Has(listed.out, "\x1b"));
    CHECK(Has(listed.out, "90s"));
    CHECK(Has(listed.out, "running"));

    CHECK(Creel(run, {"open", "s"}).code == 0);
    CHECK(Creel(run, {"freeze", "s", "--reason", "odd mails"}).code == 0);
    CHECK(Has(Creel(run, {"ps"}).out, "frozen"));
    const CommandResult inspected = Creel(run, {"inspect", "s"});
    CHECK(inspected.code == 0);
    CHECK(Has(inspected.out, "odd mails"));
    CHECK(Has(inspected.out, "limit memory"));
    const CommandResult refused = Creel(run, {"close", "s"});
    CHECK(refused.code == 1);
    CHECK(Has(refused.err, "frozen"));
    CHECK(Creel(run, {"thaw", "s"}).code == 0);
    CHECK(Creel(run, {"close", "s"}).code == 0);
    CHECK(Creel(run, {"close", "s"}).code == 1);
    CHECK(Creel(run, {"inspect", "nobody"}).code == 1);
  }

  TEST_CASE("every answer can be had as JSON") {
    DoorsHouse house;
    const std::string& run = house.folder.path();
    const auto json = [&](std::vector<std::string> words) {
      words.insert(words.begin(), "--json");
      const CommandResult result = Creel(run, words);
      CAPTURE(result.err);
      CHECK(result.code == 0);
      return nlohmann::json::parse(result.out);
    };
    CHECK(json({"open", "s"})["created"] == true);
    CHECK(json({"ps"})["sessions"][0]["session"]["session"] == "s");
    CHECK(json({"inspect", "s"})["shim_version"] == "0.1.0");
    CHECK(json({"freeze", "s"})["method"] == "engine");
    CHECK(json({"thaw", "s"}).is_object());
    CHECK(json({"version"})["version"] == CREEL_VERSION);
    CHECK(json({"doctor"}).is_object());
    CHECK(json({"close", "s"}).is_object());
    const CommandResult after = Creel(run, {"ps", "--json"});
    CHECK(after.code == 0);
    CHECK(nlohmann::json::parse(after.out)["sessions"].empty());
  }

  TEST_CASE("doctor fails on what is severe only") {
    DoorsHouse house;
    const std::string& run = house.folder.path();
    house.findings = {{"a", Severity::kOk, "fine"}, {"b", Severity::kWarning, "hm", "why", "fix"}};
    const CommandResult fine = Creel(run, {"doctor"});
    CHECK(fine.code == 0);
    CHECK(Has(fine.out, "hm"));
    CHECK(Has(fine.out, "fix"));
    house.findings.push_back({"c", Severity::kError, "bad", "why", "fix"});
    CHECK(Creel(run, {"doctor"}).code == 1);
    CHECK(Creel(run, {"--json", "doctor"}).code == 1);
  }

  TEST_CASE("misuse is 2, no supervisor is 1, and both say what to do") {
    DoorsHouse house;
    const std::string& run = house.folder.path();
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{},
                                               {"nonsense"},
                                               {"open"},
                                               {"ps", "--nonsense"},
                                               {"inspect"},
                                               {"open", "s", "--access", "all"}}) {
      const CommandResult result = Creel(run, words);
      CHECK(result.code == 2);
      CHECK(Has(result.err, "creel: "));
      CHECK(result.out.empty());
    }
    CHECK(Creel(run, {"--help"}).code == 0);
    CHECK(Has(Creel(run, {"--help"}).out, "exec"));
    for (const std::string command : {"ps", "doctor"}) {
      const CommandResult result = Creel("/nonexistent", {command});
      CHECK(result.code == 1);
      CHECK(Has(result.err, "start creeld"));
    }
    const CommandResult version = Creel("/nonexistent", {"version"});
    CHECK(Has(version.out, "creel " CREEL_VERSION));
    CHECK(Creel("/nonexistent", {"--operator-socket", house.operator_socket(), "ps"}).code == 0);
  }
}
