#include "supervisor/sandbox/mount_rules.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "supervisor/sandbox/workspace.h"

namespace creel {
namespace {

namespace fs = std::filesystem;

// The temporary folder is no home, and no system folder.
class World {
 public:
  World() {
    char name[] = "/var/tmp/creel-rules-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = fs::canonical(name);
    fs::create_directories(path + "/roots/project");
    Config config;
    config.paths.run_dir = path + "/run";
    config.paths.state_dir = path + "/state";
    config.sandbox.workspace_roots = {path + "/roots"};
    rules = MakeMountRules(config, path + "/engine");
  }
  ~World() { fs::remove_all(path); }

  std::string Refusal(const std::string& folder) const {
    auto opened = OpenGivenFolder(folder, rules);
    return opened.ok() ? std::string() : std::string(opened.status().message());
  }

  std::string path;
  MountRules rules;
};

TEST_SUITE("MountRules") {
  TEST_CASE("a folder below a root is taken, by any name that leads to it") {
    const World world;
    auto opened = OpenGivenFolder(world.path + "/roots/project", world.rules);
    REQUIRE_MESSAGE(opened.ok(), opened.status().ToString());
    CHECK(opened->path == world.path + "/roots/project");
    CHECK(opened->uid == ::geteuid());
    CHECK(OpenGivenFolder(world.path + "/roots/../roots/project/.", world.rules)->path ==
          world.path + "/roots/project");
  }

  TEST_CASE("folders of the system are refused, as are those that hold them") {
    Config config;
    config.sandbox.workspace_roots = {"/"};
    const MountRules rules = MakeMountRules(config, "/srv/engine");
    for (const char* folder : {"/",
                               "/etc",
                               "/etc/ssl",
                               "/proc",
                               "/proc/1",
                               "/sys",
                               "/sys/fs/cgroup",
                               "/dev",
                               "/dev/shm",
                               "/run",
                               "/run/creel",
                               "/run/user/1000",
                               "/var/run",
                               "/boot",
                               "/root",
                               "/root/work",
                               "/var/lib/docker",
                               "/var/lib/docker/volumes",
                               "/var",
                               "/var/lib",
                               "/home",
                               "/home/ann",
                               "/usr",
                               "/usr/local",
                               "/bin",
                               "/lib",
                               "/tmp",
                               "/srv/engine",
                               "/srv/engine/overlay2",
                               "/srv",
                               "/var/lib/creel",
                               "/var/lib/creel/sandboxes/0"}) {
      CAPTURE(folder);
      CHECK(CheckMountSource(folder, rules).code() == absl::StatusCode::kInvalidArgument);
    }
    for (const char* folder : {"/home/ann/work", "/srv/work", "/var/lib/creelish", "/opt/bot/ws",
                               "/etcetera/x", "/home/ann/.config/x"}) {
      CAPTURE(folder);
      const absl::Status status = CheckMountSource(folder, rules);
      CHECK_MESSAGE(status.ok(), status.ToString());
    }
  }

  TEST_CASE("credential folders are refused wherever they are") {
    Config config;
    config.sandbox.workspace_roots = {"/"};
    const MountRules rules = MakeMountRules(config, "");
    for (const char* folder : {"/home/ann/.ssh", "/home/ann/.ssh/keys", "/srv/x/.gnupg",
                               "/home/ann/.aws", "/home/ann/.kube/cache", "/home/ann/.docker",
                               "/home/ann/.config/gcloud", "/home/ann/.config/gcloud/legacy"}) {
      CAPTURE(folder);
      CHECK_FALSE(CheckMountSource(folder, rules).ok());
    }
    CHECK(CheckMountSource("/home/ann/my.ssh", rules).ok());
    CHECK(CheckMountSource("/home/ann/.sshd", rules).ok());
    const World world;
    fs::create_directories(world.path + "/roots/homelike/.ssh");
    CHECK(world.Refusal(world.path + "/roots/homelike").find("credentials") != std::string::npos);
  }

  TEST_CASE("a link is judged by where it leads") {
    const World world;
    fs::create_directory_symlink("/etc", world.path + "/roots/link");
    CHECK(world.Refusal(world.path + "/roots/link").find("'/etc'") != std::string::npos);
    fs::create_directory_symlink(world.path, world.path + "/roots/up");
    CHECK(world.Refusal(world.path + "/roots/up") != "");
    fs::create_directory_symlink(world.path + "/roots/project", world.path + "/in");
    CHECK(world.Refusal(world.path + "/in") == "");
    CHECK(world.Refusal(world.path + "/roots/project/../../../../../etc") != "");
    CHECK(world.Refusal("/proc/self/root/etc") != "");
    CHECK(world.Refusal("/proc/self/cwd") != "");
  }

  TEST_CASE("what is not a folder below a root is refused, with the reason") {
    World world;
    std::ofstream(world.path + "/roots/file") << "x";
    fs::create_directories(world.path + "/elsewhere");
    fs::create_directories(world.path + "/state/sandboxes/0");
    struct {
      std::string folder;
      const char* why;
    } const rows[] = {
        {world.path + "/roots/file", "not a directory"},
        {world.path + "/roots/none", "No such file"},
        {world.path + "/elsewhere", "workspace_roots"},
        {world.path + "/state/sandboxes/0", "state"},
        {world.path, "is in it"},
        {"roots/project", "absolute"},
        {"", "absolute"},
        {std::string("/tmp\0/x", 7), "absolute"},
    };
    for (const auto& row : rows) {
      CAPTURE(row.folder);
      const std::string refusal = world.Refusal(row.folder);
      CAPTURE(refusal);
      CHECK(refusal.find(row.why) != std::string::npos);
    }
    world.rules.roots.clear();
    CHECK(world.Refusal(world.path + "/roots/project").find("sandbox.workspace_roots") !=
          std::string::npos);
  }

  TEST_CASE("a folder with an engine's socket in it is refused") {
    World world;
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    const std::string path = world.path + "/roots/project/docker.sock";
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd, 1) == 0);
    Config config;
    config.sandbox.workspace_roots = {world.path + "/roots"};
    world.rules = MakeMountRules(config, "");
    CHECK(world.Refusal(world.path + "/roots/project").find("socket") != std::string::npos);
    ::close(fd);
    config.engine.host = "unix://" + world.path + "/roots/project/other.sock";
    world.rules = MakeMountRules(config, "");
    CHECK(world.Refusal(world.path + "/roots/project").find("socket") != std::string::npos);
  }

