// Credentials that Creel adds for sandboxes: listed, revoked, masked; and the ways out that
// freezing, incidents and closing cut.
#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/audit/line.h"
#include "supervisor/base/unique_fd.h"
#include "tests/integration/support/incidents.h"

namespace creel::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";
constexpr char kKey[] = "k3y-0f-the-0perator-51";

// An API on a Unix socket. `/stream` sends until the other side is gone; all else says hello.
class Upstream {
 public:
  explicit Upstream(std::string path) : path_(std::move(path)) {
    listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
    REQUIRE(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(listen(listener_.get(), 64) == 0);
    thread_ = std::thread([this] { Accept(); });
  }
  ~Upstream() {
    stop_ = true;
    thread_.join();
    for (std::thread& each : served_) {
      each.join();
    }
  }

  [[nodiscard]] int requests() const { return requests_; }
  [[nodiscard]] int streaming() const { return streaming_; }
  [[nodiscard]] std::string last() {
    const std::lock_guard<std::mutex> hold(mu_);
    return last_;
  }

 private:
  void Accept() {
    while (!stop_) {
      pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, 50) <= 0) {
        continue;
      }
      const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0) {
        served_.emplace_back([this, socket = UniqueFd(fd)] { Serve(socket.get()); });
      }
    }
  }
  void Serve(int fd) {
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
      if (stop_ || poll(&ready, 1, 50) < 0) {
        return;
      }
      if (ready.revents == 0) {
        continue;
      }
      const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
      if (got <= 0) {
        return;
      }
      head.append(buffer, static_cast<size_t>(got));
    }
    ++requests_;
    {
      const std::lock_guard<std::mutex> hold(mu_);
      last_ = head;
    }
    const auto say = [fd](const std::string& text) {
      return send(fd, text.data(), text.size(), MSG_NOSIGNAL) > 0;
    };
    if (head.find(" /stream") == std::string::npos) {
      say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
      return;
    }
    say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    ++streaming_;
    while (!stop_ && say("more\n")) {
      std::this_thread::sleep_for(milliseconds(20));
    }
    --streaming_;
  }

  const std::string path_;
  UniqueFd listener_;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::atomic<int> streaming_{0};
  std::mutex mu_;
  std::string last_;
  std::vector<std::thread> served_;
  std::thread thread_;
};

// A folder with an API and its key, made before the supervisor whose configuration names them.
struct World {
  World() {
    std::string pattern = "/tmp/creel-secrets-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder = pattern;
    std::ofstream(folder + "/key") << kKey << "\n";
    std::ofstream(folder + "/more") << "OTHER=another-kn0wn-secret\n";
    upstream = std::make_unique<Upstream>(folder + "/api.sock");
    supervisor = std::make_unique<Supervisor>(SupervisorOptions{
        .extra_config =
            "egress:\n  services:\n    - name: api\n      url: unix://" + folder +
            "/api.sock\n      sessions: ['*']\n      credential: {bearer: true, file: " + folder +
            "/key}\n      allow: [{methods: [GET], path: /**}]\n"
            "replies:\n  secret_files: [" +
            folder + "/more]\n"});
  }
  ~World() {
    supervisor.reset();
    upstream.reset();
    std::filesystem::remove_all(folder);
  }
  // The status that a request gets from inside.
  std::string Ask(const std::string& path = "/x") {
    return supervisor
        ->Shell(kSession, "curl -sS -m 20 -o /dev/null -w '%{http_code}' http://api.creel" + path)
        .out;
  }
  std::string folder;
  std::unique_ptr<Upstream> upstream;
  std::unique_ptr<Supervisor> supervisor;
};

std::string AllOf(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) {
    all += line + "\n";
  }
  return all;
}

