// Bad input, one by one: a clear error with what to do, and nothing half-made left behind.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

// Runs creeld on this configuration and returns how it ended; it is expected to end.
Finished Start(const std::string& dir, const std::string& yaml) {
  std::ofstream(dir + "/bad.yaml")
      << "paths:\n  run_dir: " << dir << "/run2\n  state_dir: " << dir << "/state2\n"
      << yaml;
  return RunProgram({CREEL_TEST_CREELD, "--config", dir + "/bad.yaml"}, "",
                    std::chrono::seconds(45));
}

bool Says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void NothingLeft(Supervisor& supervisor) {
  CHECK(ContainersOf(supervisor).empty());
  CHECK(MountsWith(supervisor.dir() + "/").empty());
  const std::string folders = supervisor.run_dir() + "/sandboxes";
  CHECK((!std::filesystem::exists(folders) || std::filesystem::is_empty(folders)));
}

TEST_SUITE("BadInput") {
  TEST_CASE("creeld says what is wrong with its surroundings, and ends with 1") {
    Supervisor supervisor;  // for its folder
    const std::string dir = supervisor.dir();
    SUBCASE("no engine") {
      const Finished ended = Start(dir, "engine:\n  host: unix://" + dir + "/no.sock\n");
      CHECK(ended.exit_code == 1);
      CHECK(Says(ended.out + ended.err, dir + "/no.sock"));
    }
    SUBCASE("malformed YAML") {
      const Finished ended = Start(dir, "sandbox: [unclosed\n");
      CHECK(ended.exit_code == 1);
      CHECK(Says(ended.out + ended.err, "bad.yaml:"));
    }
    SUBCASE("a mistyped key names the line and the nearest key") {
      const Finished ended = Start(dir, "sandbox:\n  imagge: x\n");
      CHECK(ended.exit_code == 1);
      CHECK(Says(ended.out + ended.err, "bad.yaml:5"));
      CHECK(Says(ended.out + ended.err, "image"));
    }
    SUBCASE("a runtime that the engine does not have") {
      const Finished ended = Start(dir, "sandbox:\n  runtime: nonesuch\n");
      CHECK(ended.exit_code == 1);
      CHECK(Says(ended.out + ended.err, "nonesuch"));
      CHECK(Says(ended.out + ended.err, "runc"));
    }
    SUBCASE("a second supervisor on the same state folder") {
      std::ofstream(dir + "/second.yaml")
          << "paths:\n  run_dir: " << dir << "/run3\n  state_dir: " << supervisor.state_dir()
          << "\n";
      const Finished ended = RunProgram({CREEL_TEST_CREELD, "--config", dir + "/second.yaml"}, "",
                                        std::chrono::seconds(45));
      CHECK(ended.exit_code == 1);
      CHECK(Says(ended.out + ended.err, std::to_string(supervisor.pid())));
    }
  }

  TEST_CASE("calls that cannot be are refused with what to do") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    struct Row {
      const char* name;
      std::function<void(gateway::v1::ExecStart&)> change;
      const char* says;
    };
    const std::vector<Row> rows{
        {"no command", [](auto& start) { start.mutable_spec()->clear_argv(); }, "argv"},
        {"both", [](auto& start) { start.mutable_spec()->set_shell("true"); }, "shell"},
        {"NUL", [](auto& start) { start.mutable_spec()->set_argv(0, std::string("a\0b", 3)); },
         "NUL"},
        {"an argument of 10 MB",
         [](auto& start) { start.mutable_spec()->add_argv(std::string(3 << 20, 'x')); }, "131"},
        {"a variable with =",
         [](auto& start) { (*start.mutable_spec()->mutable_env())["A=B"] = "x"; }, "="},
        {"an empty session", [](auto& start) { start.mutable_context()->set_session(""); },
         "session"},
        {"a session with an escape",
         [](auto& start) { start.mutable_context()->set_session("a\x1b[2J"); }, "session"},
        {"a bad process id", [](auto& start) { start.set_process_id("../../x"); }, "process"},
    };
    for (const Row& row : rows) {
      CAPTURE(row.name);
      const Outcome outcome = supervisor.Exec(kSession, {"true"}, row.change);
      CAPTURE(outcome.status.error_message());
      CHECK(outcome.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
      CHECK(Says(outcome.status.error_message(), row.says));
    }
    const Outcome huge = supervisor.Exec(kSession, {"echo", std::string(10 << 20, 'x')});
    CHECK_FALSE(huge.status.ok());
    // The owner's main session runs on the host, and says so.
    const Outcome main = supervisor.Exec("agent:main:main", {"true"});
    CHECK(main.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(Says(main.status.error_message(), "host"));
    // A session that is not open.
    CHECK(supervisor.Close("agent:main:telegram:dm:404").error_code() ==
          grpc::StatusCode::NOT_FOUND);
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }

  TEST_CASE("an image that is missing is named, with how to get it, and leaves nothing") {
    Supervisor supervisor({.image = "creel-no-such-image:1"});
    const grpc::Status status = supervisor.Open(kSession);
    CAPTURE(status.error_message());
    CHECK_FALSE(status.ok());
    CHECK(Says(status.error_message(), "creel-no-such-image:1"));
    NothingLeft(supervisor);
  }

  TEST_CASE("an image's own ENV, VOLUME, HEALTHCHECK, ENTRYPOINT and LD_PRELOAD do not count") {
    const std::string context =
        std::filesystem::temp_directory_path().string() + "/creel-odd-image";
    std::filesystem::create_directories(context);
    std::ofstream(context + "/Dockerfile")
        << "FROM debian:bookworm-slim\nENV LD_PRELOAD=/nonexistent.so SECRET=leak PATH=/odd\n"
           "VOLUME /data /var/lib/odd\nHEALTHCHECK CMD false\nENTRYPOINT [\"/bin/false\"]\n"
           "USER 1234\nWORKDIR /nowhere\n";
    REQUIRE(RunProgram({"docker", "build", "-q", "-t", "creel-test-odd", context}).exit_code == 0);
    Supervisor supervisor({.image = "creel-test-odd"});
    const Outcome env = supervisor.Exec(kSession, {"env"});
    CHECK(env.code() == 0);
    CHECK_FALSE(Says(env.out + env.err, "LD_PRELOAD"));
    CHECK_FALSE(Says(env.out, "SECRET"));
    CHECK_FALSE(Says(env.out, "/odd"));
    CHECK(supervisor.Shell(kSession, "echo x > /data/file").code() != 0);
    CHECK(supervisor.Shell(kSession, "pwd").out == "/workspace\n");
  }

  TEST_CASE("an image without a shell works for commands that need none") {
    const std::string context = std::filesystem::temp_directory_path().string() + "/creel-scratch";
    std::filesystem::create_directories(context);
    std::filesystem::copy_file(std::string(CREEL_TEST_PROGRAMS) + "/gain_privilege",
                               context + "/tool",
                               std::filesystem::copy_options::overwrite_existing);
    std::ofstream(context + "/Dockerfile") << "FROM scratch\nCOPY tool /tool\n";
    REQUIRE(RunProgram({"docker", "build", "-q", "-t", "creel-test-scratch", context}).exit_code ==
            0);
    Supervisor supervisor({.image = "creel-test-scratch"});
    const Outcome tool = supervisor.Exec(kSession, {"/tool"});
    CAPTURE(tool.out);
    CHECK(tool.code() == 0);
    const Outcome shell = supervisor.Shell(kSession, "echo hello");
    CHECK(shell.exit.how_case() == shim::v1::Exit::kStartFailure);
    CHECK(Says(shell.exit.start_failure().message(), "/bin/sh"));
    CHECK(supervisor.Write(kSession, "file", "x").ok());
    CHECK(supervisor.Read(kSession, "file").second == "x");
  }

  TEST_CASE("a workspace that may not be is refused by name, links resolved, and leaves nothing") {
    Supervisor probe;
    const std::string root = probe.dir() + "/allowed";
    std::filesystem::create_directories(root + "/good");
    std::filesystem::create_directories(root + "/.ssh");
    chmod(probe.dir().c_str(), 0755);
    std::filesystem::create_symlink("/etc", root + "/etc-link");
    std::filesystem::create_symlink("/", root + "/slash");
    std::ofstream(root + "/plain") << "x";
    REQUIRE(chown((root + "/good").c_str(), 1000, 1000) == 0);
    Supervisor supervisor(
        {.sandbox_config = "  workspace_access: rw\n  workspace_roots: [" + root + "]\n"});
    const std::vector<std::string> bad{"/",
                                       "/etc",
                                       "/proc",
                                       "/var/run",
                                       "/root",
                                       root + "/etc-link",
                                       root + "/slash",
                                       root + "/slash/etc",
                                       root + "/../..",
                                       root + "/plain",
                                       root + "/missing",
                                       root + "/.ssh",
                                       supervisor.state_dir(),
                                       supervisor.run_dir(),
                                       "relative/path"};
    for (const std::string& folder : bad) {
      CAPTURE(folder);
      const grpc::Status status = supervisor.Open(kSession, nullptr, [&](auto& request) {
        request.set_workspace(folder);
        request.set_workspace_access(gateway::v1::WORKSPACE_ACCESS_READ_WRITE);
      });
      CAPTURE(status.error_message());
      CHECK_FALSE(status.ok());
      CHECK(status.error_message().size() > 20);
    }
    NothingLeft(supervisor);

    // The good one: files belong to whom they should, on both sides.
    const grpc::Status status = supervisor.Open(kSession, nullptr, [&](auto& request) {
      request.set_workspace(root + "/good");
      request.set_workspace_access(gateway::v1::WORKSPACE_ACCESS_READ_WRITE);
    });
    CAPTURE(status.error_message());
    REQUIRE(status.ok());
    CHECK(
        supervisor.Shell(kSession, "echo from inside > inside; stat -c %u inside; id -u").code() ==
        0);
    struct stat info {};
    REQUIRE(stat((root + "/good/inside").c_str(), &info) == 0);
    CHECK(info.st_uid == 1000);
    const Outcome ids =
        supervisor.Shell(kSession, "[ $(stat -c %u inside) = $(id -u) ] && echo same");
    CHECK(ids.out == "same\n");
    // The same with other settings is refused while it is open.
    CHECK(supervisor
              .Open(kSession, nullptr,
                    [&](auto& request) {
                      request.set_workspace(root + "/good");
                      request.set_workspace_access(gateway::v1::WORKSPACE_ACCESS_READ_ONLY);
                    })
              .error_code() == grpc::StatusCode::ALREADY_EXISTS);
    REQUIRE(supervisor.Close(kSession).ok());
    CHECK(std::filesystem::exists(root + "/good/inside"));

    REQUIRE(supervisor
                .Open(kSession, nullptr,
                      [&](auto& request) {
                        request.set_workspace(root + "/good");
                        request.set_workspace_access(gateway::v1::WORKSPACE_ACCESS_READ_ONLY);
                      })
                .ok());
    CHECK(supervisor.Read(kSession, "inside").second == "from inside\n");
    CHECK(supervisor.Shell(kSession, "echo x > new").code() != 0);
    CHECK_FALSE(supervisor.Write(kSession, "inside", "x").ok());
  }

  TEST_CASE("limits on how many are told, with what to do") {
    Supervisor supervisor({.extra_config =
                               "sessions:\n  max: 2\n  max_per_sender: 1\n  opens_per_minute: 100\n"
                               "  warm_pool: {size: 0}\n"
                               "levels: {friend: {members: ['whatsapp:+15555550001', "
                               "'whatsapp:+15555550002', 'whatsapp:+15555550003']}}\n"});
    const auto as = [](const char* sender) {
      return [sender](auto& request) { request.mutable_context()->set_sender(sender); };
    };
    REQUIRE(supervisor.Open("agent:main:whatsapp:dm:1", nullptr, as("whatsapp:+15555550001")).ok());
    const grpc::Status per_sender =
        supervisor.Open("agent:main:whatsapp:dm:2", nullptr, as("whatsapp:+15555550001"));
    CHECK(per_sender.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    REQUIRE(supervisor.Open("agent:main:whatsapp:dm:3", nullptr, as("whatsapp:+15555550002")).ok());
    const grpc::Status all =
        supervisor.Open("agent:main:whatsapp:dm:4", nullptr, as("whatsapp:+15555550003"));
    CHECK(all.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(Says(all.error_message(), "2"));
    CHECK(ContainersOf(supervisor).size() == 2);
  }
}

}  // namespace
}  // namespace creel::testing
