#include "supervisor/sandbox/opening.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <cerrno>

#include "supervisor/base/escape.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

// The engine's word for this machine's kind.
std::string HostArchitecture() {
  struct utsname about {};
  if (::uname(&about) != 0) {
    return {};
  }
  const std::string machine = about.machine;
  return machine == "x86_64" ? "amd64" : machine == "aarch64" ? "arm64" : machine;
}

}  // namespace

absl::StatusOr<ImageInfo> FindImage(Engine& engine, const std::string& image, Deadline deadline) {
  auto info = engine.InspectImage(image, deadline);
  if (!info.ok()) {
    if (info.status().code() == absl::StatusCode::kNotFound) {
      return absl::NotFoundError(
          fmt::format("image '{}' is not on this host: build Creel's own with "
                      "docker/setup/sandbox-image.sh, fetch it with 'docker pull {}', or set "
                      "sandbox.image",
                      Printable(image, 256), Printable(image, 256)));
    }
    return info.status();
  }
  const std::string host = HostArchitecture();
  if (!info->architecture.empty() && !host.empty() && info->architecture != host) {
    return absl::FailedPreconditionError(fmt::format("image '{}' is for {}, and this host is {}",
                                                     Printable(image, 256),
                                                     Printable(info->architecture, 32), host));
  }
  return info;
}

absl::Status MakeSandboxFolders(const PathsConfig& config, const SandboxPaths& paths) {
  RETURN_IF_ERROR(MakeDirectories(SpoolDir(config), 0700));
  const std::string parent = paths.link_dir.substr(0, paths.link_dir.rfind('/'));
  // Sockets in there may be open to every uid, as where the engine maps them.
  RETURN_IF_ERROR(MakeDirectories(parent, 0700));
  if (::chmod(parent.c_str(), 0700) != 0) {
    return ErrnoStatus(errno, fmt::format("close '{}' to others", parent));
  }
  return MakeDirectories(paths.link_dir, 0755);
}

}  // namespace creel
