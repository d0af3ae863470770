#pragma once

#include <string>
#include <string_view>

#include "supervisor/config/config.h"

namespace creel {

// Whether `id` is 16 lower-case hexadecimal digits, so that it can stand in a path.
bool IsSandboxId(std::string_view id);

// Where the parts of one sandbox lie on the host.
struct SandboxPaths {
  std::string link_dir;  // <run>/sandboxes/<id>: shim.sock, seen in the container at /run/creel
  std::string slot;      // <run>/mounts/<id>: mounts on their way into the container
  std::string own_dir;   // <state>/sandboxes/<id>: the workspace that is Creel's own, marks
  std::string image;     // <own_dir>/workspace.img, where it is sized
  std::string folder;    // <own_dir>/workspace, where it is watched
  std::string hold;      // <own_dir>/hold: there while the sandbox is frozen
  std::string idle;      // <own_dir>/idle: there while it is paused as nobody calls

  static SandboxPaths For(const PathsConfig& paths, std::string_view id);
};

// `creel-ID`.
std::string ContainerName(std::string_view id);

// Where output of all sandboxes is spooled, and formatted images wait to be copied.
std::string SpoolDir(const PathsConfig& paths);
std::string TemplateDir(const PathsConfig& paths);

}  // namespace creel
