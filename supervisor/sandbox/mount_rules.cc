#include "supervisor/sandbox/mount_rules.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string_view>

#include "supervisor/base/escape.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

// Names of folders that hold credentials, wherever they lie.
constexpr std::array<std::string_view, 14> kCredentialFolders{".ssh",
                                                              ".gnupg",
                                                              ".aws",
                                                              ".kube",
                                                              ".docker",
                                                              ".azure",
                                                              ".password-store",
                                                              ".pki",
                                                              ".gcloud",
                                                              ".mozilla",
                                                              ".terraform.d",
                                                              ".config/gcloud",
                                                              ".config/gh",
                                                              ".local/share/keyrings"};

constexpr std::array<std::string_view, 23> kSystemFolders{"/bin",
                                                          "/boot",
                                                          "/dev",
                                                          "/etc",
                                                          "/lib",
                                                          "/lib32",
                                                          "/lib64",
                                                          "/libx32",
                                                          "/proc",
                                                          "/root",
                                                          "/run",
                                                          "/sbin",
                                                          "/sys",
                                                          "/usr",
                                                          "/var/run",
                                                          "/var/cache",
                                                          "/var/log",
                                                          "/var/spool",
                                                          "/var/backups",
                                                          "/var/lib/docker",
                                                          "/var/lib/containerd",
                                                          "/var/lib/containers",
                                                          "/var/lib/kubelet"};

// Names that engines give their sockets.
constexpr std::array<std::string_view, 6> kEngineSockets{"docker.sock",    "containerd.sock",
                                                         "podman.sock",    "crio.sock",
                                                         "buildkitd.sock", "docker-raw.sock"};

bool IsBelow(std::string_view path, std::string_view folder) {
  return folder == "/" ? path.size() > 1
                       : path.size() > folder.size() && path.substr(0, folder.size()) == folder &&
                             path[folder.size()] == '/';
}

bool IsSameOrBelow(std::string_view path, std::string_view folder) {
  return path == folder || IsBelow(path, folder);
}

// `path` with its links resolved, as far as it is there; the name itself otherwise.
std::string Resolved(const std::string& path) {
  char buffer[PATH_MAX];
  return ::realpath(path.c_str(), buffer) != nullptr ? std::string(buffer) : path;
}

void AddResolved(const std::string& path, std::vector<std::string>& list) {
  if (path.empty() || path == "/") {
    return;
  }
  for (const std::string& each : {path, Resolved(path)}) {
    if (std::find(list.begin(), list.end(), each) == list.end()) {
      list.push_back(each);
    }
  }
}

std::vector<std::string> HomeDirectories() {
  std::vector<std::string> homes;
  // The file itself: name services may ask the network, and those accounts have homes in /home.
  std::ifstream passwd("/etc/passwd");
  for (std::string line; std::getline(passwd, line);) {
    std::istringstream fields(line);
    std::string field;
    for (int i = 0; i < 6 && std::getline(fields, field, ':'); ++i) {
    }
    if (!field.empty() && field.front() == '/' && field != "/" && field != "/nonexistent") {
      AddResolved(field, homes);
    }
  }
  return homes;
}

// Sockets that somebody listens on under an engine's name.
std::vector<std::string> ListeningEngines() {
  std::vector<std::string> sockets;
  std::ifstream table("/proc/net/unix");
  for (std::string line; std::getline(table, line);) {
    const size_t at = line.find(" /");
    if (at == std::string::npos) {
      continue;
    }
    const std::string path = line.substr(at + 1);
    const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
    if (std::find(kEngineSockets.begin(), kEngineSockets.end(), name) != kEngineSockets.end()) {
      AddResolved(path, sockets);
    }
  }
  return sockets;
}

absl::Status Refuse(const std::string& path, const std::string& why) {
  return absl::InvalidArgumentError(
      fmt::format("workspace '{}' is not allowed: {}", Printable(path, 512), why));
}

