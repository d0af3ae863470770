#include "supervisor/daemon/anchor.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>
#include <string>

namespace creel {
namespace {

using std::chrono::seconds;

struct Folder {
  Folder() {
    char pattern[] = "/tmp/creel-anchor-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  [[nodiscard]] std::string Kept() const {
    std::ifstream file(path + "/kept");
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  // A command that keeps its last argument.
  [[nodiscard]] RecordConfig Keeps(const std::string& before = "") const {
    RecordConfig config;
    config.anchor_command = {"/bin/sh", "-c", before + "printf '%s\\n' \"$1\" >> " + path + "/kept",
                             "keep"};
    return config;
  }
  std::string path;
};

TEST_SUITE("Anchor") {
  TEST_CASE("a checkpoint's line is the command's last argument, and the last one is not lost") {
    const Folder folder;
    {
      Anchor anchor(folder.Keeps());
      anchor.Send("creel record i checkpoint 7 aa signature $(id)");
    }
    CHECK(folder.Kept() == "creel record i checkpoint 7 aa signature $(id)\n");
  }

  TEST_CASE("of lines that wait the newest is handed over") {
    const Folder folder;
    {
      Anchor anchor(folder.Keeps("sleep 0.5; "));
      for (int i = 1; i <= 50; ++i) {
        anchor.Send("line " + std::to_string(i));
      }
    }
    CHECK(folder.Kept().ends_with("line 50\n"));
    CHECK(folder.Kept().size() < 30);
  }

  TEST_CASE("a command that fails or hangs is told of, and holds nothing up") {
    const Folder folder;
    RecordConfig config;
    config.anchor_command = {"/bin/sh", "-c", "echo the log host is away; sleep 1000", "keep"};
    config.anchor_timeout = seconds(1);
    const auto began = std::chrono::steady_clock::now();
    std::promise<std::string> failed;
    {
      Anchor anchor(config);
      anchor.OnFailure([&](const std::string& why) { failed.set_value(why); });
      anchor.Send("line");
      CHECK(std::chrono::steady_clock::now() - began < seconds(1));
      const std::string why = failed.get_future().get();
      CHECK(why.find("was killed") != std::string::npos);
      CHECK(why.find("the log host is away") != std::string::npos);
      CHECK(anchor.problem() == why);
      anchor.OnFailure(nullptr);
    }
    CHECK(std::chrono::steady_clock::now() - began < seconds(20));
  }
}

}  // namespace
}  // namespace creel
