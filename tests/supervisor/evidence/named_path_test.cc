#include "supervisor/evidence/named_path.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace creel {
namespace {

namespace fs = std::filesystem;

// A folder where root alone may write, from "/" on; removed at the end.
struct PathWorld {
  PathWorld() {
    char pattern[] = "/run/creel-named-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    top = pattern;
    fs::create_directories(top + "/real/logs");
    Write(top + "/real/logs/gateway.log", "what the gateway wrote");
    fs::create_directories(top + "/secrets/logs");
    Write(top + "/secrets/logs/gateway.log", "what nobody is to see");
  }
  ~PathWorld() { fs::remove_all(top); }

  static void Write(const std::string& path, const std::string& content) {
    std::ofstream(path) << content;
  }
  // The gateway's user owns this folder.
  void Give(const std::string& folder) const {
    REQUIRE(::chown((top + folder).c_str(), 12345, 12345) == 0);
  }
  void Link(const std::string& target, const std::string& name) const {
    fs::create_symlink(target, top + name);
  }
  // The content of a file, or why it cannot be had.
  std::string Read(const std::string& path) const {
    const absl::StatusOr<UniqueFd> named = OpenNamed(top + path);
    const absl::StatusOr<UniqueFd> fd = named.ok() ? OpenToRead(named->get()) : named.status();
    if (!fd.ok()) {
      return std::string(fd.status().message());
    }
    char text[64];
    const ssize_t got = ::read(fd->get(), text, sizeof text);
    return got < 0 ? "" : std::string(text, static_cast<size_t>(got));
  }
  std::string top;
};

TEST_SUITE("NamedPath") {
  TEST_CASE("links on the way are followed that root made where root alone may write") {
    PathWorld world;
    world.Link("real", "/relative");
    world.Link(world.top + "/real", "/absolute");
    world.Link("relative", "/twice");
    world.Link("../real/./logs", "/secrets/up");
    for (const char* path : {"/real/logs/gateway.log", "/relative/logs/gateway.log",
                             "/absolute/logs/gateway.log", "/twice/logs/gateway.log",
                             "/secrets/up/gateway.log", "/secrets/../real//logs/gateway.log"}) {
      CAPTURE(path);
      CHECK(world.Read(path) == "what the gateway wrote");
    }
  }

  TEST_CASE("a link that the gateway planted in a folder on the way is not followed") {
    PathWorld world;
    fs::remove_all(world.top + "/real/logs");
    world.Link(world.top + "/secrets/logs", "/real/logs");
    SUBCASE("its own folder") { world.Give("/real"); }
    SUBCASE("a folder of everybody") {
      REQUIRE(::chmod((world.top + "/real").c_str(), 01777) == 0);
    }
    SUBCASE("a folder of a group") { REQUIRE(::chmod((world.top + "/real").c_str(), 0775) == 0); }
    SUBCASE("deeper down") {
      fs::create_directories(world.top + "/below/real");
      fs::rename(world.top + "/real/logs", world.top + "/below/real/logs");
      fs::remove(world.top + "/real");
      fs::rename(world.top + "/below/real", world.top + "/real");
      world.Give("");
    }
    SUBCASE("a link that was given away") {
      REQUIRE(::lchown((world.top + "/real/logs").c_str(), 12345, 12345) == 0);
    }
    const std::string told = world.Read("/real/logs/gateway.log");
    CAPTURE(told);
    CHECK(told.find("not followed") != std::string::npos);
  }

  TEST_CASE("what others may write is no way out either, and its files are had") {
    PathWorld world;
    world.Give("/real");
    CHECK(world.Read("/real/logs/gateway.log") == "what the gateway wrote");
    CHECK(world.Read("/real/../secrets/logs/gateway.log") != "what nobody is to see");
    CHECK(world.Read("/real/none").find("No such file") != std::string::npos);
  }

  TEST_CASE("a link at the end, a fifo and a circle are no files") {
    PathWorld world;
    world.Link("real/logs/gateway.log", "/end");
    CHECK(world.Read("/end").find("not followed") != std::string::npos);
    world.Give("/secrets");
    world.Link("logs/gateway.log", "/secrets/end");
    CHECK(world.Read("/secrets/end").find("not followed") != std::string::npos);
    REQUIRE(::mkfifo((world.top + "/fifo").c_str(), 0600) == 0);
    CHECK(world.Read("/fifo").find("neither a file nor a folder") != std::string::npos);
    world.Link("circle", "/circle");
    CHECK(world.Read("/circle/logs").find("not followed") != std::string::npos);
  }
}

}  // namespace
}  // namespace creel
