#include "supervisor/session/record_codec.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace creel {
namespace {

using nlohmann::json;

// Each limit with its name in the record, for writing and reading alike.
template <typename Limits, typename Visit>
void ForEachLimit(Limits& limits, const Visit& visit) {
  visit("memory", limits.memory_bytes);
  visit("cpus", limits.cpus);
  visit("pids", limits.pids);
  visit("open_files", limits.open_files);
  visit("tmp", limits.tmp_bytes);
  visit("run", limits.run_bytes);
  visit("shm", limits.shm_bytes);
  visit("workspace", limits.workspace_bytes);
  visit("blkio_weight", limits.blkio_weight);
  visit("read_bps", limits.read_bps);
  visit("write_bps", limits.write_bps);
  visit("spool", limits.spool_bytes);
  visit("free_space_floor", limits.free_space_floor_bytes);
}

}  // namespace

std::string_view AccessName(WorkspaceAccess access) {
  switch (access) {
    case WorkspaceAccess::kReadOnly:
      return "ro";
    case WorkspaceAccess::kReadWrite:
      return "rw";
    case WorkspaceAccess::kNone:
      break;
  }
  return "none";
}

void IdentityToRecord(const SandboxIdentity& identity, SessionRecord& record) {
  record.sandbox_id = identity.id;
  record.key = identity.key;
  record.tool_uid = identity.tool_uid;
  record.tool_gid = identity.tool_gid;
  record.container_id = identity.container_id;
  record.image = identity.image;
  record.runtime = identity.runtime;
  record.workspace = identity.workspace;
  record.access = AccessName(identity.access);
  record.spec_hash = identity.spec_hash;
  record.shim_sha256 = identity.shim_sha256;
  record.workspace_bound = identity.workspace_bound;
  record.env = identity.env;
  json limits = json::object();
  ForEachLimit(identity.limits, [&](const char* name, const auto& value) { limits[name] = value; });
  record.limits_json = limits.dump();
}

absl::StatusOr<SandboxIdentity> IdentityFromRecord(const SessionRecord& record) {
  SandboxIdentity identity;
  const bool id_is_good =
      record.sandbox_id.size() == 16 &&
      record.sandbox_id.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!id_is_good || record.key.size() != 32) {
    return absl::DataLossError(
        fmt::format("the record of sandbox '{}' does not hold its id and key", record.sandbox_id));
  }
  identity.id = record.sandbox_id;
  identity.key = record.key;
  identity.tool_uid = record.tool_uid;
  identity.tool_gid = record.tool_gid;
  identity.container_id = record.container_id;
  identity.image = record.image;
  identity.runtime = record.runtime;
  identity.workspace = record.workspace;
  identity.access = record.access == "ro"   ? WorkspaceAccess::kReadOnly
                    : record.access == "rw" ? WorkspaceAccess::kReadWrite
                                            : WorkspaceAccess::kNone;
  identity.spec_hash = record.spec_hash;
  identity.shim_sha256 = record.shim_sha256;
  identity.workspace_bound = record.workspace_bound;
  identity.env = record.env;
  try {
    const json limits = json::parse(record.limits_json);
    // A limit that an older Creel did not know keeps its default.
    ForEachLimit(identity.limits, [&](const char* name, auto& value) {
      if (const auto found = limits.find(name); found != limits.end()) {
        found->get_to(value);
      }
    });
  } catch (const json::exception& e) {
    return absl::DataLossError(
        fmt::format("the limits in the record of sandbox '{}': {}", record.sandbox_id, e.what()));
  }
  return identity;
}

}  // namespace creel
