// creeld as a process, as far as it gets without an engine.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "supervisor/base/unique_fd.h"
#include "supervisor/config/load_config.h"

namespace creel {
namespace {

struct Ended {
  int exit_code = -1;
  std::string out;
  std::string err;
};

std::string ReadAll(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

Ended Run(std::vector<std::string> args) {
  char out_name[] = "/tmp/creeld-out-XXXXXX";
  char err_name[] = "/tmp/creeld-err-XXXXXX";
  const UniqueFd out(::mkstemp(out_name));
  const UniqueFd err(::mkstemp(err_name));
  ::unlink(out_name);
  ::unlink(err_name);
  args.insert(args.begin(), CREEL_TEST_CREELD);
  std::vector<char*> argv;
  for (std::string& arg : args) {
    argv.push_back(arg.data());
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, err.get(), 2);
  pid_t pid = 0;
  REQUIRE(::posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  Ended ended;
  ended.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ::lseek(out.get(), 0, SEEK_SET);
  ::lseek(err.get(), 0, SEEK_SET);
  ended.out = ReadAll(out.get());
  ended.err = ReadAll(err.get());
  return ended;
}

TEST_SUITE("Creeld") {
  TEST_CASE("it tells its version, its defaults and its keys") {
    CHECK(Run({"--version"}).out.starts_with("creeld "));
    const Ended defaults = Run({"--print-default-config"});
    CHECK(defaults.exit_code == 0);
    CHECK(defaults.out == DefaultConfigYaml());
    CHECK(Run({"--print-config-reference"}).out == ConfigReference());
    CHECK(Run({"--help"}).exit_code == 0);
  }

  TEST_CASE("misuse is 2, a failure is 1") {
    CHECK(Run({"--no-such-flag"}).exit_code == 2);
    CHECK(Run({"surplus"}).exit_code == 2);
    CHECK(Run({"--engine-wait", "soon"}).exit_code == 2);
    const Ended missing = Run({"--config", "/no/such/file.yaml"});
    CHECK(missing.exit_code == 1);
    CHECK(missing.err.find("/no/such/file.yaml") != std::string::npos);
  }

  TEST_CASE("a configuration is checked, and started with only if it is good") {
    char base[] = "/tmp/creeld-test-XXXXXX";
    REQUIRE(::mkdtemp(base) != nullptr);
    const std::string dir = base;
    const std::string file = dir + "/c.yaml";
    std::ofstream(file) << "sandbox:\n  imagge: x\n";
    for (const bool only_check : {true, false}) {
      std::vector<std::string> args{"--config", file};
      if (only_check) {
        args.emplace_back("--check-config");
      }
      const Ended bad = Run(args);
      CHECK(bad.exit_code == 1);
      CHECK(bad.err.find(file + ":2:3: 'sandbox.imagge'") != std::string::npos);
      CHECK(bad.err.find("did you mean 'sandbox.image'?") != std::string::npos);
    }
    std::ofstream(file) << "sandbox:\n  image: x\n";
    CHECK(Run({"--config", file, "--check-config"}).exit_code == 0);
    std::filesystem::remove_all(dir);
  }

  TEST_CASE("without an engine it says where it looked and what to do, and leaves no socket") {
    char base[] = "/tmp/creeld-test-XXXXXX";
    REQUIRE(::mkdtemp(base) != nullptr);
    const std::string dir = base;
    const std::string file = dir + "/c.yaml";
    std::ofstream(file) << "paths: {run_dir: " << dir << "/run, state_dir: " << dir
                        << "/state}\nengine: {host: 'unix://" << dir << "/no.sock'}\n";
    const Ended ended = Run({"--config", file, "--engine-wait", "0"});
    CAPTURE(ended.err);
    CHECK(ended.exit_code == 1);
    CHECK(ended.err.find(dir + "/no.sock") != std::string::npos);
    CHECK(ended.err.find("start Docker") != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(dir + "/run/gateway.sock"));
    std::filesystem::remove_all(dir);
  }

  TEST_CASE("a gateway that could be the operator is refused at start") {
    char base[] = "/tmp/creeld-test-XXXXXX";
    REQUIRE(::mkdtemp(base) != nullptr);
    const std::string dir = base;
    const std::string file = dir + "/c.yaml";
    std::ofstream(file) << "paths: {run_dir: " << dir << "/run, state_dir: " << dir
                        << "/state}\ngateway: {uids: [0]}\nengine: {host: 'unix://" << dir
                        << "/no.sock'}\n";
    const Ended ended = Run({"--config", file, "--engine-wait", "0"});
    CAPTURE(ended.err);
    CHECK(ended.exit_code == 1);
    CHECK(ended.err.find("concessions: [gateway-is-operator]") != std::string::npos);
    std::filesystem::remove_all(dir);
  }
}

}  // namespace
}  // namespace creel