TEST_SUITE("Secrets") {
  TEST_CASE("listed with who used it last, and never with its value") {
    World world;
    CHECK(world.Ask() == "200");
    CHECK(world.upstream->last().find(std::string("Bearer ") + kKey) != std::string::npos);
    const Finished list = world.supervisor->Creel({"secrets", "list"});
    CAPTURE(list.out);
    CHECK(list.exit_code == 0);
    CHECK(list.out.find("api") != std::string::npos);
    CHECK(list.out.find("file " + world.folder + "/key") != std::string::npos);
    CHECK(list.out.find(kSession) != std::string::npos);
    CHECK(list.out.find(kKey) == std::string::npos);
    const Finished json = world.supervisor->Creel({"--json", "secrets", "list"});
    CHECK(json.out.find("\"last_session\":\"" + std::string(kSession)) != std::string::npos);
    CHECK(json.out.find(kKey) == std::string::npos);
  }

  TEST_CASE("revoked at once, over restarts, and told in the record; then restored") {
    World world;
    CHECK(world.Ask() == "200");
    CHECK(world.supervisor->Creel({"secrets", "revoke", "none"}).exit_code == 1);
    // What goes on with it ends, too.
    auto streaming = std::async(std::launch::async, [&] {
      return world.supervisor->Shell(kSession, "curl -sS -m 60 http://api.creel/stream >/dev/null");
    });
    REQUIRE(Eventually([&] { return world.upstream->streaming() == 1; }));
    const int before = world.upstream->requests();
    const Finished revoked = world.supervisor->Creel({"secrets", "revoke", "api"});
    CAPTURE(revoked.err);
    CHECK(revoked.exit_code == 0);
    CHECK(Eventually([&] { return world.upstream->streaming() == 0; }));
    CHECK(streaming.get().code() != 0);
    CHECK(world.Ask() == "503");
    world.supervisor->Restart(SIGKILL);
    CHECK(world.Ask() == "503");
    // A lost database does not bring it back.
    world.supervisor->Stop(SIGTERM);
    for (const char* name : {"/creel.db", "/creel.db-wal", "/creel.db-shm"}) {
      std::filesystem::remove(world.supervisor->state_dir() + name);
    }
    world.supervisor->StartAgain();
    CHECK(world.supervisor->Creel({"secrets", "list"}).out.find("revoked") != std::string::npos);
    CHECK(world.supervisor
              ->Shell("agent:main:dm:2",
                      "curl -sS -m 20 -o /dev/null -w '%{http_code}' http://api.creel/x")
              .out == "503");
    CHECK(world.upstream->requests() == before);
    operator_::v1::ReadRecordRequest told;
    told.set_event("secret.revoked");
    CHECK(Operators(*world.supervisor).Lines(told).size() == 1);

    std::ofstream(world.folder + "/key") << "a-new-key-that-was-made\n";
    CHECK(world.supervisor->Creel({"secrets", "restore", "api"}).exit_code == 0);
    CHECK(world.supervisor
              ->Shell("agent:main:dm:2",
                      "curl -sS -m 20 -o /dev/null -w '%{http_code}' http://api.creel/x")
              .out == "200");
    CHECK(world.upstream->last().find("Bearer a-new-key-that-was-made") != std::string::npos);
  }

  TEST_CASE("known values are masked wherever the record has text") {
    World world;
    // The operator pasted them into the chat, say.
    REQUIRE(world.supervisor
                ->Shell(kSession, std::string("echo ") + kKey + "; echo another-kn0wn-secret")
                .code() == 0);
    REQUIRE(world.supervisor->Creel({"freeze", kSession, "--reason", std::string("saw ") + kKey})
                .exit_code == 0);
    REQUIRE(world.supervisor->Creel({"thaw", kSession}).exit_code == 0);
    // One that is cut off by the length of a summary does not show its beginning.
    for (int pad = 200; pad < 260; pad += 7) {
      REQUIRE(world.supervisor
                  ->Shell(kSession, ": " + std::string(static_cast<size_t>(pad), 'x') + kKey)
                  .code() == 0);
    }
    Operators operators(*world.supervisor);
    const std::string record = AllOf(operators.Lines());
    CHECK(record.find(kKey) == std::string::npos);
    CHECK(record.find(std::string(kKey).substr(0, 8)) == std::string::npos);
    CHECK(record.find("another-kn0wn-secret") == std::string::npos);
    CHECK(record.find("[secret api]") != std::string::npos);
    CHECK(record.find("[secret more]") != std::string::npos);
    // What a command wrote: its size, its digest, and a beginning of it.
    operator_::v1::ReadRecordRequest ended;
    ended.set_event("process.ended");
    const std::vector<std::string> lines = operators.Lines(ended);
    REQUIRE_FALSE(lines.empty());
    CHECK(FieldOf(lines[0], "bytes") == "44");
    CHECK(FieldOf(lines[0], "sha256") ==
          RunProgram({"sh", "-c",
                      std::string("printf '%s\\n' ") + kKey +
                          " another-kn0wn-secret | sha256sum | cut -c1-64 | tr -d '\\n'"})
              .out);
    CHECK(FieldOf(lines[0], "head").value_or("").find("[secret api]") != std::string::npos);
    // The report names it, and says what to do.
    REQUIRE(operators.Open(About(kSession)).first.ok());
    REQUIRE(operators.Capture("1").first.ok());
    const std::string report = world.supervisor->Creel({"incident", "report", "1"}).out;
    CAPTURE(report);
    CHECK(report.find("creel secrets revoke api") != std::string::npos);
    CHECK(report.find("in what a command wrote") != std::string::npos);
    CHECK(report.find(kKey) == std::string::npos);
  }

  TEST_CASE("freezing, an incident's gate and closing cut the way out at once") {
    World world;
    const auto stream = [&](const std::string& session) {
      REQUIRE(world.supervisor
                  ->Shell(session, "curl -sS -m 300 http://api.creel/stream >/dev/null 2>&1 &")
                  .code() == 0);
      REQUIRE(Eventually([&] { return world.upstream->streaming() == 1; }));
    };
    stream(kSession);
    REQUIRE(world.supervisor->Creel({"freeze", kSession, "--reason", "odd"}).exit_code == 0);
    CHECK(Eventually([&] { return world.upstream->streaming() == 0; }, seconds(5)));
    REQUIRE(world.supervisor->Creel({"thaw", kSession}).exit_code == 0);
    CHECK(world.Ask() == "200");

    Operators operators(*world.supervisor);
    for (const bool all : {false, true}) {
      CAPTURE(all);
      stream(kSession);
      const auto [status, opened] = operators.Open(About(all ? "" : kSession));
      REQUIRE(status.ok());
      CHECK(Eventually([&] { return world.upstream->streaming() == 0; }, seconds(5)));
      // The operator's own hand does not undo what the incident holds.
      CHECK(world.supervisor->Creel({"thaw", kSession}).exit_code == 1);
      world.supervisor->Restart(SIGKILL);
      CHECK(Operators(*world.supervisor).Thaw(opened.incident().id()).ok());
      CHECK(world.Ask() == "200");
      operators = Operators(*world.supervisor);
    }

    stream(kSession);
    REQUIRE(world.supervisor->Close(kSession).ok());
    CHECK(Eventually([&] { return world.upstream->streaming() == 0; }, seconds(5)));
    // A new sandbox of that name has its way out.
    CHECK(world.Ask() == "200");
  }
}

}  // namespace
}  // namespace creel::testing
