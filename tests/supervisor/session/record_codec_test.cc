#include "supervisor/session/record_codec.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

SandboxIdentity Example() {
  SandboxIdentity identity;
  identity.id = "0123456789abcdef";
  identity.key = std::string(32, '\0');
  identity.tool_uid = 2'000'001;
  identity.tool_gid = 2'000'002;
  identity.image = "i";
  identity.runtime = "runsc";
  identity.workspace = "/w";
  identity.access = WorkspaceAccess::kReadWrite;
  identity.env = {{"A", "b"}};
  identity.limits.cpus = 0.25;
  identity.limits.pids = 77;
  identity.limits.blkio_weight = 10;
  identity.limits.workspace_bytes = 123;
  identity.container_id = "c";
  identity.spec_hash = "s";
  identity.shim_sha256 = "h";
  identity.workspace_bound = "sized";
  return identity;
}

TEST_SUITE("RecordCodec") {
  TEST_CASE("an identity comes back as it went") {
    const SandboxIdentity put = Example();
    SessionRecord record;
    IdentityToRecord(put, record);
    const absl::StatusOr<SandboxIdentity> got = IdentityFromRecord(record);
    REQUIRE(got.ok());
    CHECK(got->id == put.id);
    CHECK(got->key == put.key);
    CHECK(got->tool_uid == put.tool_uid);
    CHECK(got->tool_gid == put.tool_gid);
    CHECK(got->image == put.image);
    CHECK(got->runtime == put.runtime);
    CHECK(got->workspace == put.workspace);
    CHECK(got->access == put.access);
    CHECK(got->env == put.env);
    CHECK(got->limits.cpus == put.limits.cpus);
    CHECK(got->limits.pids == put.limits.pids);
    CHECK(got->limits.blkio_weight == put.limits.blkio_weight);
    CHECK(got->limits.workspace_bytes == put.limits.workspace_bytes);
    CHECK(got->container_id == put.container_id);
    CHECK(got->spec_hash == put.spec_hash);
    CHECK(got->shim_sha256 == put.shim_sha256);
    CHECK(got->workspace_bound == put.workspace_bound);
  }
  TEST_CASE("limits of an older record keep their defaults") {
    SessionRecord record;
    IdentityToRecord(Example(), record);
    record.limits_json = R"({"pids": 9, "of_the_future": 1})";
    const absl::StatusOr<SandboxIdentity> got = IdentityFromRecord(record);
    REQUIRE(got.ok());
    CHECK(got->limits.pids == 9);
    CHECK(got->limits.memory_bytes == LimitsConfig().memory_bytes);
  }
  TEST_CASE("what was not written by us is refused") {
    SessionRecord good;
    IdentityToRecord(Example(), good);
    SessionRecord record = good;
    record.sandbox_id = "../../etc/passwd";
    CHECK(absl::IsDataLoss(IdentityFromRecord(record).status()));
    record = good;
    record.key = "short";
    CHECK(absl::IsDataLoss(IdentityFromRecord(record).status()));
    for (const char* json : {"", "[", R"({"pids": "many"})"}) {
      record = good;
      record.limits_json = json;
      CAPTURE(json);
      CHECK(absl::IsDataLoss(IdentityFromRecord(record).status()));
    }
  }
}

}  // namespace
}  // namespace creel
