// The record of a real supervisor: what it tells, and that nothing is done that it does not.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "supervisor/audit/line.h"
#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

std::string FieldIn(const std::string& line, const char* key) {
  return FieldOf(line, key).value_or("");
}

TEST_SUITE("Record") {
  TEST_CASE("calls, sessions and the operator's acts are told, in order") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"sh", "-c", "exit 3"}).code() == 3);
    CHECK_FALSE(supervisor.Exec("agent:main:main", {"true"}).status.ok());
    CHECK(supervisor.Creel({"freeze", kSession, "--reason", "odd"}).exit_code == 0);
    CHECK(supervisor.Creel({"thaw", kSession}).exit_code == 0);
    CHECK(supervisor.Creel({"close", kSession}).exit_code == 0);
    std::vector<std::string> told;
    std::string all;
    for (const std::string& line : Operators(supervisor).Lines()) {
      told.push_back(FieldIn(line, "event"));
      all += told.back() + " ";
    }
    size_t at = 0;
    for (const char* wanted :
         {"record.began", "supervisor.started", "call.allowed", "session.opening", "session.opened",
          "call.ended", "call.denied", "operator.act", "session.freezing", "session.frozen",
          "operator.act", "session.thawed", "operator.act", "session.closing", "session.closed"}) {
      const auto found = std::find(told.begin() + static_cast<long>(at), told.end(), wanted);
      const std::string next = wanted;
      CAPTURE(next);
      CAPTURE(all);
      REQUIRE(found != told.end());
      at = static_cast<size_t>(found - told.begin()) + 1;
    }
    CHECK(Operators(supervisor).Verify().sound());
  }

  TEST_CASE("the command shows, filters, exports, checks, and follows") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    REQUIRE(supervisor.Exec("agent:main:dm:2", {"true"}).code() == 0);
    const Finished shown =
        supervisor.Creel({"audit", "show", "--session", kSession, "--event", "call.allowed"});
    CHECK(shown.exit_code == 0);
    CHECK(shown.out.find("call.allowed") != std::string::npos);
    CHECK(shown.out.find("agent:main:dm:2") == std::string::npos);
    CHECK(supervisor.Creel({"audit", "show", "--verdict", "deny"}).out.empty());
    const Finished sound = supervisor.Creel({"audit", "verify"});
    CHECK(sound.exit_code == 0);
    CHECK(sound.out.find("sound:") != std::string::npos);

    const std::string exported = supervisor.dir() + "/export.jsonl";
    const std::string key = supervisor.dir() + "/key.pub";
    CHECK(supervisor.Creel({"audit", "export", exported}).exit_code == 0);
    std::ofstream(key) << supervisor.Creel({"audit", "key"}).out;
    CHECK(RunProgram({CREEL_TEST_VERIFY, "record", exported, "--key", key}).exit_code == 0);
    // Without creeld, on the files themselves.
    supervisor.Stop(SIGKILL);
    CHECK(supervisor
              .Creel(
                  {"audit", "verify", "--folder", supervisor.state_dir() + "/record", "--key", key})
              .exit_code == 0);
    supervisor.StartAgain();
    CHECK(supervisor.Creel({"audit", "verify"}).exit_code == 0);
  }

  TEST_CASE("a line changed on the disk is named by the command") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    std::string path;
    for (const auto& entry : fs::directory_iterator(supervisor.state_dir() + "/record")) {
      if (entry.path().filename().string().starts_with("record-")) {
        path = entry.path();
      }
    }
    std::string text;
    {
      std::ifstream file(path);
      std::getline(file, text, '\0');
    }
    const size_t at = text.find("\"tool\":\"exec\"");
    REQUIRE(at != std::string::npos);
    const auto seq = 1 + std::count(text.begin(), text.begin() + static_cast<long>(at), '\n');
    text.replace(at, 13, "\"tool\":\"list\"");
    std::ofstream(path) << text;
    const Finished bad = supervisor.Creel({"audit", "verify"});
    CHECK(bad.exit_code == 1);
    CHECK(bad.out.find("record " + std::to_string(seq) + " was changed") != std::string::npos);
  }

  TEST_CASE("a full disk stops tool calls with that reason, and room lets them go on") {
    Supervisor supervisor;
    const Outcome first = supervisor.Exec(kSession, {"true"});
    CAPTURE(first.status.error_message());
    CAPTURE(first.exit.lost());
    REQUIRE(first.code() == 0);
    supervisor.Stop(SIGTERM);
    // The record's folder becomes a small disk of its own.
    const std::string record = supervisor.state_dir() + "/record";
    const std::string kept = supervisor.dir() + "/kept";
    fs::rename(record, kept);
    fs::create_directory(record);
    REQUIRE(::mount("creel-test", record.c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                    "size=256k,mode=0700") == 0);
    for (const auto& entry : fs::directory_iterator(kept)) {
      fs::copy(entry.path(), record + "/" + entry.path().filename().string());
    }
    fs::permissions(record + "/signing-key.pem", fs::perms(0600));
    supervisor.StartAgain();
    REQUIRE(supervisor.Exec(kSession, {"touch", "before"}).code() == 0);
    {
      std::ofstream ballast(record + "/ballast", std::ios::binary);
      const std::string piece(1024, 'x');
      while (ballast.write(piece.data(), 1024) && ballast.flush()) {
      }
    }
    Outcome refused;
    // What room the last page of the file still has is used up first.
    const bool stopped = Eventually([&] {
      refused = supervisor.Exec(kSession, {"true"});
      return !refused.status.ok();
    });
    CHECK(stopped);
    CHECK(refused.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(refused.status.error_message().find("No space left") != std::string::npos);
    // Nothing was done: not even a session that is not open yet.
    CHECK_FALSE(supervisor.Exec("agent:main:dm:new", {"true"}).status.ok());
    CHECK(ContainersOf(supervisor).size() == 1);
    // The operator still can stop things.
    CHECK(supervisor.Creel({"freeze", kSession, "--reason", "while the disk is full"}).exit_code ==
          0);
    CHECK(supervisor.Creel({"thaw", kSession}).exit_code == 0);
    fs::remove(record + "/ballast");
    CHECK(Eventually([&] { return supervisor.Exec(kSession, {"true"}).code() == 0; }));
    Operators operators(supervisor);
    const auto verified = operators.Verify();
    CAPTURE(verified.problem());
    CHECK(verified.sound());
    operator_::v1::ReadRecordRequest request;
    request.set_event("record.resumed");
    CHECK(operators.Lines(request).size() >= 1);
    request.set_event("session.frozen");
    CHECK(operators.Lines(request).size() == 1);
  }

  TEST_CASE("a disk that turns read-only stops tool calls with that reason; freezing still works") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    supervisor.Stop(SIGTERM);
    // The record's folder becomes a disk of its own, which its file system makes read-only on the
    // first error.
    const std::string record = supervisor.state_dir() + "/record";
    const std::string kept = supervisor.dir() + "/kept";
    const std::string image = supervisor.dir() + "/disk.img";
    fs::rename(record, kept);
    fs::create_directory(record);
    std::ofstream(image).close();
    fs::resize_file(image, 16 << 20);
    REQUIRE(RunProgram({"mkfs.ext4", "-q", "-F", image}).exit_code == 0);
    REQUIRE(RunProgram({"mount", "-o", "loop,errors=remount-ro", image, record}).exit_code == 0);
    for (const auto& entry : fs::directory_iterator(kept)) {
      fs::copy(entry.path(), record + "/" + entry.path().filename().string());
    }
    fs::permissions(record, fs::perms(0700));
    fs::permissions(record + "/signing-key.pem", fs::perms(0600));
    REQUIRE(RunProgram({"sync", "-f", record}).exit_code == 0);
    supervisor.StartAgain();
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const std::string device = RunProgram({"findmnt", "-n", "-o", "SOURCE", record}).out;
    REQUIRE(device.starts_with("/dev/loop"));
    std::ofstream("/sys/fs/ext4/" + device.substr(5, device.find('\n') - 5) + "/trigger_fs_error")
        << "the case wants it";
    Outcome refused;
    CHECK(Eventually([&] {
      refused = supervisor.Exec(kSession, {"true"});
      return !refused.status.ok();
    }));
    CHECK(refused.status.error_message().find("Read-only file system") != std::string::npos);
    CHECK_FALSE(supervisor.Exec("agent:main:dm:new", {"true"}).status.ok());
    CHECK(ContainersOf(supervisor).size() == 1);
    CHECK(supervisor.Creel({"freeze", kSession, "--reason", "while nothing can be written"})
              .exit_code == 0);
    CHECK(supervisor.Creel({"thaw", kSession}).exit_code == 0);
    // Mended: what was written before is there, and it goes on.
    supervisor.Stop(SIGTERM);
    REQUIRE(RunProgram({"umount", record}).exit_code == 0);
    static_cast<void>(RunProgram({"e2fsck", "-p", "-f", image}));
    REQUIRE(RunProgram({"mount", "-o", "loop", image, record}).exit_code == 0);
    supervisor.StartAgain();
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
    CHECK(Operators(supervisor).Verify().sound());
    supervisor.Close(kSession);
    supervisor.Stop(SIGTERM);
    CHECK(RunProgram({"umount", record}).exit_code == 0);
    supervisor.StartAgain();
  }

  TEST_CASE("a second supervisor on the same folders refuses, and the first goes on") {
    Supervisor supervisor;
    REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    const Finished second = RunProgram(
        {CREEL_TEST_CREELD, "--config", supervisor.dir() + "/creel.yaml", "--engine-wait", "0"});
    CHECK(second.exit_code == 1);
    CHECK((second.out + second.err).find("another creeld") != std::string::npos);
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
    CHECK(Operators(supervisor).Verify().sound());
  }

  TEST_CASE("a tail that is gone at a start is told, and stays told") {
    Supervisor supervisor;
    for (int i = 0; i < 5; ++i) {
      REQUIRE(supervisor.Exec(kSession, {"true"}).code() == 0);
    }
    supervisor.Stop(SIGTERM);
    for (const auto& entry : fs::directory_iterator(supervisor.state_dir() + "/record")) {
      if (entry.path().filename().string().starts_with("record-")) {
        std::string text;
        {
          std::ifstream file(entry.path());
          std::getline(file, text, '\0');
        }
        text.resize(text.rfind('\n', text.size() / 2) + 1);
        std::ofstream(entry.path()) << text;
      }
    }
    supervisor.StartAgain();
    CHECK(supervisor.Creel({"audit", "verify"}).exit_code == 1);
    CHECK(supervisor.Creel({"doctor"}).out.find("record-start") != std::string::npos);
    CHECK(supervisor.Exec(kSession, {"true"}).code() == 0);
  }
}

}  // namespace
}  // namespace creel::testing