// The credential folder that `path` lies in, or is; empty if none.
std::string CredentialPart(const std::string& path) {
  for (const std::string_view name : kCredentialFolders) {
    const std::string needle = fmt::format("/{}", name);
    for (size_t at = path.find(needle); at != std::string::npos; at = path.find(needle, at + 1)) {
      const size_t end = at + needle.size();
      if (end == path.size() || path[end] == '/') {
        return std::string(name);
      }
    }
  }
  return {};
}

// The credential folder directly in `fd`; empty if none.
std::string CredentialsIn(int fd) {
  for (const std::string_view name : kCredentialFolders) {
    struct stat about {};
    if (::fstatat(fd, std::string(name).c_str(), &about, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(about.st_mode)) {
      // A project may well have a folder of its own for its build images.
      if (name == ".docker" || name == ".azure") {
        const std::string config = fmt::format("{}/config.json", name);
        if (::fstatat(fd, config.c_str(), &about, AT_SYMLINK_NOFOLLOW) != 0) {
          continue;
        }
      }
      return std::string(name);
    }
  }
  return {};
}

absl::Status CheckFileSystem(int fd, const std::string& path) {
  struct statfs about {};
  if (::fstatfs(fd, &about) != 0) {
    return ErrnoStatus(errno, fmt::format("look at the file system of '{}'", path));
  }
  constexpr std::array<uint32_t, 9> kKernelsOwn{
      PROC_SUPER_MAGIC, SYSFS_MAGIC,      CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC,
      TRACEFS_MAGIC,    SECURITYFS_MAGIC, BPF_FS_MAGIC,       DEVPTS_SUPER_MAGIC};
  if (std::find(kKernelsOwn.begin(), kKernelsOwn.end(), static_cast<uint32_t>(about.f_type)) !=
      kKernelsOwn.end()) {
    return Refuse(path, "it is a file system of the kernel's own");
  }
  return absl::OkStatus();
}

absl::Status CheckOwner(const GivenFolder& folder, const MountRules& rules) {
  if (folder.uid >= rules.tool_uid_base &&
      folder.uid - rules.tool_uid_base < rules.tool_uid_count) {
    return Refuse(folder.path,
                  fmt::format("it belongs to uid {}, which is in the range of sandboxes' own uids; "
                              "give it to its user (chown) first",
                              folder.uid));
  }
  if (!rules.owners.empty() && folder.uid != 0 && rules.owners.count(folder.uid) == 0) {
    return Refuse(folder.path,
                  fmt::format("it belongs to uid {}, which may not use this supervisor; a folder "
                              "must belong to one of the users of gateway.uids",
                              folder.uid));
  }
  return absl::OkStatus();
}

}  // namespace

MountRules MakeMountRules(const Config& config, const std::string& engine_dir) {
  MountRules rules;
  for (const std::string& root : config.sandbox.workspace_roots) {
    rules.roots.push_back(Resolved(root));
  }
  for (const std::string_view folder : kSystemFolders) {
    // /bin, /lib and /var/run are links elsewhere on most hosts.
    AddResolved(std::string(folder), rules.forbidden);
  }
  AddResolved(config.paths.run_dir, rules.forbidden);
  AddResolved(config.paths.state_dir, rules.forbidden);
  AddResolved(engine_dir, rules.forbidden);
  rules.homes = HomeDirectories();
  rules.sockets = ListeningEngines();
  constexpr std::string_view kUnix = "unix://";
  if (config.engine.host.rfind(kUnix, 0) == 0) {
    AddResolved(config.engine.host.substr(kUnix.size()), rules.sockets);
  }
  rules.owners.insert(config.gateway_uids.begin(), config.gateway_uids.end());
  if (::geteuid() != 0) {
    // The engine is root: without this, naming a folder would get at what its user cannot open.
    rules.owners = {::geteuid()};
  }
  rules.tool_uid_base = config.sandbox.tool_uid_base;
  rules.tool_uid_count = config.sandbox.tool_uid_count;
  return rules;
}

