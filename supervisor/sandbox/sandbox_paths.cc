#include "supervisor/sandbox/sandbox_paths.h"

#include <fmt/format.h>

#include <algorithm>

namespace creel {

bool IsSandboxId(std::string_view id) {
  return id.size() == 16 && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

SandboxPaths SandboxPaths::For(const PathsConfig& paths, std::string_view id) {
  const std::string own = fmt::format("{}/sandboxes/{}", paths.state_dir, id);
  return {
      .link_dir = fmt::format("{}/sandboxes/{}", paths.run_dir, id),
      .slot = fmt::format("{}/mounts/{}", paths.run_dir, id),
      .own_dir = own,
      .image = own + "/workspace.img",
      .folder = own + "/workspace",
      .hold = own + "/hold",
      .idle = own + "/idle",
  };
}

std::string ContainerName(std::string_view id) { return fmt::format("creel-{}", id); }

std::string SpoolDir(const PathsConfig& paths) { return paths.state_dir + "/spool"; }

std::string TemplateDir(const PathsConfig& paths) { return paths.state_dir + "/templates"; }

}  // namespace creel
