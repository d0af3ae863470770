#include "supervisor/daemon/door_check.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace creel {
namespace {

constexpr uint32_t kGateway = 1000;
constexpr uint32_t kOwner = 1001;
constexpr uint32_t kGatewayGroup = 500;
constexpr uint32_t kOperatorGroup = 600;

// User 1000 is in group 500, user 1001 in 500 and 600.
HostUsers TwoUsers() {
  HostUsers users;
  users.group_id = [](const std::string& name) -> std::optional<uint32_t> {
    if (name == "gateways") {
      return kGatewayGroup;
    }
    if (name == "operators") {
      return kOperatorGroup;
    }
    return std::nullopt;
  };
  users.groups_of = [](uint32_t uid) -> std::set<uint32_t> {
    if (uid == kGateway) {
      return {kGatewayGroup};
    }
    if (uid == kOwner) {
      return {kGatewayGroup, kOperatorGroup};
    }
    return {};
  };
  users.members_of = [](uint32_t gid) -> std::set<uint32_t> {
    if (gid == kGatewayGroup) {
      return {kGateway, kOwner};
    }
    return gid == kOperatorGroup ? std::set<uint32_t>{kOwner} : std::set<uint32_t>{};
  };
  return users;
}

TEST_SUITE("DoorCheck") {
  TEST_CASE("a gateway that could be the operator is found out") {
    const struct {
      const char* what;
      std::function<void(Config&)> change;
      bool good;
    } kRows[] = {
        {"the defaults: only root can connect at all", [](Config&) {}, true},
        {"a uid in the operator's group",
         [](Config& c) {
           c.gateway_uids = {kOwner};
           c.operator_door.group = "operators";
         },
         false},
        {"a uid outside of it",
         [](Config& c) {
           c.gateway_uids = {kGateway};
           c.operator_door.group = "operators";
         },
         true},
        {"a group of gateways with one member who is an operator",
         [](Config& c) {
           c.gateway.group = "gateways";
           c.operator_door.group = "operators";
         },
         false},
        {"the same group for both",
         [](Config& c) { c.gateway.group = c.operator_door.group = "operators"; }, false},
        {"the same group, but nobody of it may open the operator's",
         [](Config& c) {
           c.gateway.group = c.operator_door.group = "gateways";
           c.operator_door.mode = 0600;
         },
         true},
        {"a gateway that is root", [](Config& c) { c.gateway_uids = {0}; }, false},
        {"a group that does not exist is not this check's matter",
         [](Config& c) { c.operator_door.group = "nonesuch"; }, true},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.what);
      Config config;
      row.change(config);
      const Finding finding = CheckDoors(config, TwoUsers(), 0, 0);
      CHECK(finding.id == "gateway-is-operator");
      CHECK((finding.severity == Severity::kOk) == row.good);
      if (!row.good) {
        CHECK(finding.severity == Severity::kError);
        CHECK_FALSE(finding.fix.empty());
        config.concessions = {"gateway-is-operator"};
        CHECK(CheckDoors(config, TwoUsers(), 0, 0).severity == Severity::kWarning);
      }
    }
  }
  TEST_CASE("creeld's own user as the gateway is the operator too") {
    Config config;
    config.gateway_uids = {kGateway};
    CHECK(CheckDoors(config, TwoUsers(), kGateway, kGatewayGroup).severity == Severity::kError);
  }
  TEST_CASE("this machine's users can be asked") {
    const HostUsers users = HostUsers::OfThisHost();
    CHECK(users.group_id("root") == 0u);
    CHECK(users.group_id("12345") == 12345u);
    CHECK_FALSE(users.group_id("no-such-group-here").has_value());
    CHECK(users.groups_of(0).contains(0));
    CHECK(users.members_of(0).contains(0));
  }
}

}  // namespace
}  // namespace creel