absl::Status CheckMountSource(const std::string& path, const MountRules& rules) {
  if (path == "/") {
    return Refuse(path, "it is the whole host");
  }
  for (const std::string& folder : rules.forbidden) {
    if (IsSameOrBelow(path, folder)) {
      return Refuse(path,
                    fmt::format("nothing in '{}' is given to a sandbox; move the workspace to "
                                "a folder of its own",
                                folder));
    }
    if (IsBelow(folder, path)) {
      return Refuse(path, fmt::format("'{}' is in it; name a folder further down", folder));
    }
  }
  for (const std::string& socket : rules.sockets) {
    if (IsSameOrBelow(socket, path)) {
      return Refuse(path, fmt::format("the engine's socket '{}' is in it", socket));
    }
  }
  if (const std::string name = CredentialPart(path); !name.empty()) {
    return Refuse(path, fmt::format("'{}' is where credentials are kept", name));
  }
  for (const std::string& home : rules.homes) {
    if (IsSameOrBelow(home, path)) {
      return Refuse(
          path, fmt::format("it is or holds the home directory '{}'; name a folder in it", home));
    }
  }
  // A home that /etc/passwd does not know, as of an account from the network.
  if (IsBelow(path, "/home") && path.find('/', 6) == std::string::npos) {
    return Refuse(path, "it is a home directory; name a folder in it");
  }
  if (path == "/home" || path == "/var" || path == "/var/lib" || path == "/tmp" ||
      path == "/var/tmp" || path == "/opt" || path == "/srv" || path == "/mnt" ||
      path == "/media") {
    return Refuse(path, "it is shared by the whole host; name a folder further down");
  }
  if (rules.roots.empty()) {
    return Refuse(path,
                  "no folder of this host may be given: name the folders that may in "
                  "sandbox.workspace_roots");
  }
  for (const std::string& root : rules.roots) {
    if (IsSameOrBelow(path, root)) {
      return absl::OkStatus();
    }
  }
  return Refuse(path, "it is not below any of sandbox.workspace_roots");
}

absl::StatusOr<GivenFolder> OpenGivenFolder(const std::string& path, const MountRules& rules) {
  if (path.empty() || path.front() != '/' || path.find('\0') != std::string::npos ||
      path.size() >= PATH_MAX) {
    return Refuse(path, "it is not an absolute path");
  }
  GivenFolder folder;
  folder.fd.reset(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!folder.fd.valid()) {
    return ErrnoStatus(errno, fmt::format("workspace '{}'", Printable(path, 512)));
  }
  struct stat about {};
  if (::fstat(folder.fd.get(), &about) != 0) {
    return ErrnoStatus(errno, fmt::format("workspace '{}'", Printable(path, 512)));
  }
  if (!S_ISDIR(about.st_mode)) {
    return Refuse(path, "it is not a directory");
  }
  char resolved[PATH_MAX];
  const std::string magic = fmt::format("/proc/self/fd/{}", folder.fd.get());
  const ssize_t size = ::readlink(magic.c_str(), resolved, sizeof resolved);
  if (size <= 0 || static_cast<size_t>(size) == sizeof resolved || resolved[0] != '/') {
    return Refuse(path, "it has no path on this host");
  }
  folder.path.assign(resolved, static_cast<size_t>(size));
  // The kernel says " (deleted)" behind the path of what is gone; the folder must be there by name.
  struct stat again {};
  if (::lstat(folder.path.c_str(), &again) != 0 || again.st_ino != about.st_ino ||
      again.st_dev != about.st_dev) {
    return Refuse(path, "it was moved or removed meanwhile");
  }
  folder.uid = about.st_uid;
  folder.gid = about.st_gid;
  RETURN_IF_ERROR(CheckMountSource(folder.path, rules));
  RETURN_IF_ERROR(CheckFileSystem(folder.fd.get(), folder.path));
  RETURN_IF_ERROR(CheckOwner(folder, rules));
  if (const std::string name = CredentialsIn(folder.fd.get()); !name.empty()) {
    return Refuse(folder.path, fmt::format("it holds '{}', where credentials are kept", name));
  }
  return folder;
}

}  // namespace creel
