#include <doctest/doctest.h>

#include "supervisor/incident/incident.h"

namespace creel {
namespace {

TEST_SUITE("Incident") {
  TEST_CASE("it is read back as it was written, whatever its texts hold") {
    Incident incident{.id = "12",
                      .scope = HoldRule::Scope::kSender,
                      .who = "whatsapp:\"1\"\n",
                      .reason = "\xff odd </script>",
                      .state = IncidentState::kThawed,
                      .opened_at = std::chrono::system_clock::time_point(std::chrono::hours(9)),
                      .ended_at = std::chrono::system_clock::time_point(std::chrono::hours(10)),
                      .gate_took = std::chrono::microseconds(12),
                      .freeze_took = std::chrono::microseconds(3456)};
    incident.sandboxes.push_back({.session = "s",
                                  .sandbox_id = "0123456789abcdef",
                                  .method = "cgroup",
                                  .frozen_before = true});
    incident.bundles.push_back({.path = "/x", .bytes = 5, .sha256 = "ab", .left_out = {"one"}});
    const absl::StatusOr<Incident> read = IncidentFromJson(IncidentToJson(incident));
    REQUIRE(read.ok());
    CHECK(read->id == "12");
    CHECK(read->who == incident.who);
    CHECK(read->state == IncidentState::kThawed);
    CHECK(read->opened_at == incident.opened_at);
    CHECK(read->freeze_took == incident.freeze_took);
    REQUIRE(read->sandboxes.size() == 1);
    CHECK(read->sandboxes[0].frozen_before);
    CHECK(read->bundles[0].left_out == incident.bundles[0].left_out);
    CHECK(ScopeText(*read) == "sender " + incident.who);
  }

  TEST_CASE("what is no incident is an error") {
    for (const char* bad : {"", "{", "[]", "{}", "{\"id\":5}"}) {
      CHECK(absl::IsDataLoss(IncidentFromJson(bad).status()));
    }
  }
}

}  // namespace
}  // namespace creel