  TEST_CASE("folders of a sandbox's uid, or of one who may not call, are refused") {
    if (::geteuid() != 0) {
      return;  // only root gives folders away
    }
    World world;
    const std::string folder = world.path + "/roots/project";
    REQUIRE(::chown(folder.c_str(), 2'000'005, 2'000'005) == 0);
    CHECK(world.Refusal(folder).find("2000005") != std::string::npos);
    REQUIRE(::chown(folder.c_str(), 1001, 1001) == 0);
    CHECK(world.Refusal(folder) == "");
    world.rules.owners = {1000};
    CHECK(world.Refusal(folder).find("gateway.uids") != std::string::npos);
    world.rules.owners = {1001};
    CHECK(world.Refusal(folder) == "");
  }

  TEST_CASE("protected paths stand with their parents before them, and links are left out") {
    const World world;
    const std::string folder = world.path + "/roots/project";
    fs::create_directories(folder + "/.git/hooks");
    fs::create_directories(folder + "/a/b/c");
    std::ofstream(folder + "/.git/config") << "x";
    fs::create_directory_symlink("/etc", folder + "/.vscode");
    const UniqueFd fd(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto found =
        ProtectedPaths(fd.get(), {".git/hooks", ".git/config", ".vscode", "none", "a/b/c", "/etc",
                                  "../elsewhere", ".vscode/passwd"});
    std::string text;
    for (const ProtectedPath& each : found) {
      text += each.path + (each.read_only ? " ro\n" : " rw\n");
    }
    CHECK(text == ".git rw\n.git/config ro\n.git/hooks ro\na rw\na/b rw\na/b/c ro\n");
  }
}

}  // namespace
}  // namespace creel
