#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/config/config.h"

namespace creel {

// Which folders of the host a sandbox may be given. All paths are absolute, without links, `.` and
// `..`.
struct MountRules {
  // Folders below which a gateway may name a workspace.
  std::vector<std::string> roots;
  // Neither these, nor what is below them, nor what holds them.
  std::vector<std::string> forbidden;
  // Home directories: what is in them may be given, they themselves may not.
  std::vector<std::string> homes;
  // Sockets of container engines, wherever they lie.
  std::vector<std::string> sockets;
  // Owners a folder may have besides root; empty: anybody.
  std::set<uint32_t> owners;
  // Uids that are tools' own; a folder of such an owner was left by a sandbox.
  uint32_t tool_uid_base = 0;
  uint32_t tool_uid_count = 0;
};

// The rules for this host. `engine_dir` is where the engine keeps its own files; empty: unknown.
MountRules MakeMountRules(const Config& config, const std::string& engine_dir);

// Judges a path that has no links left in it. kInvalidArgument says what is wrong and what to do.
absl::Status CheckMountSource(const std::string& path, const MountRules& rules);

// A folder that was judged and is held: what is mounted is what was looked at, whatever happens to
// its name afterwards.
struct GivenFolder {
  UniqueFd fd;       // O_PATH
  std::string path;  // links resolved
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// Resolves the links of `path`, judges it, and holds it. kNotFound: there is no such folder.
absl::StatusOr<GivenFolder> OpenGivenFolder(const std::string& path, const MountRules& rules);

}  // namespace creel
