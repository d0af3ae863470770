// Workspaces as a hostile tool would leave them.
#include "supervisor/evidence/tree_capture.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>

#include "tests/supervisor/evidence/bundle_world.h"

namespace creel {
namespace {

namespace fs = std::filesystem;

struct TreeWorld : BundleWorld {
  TreeWorld() : tree(top + "/tree") { fs::create_directory(tree); }
  // Captures the tree and returns what was left out.
  std::vector<std::string> Capture(const TreeBounds& bounds = {}, uint64_t max_bytes = 64u << 20) {
    const auto writer = Begin(max_bytes);
    absl::StatusOr<UniqueFd> folder = OpenFolder(tree);
    REQUIRE(folder.ok());
    const absl::Status captured = CaptureTree(*std::move(folder), "w", bounds, *writer);
    const std::string why(captured.message());
    CAPTURE(why);
    REQUIRE(captured.ok());
    const auto finished = writer->Finish();
    REQUIRE(finished.ok());
    bytes = finished->bytes;
    const BundleReport report = Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    return finished->left_out;
  }
  static bool Mentions(const std::vector<std::string>& lines, const std::string& text) {
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
      return line.find(text) != std::string::npos;
    });
  }
  std::string tree;
  uint64_t bytes = 0;
};

TEST_SUITE("TreeCapture") {
  TEST_CASE("files come with content, owner, mode and time") {
    TreeWorld world;
    fs::create_directories(world.tree + "/a/b");
    BundleWorld::Write(world.tree + "/a/b/f", "content");
    REQUIRE(::chown((world.tree + "/a/b/f").c_str(), 2'000'123, 5) == 0);
    CHECK(world.Capture().empty());
    const auto members = world.Unpack();
    REQUIRE(members.contains("w/a/b/f"));
    CHECK(members.at("w/a/b/f").data == "content");
    CHECK(members.at("w/a/b/f").uid == 2'000'123);
  }

  TEST_CASE("links are stored as links, and what they lead to is not") {
    TreeWorld world;
    BundleWorld::Write(world.top + "/secret", "TOP-SECRET-OF-THE-HOST");
    fs::create_directory(world.top + "/outside");
    BundleWorld::Write(world.top + "/outside/f", "TOP-SECRET-OF-THE-HOST");
    fs::create_symlink(world.top + "/secret", world.tree + "/file");
    fs::create_symlink(world.top + "/outside", world.tree + "/folder");
    fs::create_symlink("/etc/shadow", world.tree + "/shadow");
    fs::create_symlink("/proc/self/root", world.tree + "/magic");
    fs::create_symlink("loop", world.tree + "/loop");
    world.Capture();
    const auto members = world.Unpack();
    CHECK(members.at("w/shadow").kind == S_IFLNK);
    CHECK(members.at("w/shadow").link == "/etc/shadow");
    CHECK(members.at("w/loop").link == "loop");
    for (const auto& [name, member] : members) {
      CHECK(member.data.find("TOP-SECRET") == std::string::npos);
    }
    CHECK_FALSE(members.contains("w/folder/f"));
  }

  TEST_CASE("fifo, socket, device and a leased file hold nothing up") {
    TreeWorld world;
    REQUIRE(::mkfifo((world.tree + "/fifo").c_str(), 0666) == 0);
    REQUIRE_MESSAGE(::mknod((world.tree + "/zero").c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0,
                    "this test makes a device, and needs root");
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string at = world.tree + "/socket";
    at.copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    BundleWorld::Write(world.tree + "/leased", "leased");
    // Another process holds the lease and does not give it up.
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t holder = ::fork();
    if (holder == 0) {
      ::signal(SIGIO, SIG_IGN);
      const int fd = ::open((world.tree + "/leased").c_str(), O_RDWR);
      const char good = ::fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ? 'y' : 'n';
      static_cast<void>(!::write(ready[1], &good, 1));
      ::pause();
      ::_exit(0);
    }
    char good = 0;
    REQUIRE(::read(ready[0], &good, 1) == 1);
    CHECK(good == 'y');
    BundleWorld::Write(world.tree + "/plain", "plain");
    const auto began = std::chrono::steady_clock::now();
    const std::vector<std::string> left_out = world.Capture();
    CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(10));
    ::kill(holder, SIGKILL);
    ::waitpid(holder, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    const auto members = world.Unpack();
    CHECK(members.at("w/fifo").kind == S_IFIFO);
    CHECK(members.at("w/zero").kind == S_IFCHR);
    CHECK(members.at("w/zero").data.empty());
    CHECK(members.at("w/plain").data == "plain");
    CHECK(TreeWorld::Mentions(left_out, "w/leased: a process holds a lease"));
    CHECK(TreeWorld::Mentions(left_out, "w/socket"));
  }

  TEST_CASE("names with line ends, escape codes and bytes that are no text are kept as they are") {
    TreeWorld world;
    for (const std::string& name :
         {std::string("a\nb"), std::string("\x1b[31mred"), std::string("\xff\xfe"),
          std::string("$(reboot)"), std::string(255, 'n'), std::string("-rf")}) {
      BundleWorld::Write(world.tree + "/" + name, name);
    }
    world.Capture();
    const auto members = world.Unpack();
    for (const std::string& name : {std::string("a\nb"), std::string("\x1b[31mred"),
                                    std::string("\xff\xfe"), std::string(255, 'n')}) {
      REQUIRE(members.contains("w/" + name));
      CHECK(members.at("w/" + name).data == name);
    }
    // The manifest is for people and programs: it holds none of them raw.
    const std::string manifest = members.at("manifest.json").data;
    CHECK(manifest.find('\x1b') == std::string::npos);
    CHECK(manifest.find('\xff') == std::string::npos);
  }

  TEST_CASE("a sparse file of a terabyte takes no room, and its data is there") {
    TreeWorld world;
    const UniqueFd fd(::open((world.tree + "/sparse").c_str(), O_RDWR | O_CREAT, 0600));
    REQUIRE(::pwrite(fd.get(), "begin", 5, 0) == 5);
    REQUIRE(::ftruncate(fd.get(), int64_t{1} << 40) == 0);
    REQUIRE(::pwrite(fd.get(), "end", 3, (int64_t{1} << 40) - 3) == 3);
    const UniqueFd hollow(::open((world.tree + "/hollow").c_str(), O_RDWR | O_CREAT, 0600));
    REQUIRE(::ftruncate(hollow.get(), int64_t{1} << 40) == 0);
    const auto began = std::chrono::steady_clock::now();
    CHECK(world.Capture().empty());
    CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(20));
    CHECK(world.bytes < 64u << 10);
    const auto members = world.Unpack();
    CHECK(members.at("w/sparse").size == int64_t{1} << 40);
    CHECK(members.at("w/sparse").data.starts_with("begin"));
    CHECK(members.at("w/sparse").data.find("end") != std::string::npos);
    CHECK(members.at("w/hollow").size == int64_t{1} << 40);
  }

  TEST_CASE("a file in thousands of pieces is cut, and says so") {
    TreeWorld world;
    const UniqueFd fd(::open((world.tree + "/lace").c_str(), O_RDWR | O_CREAT, 0600));
    for (int64_t i = 0; i < 6000; ++i) {
      REQUIRE(::pwrite(fd.get(), "x", 1, i * 16384) == 1);
    }
    CHECK(TreeWorld::Mentions(world.Capture(), "w/lace: cut at byte"));
  }

  TEST_CASE("more entries than may be are left out, and say so") {
    TreeWorld world;
    for (int i = 0; i < 3000; ++i) {
      BundleWorld::Write(world.tree + "/" + std::to_string(i), "");
    }
    const std::vector<std::string> left_out = world.Capture({.max_entries = 1000});
    CHECK(TreeWorld::Mentions(left_out, "more than 1000 entries"));
    // Besides these the folder itself, and the manifest.
    CHECK(world.Unpack().size() == 1002);
  }

  TEST_CASE("deep nesting ends somewhere, and says so") {
    TreeWorld world;
    const int start = ::open(world.tree.c_str(), O_RDONLY | O_DIRECTORY);
    UniqueFd at(start);
    for (int i = 0; i < 2000; ++i) {
      REQUIRE(::mkdirat(at.get(), "d", 0700) == 0);
      at.reset(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY));
      REQUIRE(at.valid());
    }
    CHECK(TreeWorld::Mentions(world.Capture(), "deeper than 256 folders"));
    fs::current_path("/");
    static_cast<void>(!::system(("rm -rf " + world.tree).c_str()));
    fs::create_directory(world.tree);
  }

  TEST_CASE("large files stop at what the bundle may take in") {
    TreeWorld world;
    for (int i = 0; i < 5; ++i) {
      BundleWorld::Write(world.tree + "/f" + std::to_string(i), std::string(1u << 20, 'x'));
    }
    const std::vector<std::string> left_out = world.Capture({}, 2u << 20);
    CHECK(TreeWorld::Mentions(left_out, "incident.max_bundle"));
    uint64_t stored = 0;
    for (const auto& [name, member] : world.Unpack(8u << 20)) {
      stored += name == "manifest.json" ? 0 : member.data.size();
    }
    CHECK(stored <= 2u << 20);
  }

  TEST_CASE("what is mounted inside is left out, and says so") {
    TreeWorld world;
    fs::create_directory(world.tree + "/mounted");
    REQUIRE_MESSAGE(
        ::mount("creel-test", (world.tree + "/mounted").c_str(), "tmpfs", 0, "size=64k") == 0,
        "this test mounts, and needs root");
    BundleWorld::Write(world.tree + "/mounted/f", "inside");
    const std::vector<std::string> left_out = world.Capture();
    ::umount2((world.tree + "/mounted").c_str(), MNT_DETACH);
    CHECK(TreeWorld::Mentions(left_out, "another file system"));
    CHECK_FALSE(world.Unpack().contains("w/mounted/f"));
  }

  TEST_CASE(
      "a folder of a process is found by its number, links and all other containers refused") {
    TreeWorld world;
    CHECK(OpenInProcess(::getpid(), "", world.tree).ok());
    fs::create_directory_symlink("/etc", world.tree + "/link");
    CHECK_FALSE(OpenInProcess(::getpid(), "", world.tree + "/link").ok());
    CHECK_FALSE(OpenInProcess(::getpid(), "", world.tree + "/link/ssl").ok());
    CHECK_FALSE(OpenInProcess(::getpid(), "", "/proc/self/root").ok());
    CHECK(absl::IsNotFound(OpenInProcess(::getpid(), std::string(64, 'c'), world.tree).status()));
    CHECK_FALSE(OpenInProcess(1 << 22, "", "/").ok());
    CHECK_FALSE(OpenFolder(world.tree + "/link").ok());
  }

  TEST_CASE("a folder that is full of entries hides neither those above it nor those beside it") {
    TreeWorld world;
    fs::create_directory(world.tree + "/a");
    fs::create_directory(world.tree + "/z");
    for (int i = 0; i < 3000; ++i) {
      BundleWorld::Write(world.tree + "/a/" + std::to_string(i), "");
      BundleWorld::Write(world.tree + "/z/" + std::to_string(i), "");
    }
    BundleWorld::Write(world.tree + "/plan", "the plan");
    const std::vector<std::string> left_out = world.Capture({.max_entries = 1000});
    CHECK(TreeWorld::Mentions(left_out, "w/a: all that follows"));
    CHECK(TreeWorld::Mentions(left_out, "w/z: all that follows"));
    size_t in_a = 0;
    size_t in_z = 0;
    bool plan = false;
    for (const auto& [name, member] : world.Unpack()) {
      in_a += name.starts_with("w/a/") ? 1 : 0;
      in_z += name.starts_with("w/z/") ? 1 : 0;
      plan = plan || name == "w/plan";
    }
    CHECK(plan);
    CHECK(in_a >= 200);
    CHECK(in_z >= 200);
    CHECK(in_a + in_z < 1000);
  }
}

}  // namespace
}  // namespace creel
