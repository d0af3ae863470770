#include "supervisor/incident/secret_desk.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <future>
#include <string>

namespace creel {
namespace {

struct DeskWorld {
  DeskWorld() {
    char pattern[] = "/tmp/creel-desk-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    top = pattern;
    std::ofstream(top + "/key") << "the-value-of-it\n";
    auto opened = AuditLog::Open({.directory = top + "/record", .install_id = "i"}, clock);
    REQUIRE(opened.ok());
    audit = *std::move(opened);
    REQUIRE(Begin().ok());
  }
  ~DeskWorld() {
    desk.reset();
    credentials.reset();
    audit.reset();
    std::filesystem::remove_all(top);
  }
  // As a start of creeld does.
  absl::Status Begin() {
    desk.reset();
    credentials = std::make_unique<egress::Credentials>();
    EgressService service;
    service.name = "api";
    service.credential.kind = EgressCredential::Kind::kBearer;
    service.credential.file = top + "/key";
    credentials->Configure({service});
    auto made = SecretDesk::Create({.credentials = *credentials,
                                    .audit = *audit,
                                    .state_dir = top,
                                    .recheck = [this] { ++rechecks; },
                                    .fetched = {}});
    if (made.ok()) {
      desk = *std::move(made);
    }
    return made.status();
  }
  bool Given() const {
    std::promise<bool> given;
    credentials->Get("api", [&](const auto& secret) { given.set_value(secret.ok()); });
    return given.get_future().get();
  }
  void Used(const char* event, const char* session, const char* rule) const {
    audit->Keep(AuditEvent(event)
                    .Text("sandbox", "0123456789abcdef")
                    .Text("session", session)
                    .Text("rule", rule)
                    .Text("kind", "service"));
  }
  std::string top;
  SystemClock clock;
  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<egress::Credentials> credentials;
  std::unique_ptr<SecretDesk> desk;
  int rechecks = 0;
};

TEST_SUITE("SecretDesk") {
  TEST_CASE("the list tells where each comes from and who used it last, never its value") {
    DeskWorld world;
    CHECK(world.desk->List()->at(0).last_session.empty());
    world.Used("egress.allowed", "first", "service api");
    world.Used("egress.allowed", "second", "service api");
    world.Used("egress.denied", "third", "service api");
    world.Used("egress.allowed", "fourth", "service other");
    const auto list = world.desk->List();
    REQUIRE(list.ok());
    REQUIRE(list->size() == 1);
    CHECK(list->at(0).name == "api");
    CHECK(list->at(0).kind == "bearer");
    CHECK(list->at(0).source == "file " + world.top + "/key");
    CHECK(list->at(0).last_session == "second");
    CHECK(list->at(0).uses == 2);
    CHECK_FALSE(list->at(0).revoked);
  }

  TEST_CASE("what is revoked stays so over a start, whatever becomes of the database") {
    DeskWorld world;
    CHECK(world.Given());
    CHECK(absl::IsNotFound(world.desk->Revoke("none")));
    CHECK(world.desk->Revoke("api").ok());
    CHECK(world.rechecks == 1);
    CHECK_FALSE(world.Given());
    REQUIRE(world.Begin().ok());
    CHECK_FALSE(world.Given());
    CHECK(world.desk->List()->at(0).revoked);
    CHECK(world.desk->Restore("api").ok());
    REQUIRE(world.Begin().ok());
    CHECK(world.Given());
  }

  TEST_CASE("what cannot be read lets nothing be used") {
    DeskWorld world;
    REQUIRE(world.desk->Revoke("api").ok());
    std::filesystem::remove(world.top + "/revoked-secrets");
    REQUIRE(::mkdir((world.top + "/revoked-secrets").c_str(), 0700) == 0);
    CHECK_FALSE(world.Begin().ok());
  }
}

}  // namespace
}  // namespace creel
