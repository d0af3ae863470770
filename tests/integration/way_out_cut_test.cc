// What a sandbox may no longer reach is cut at once: open tunnels, from a real container to real
// servers, when a level falls, when the file is read again, and in read-only mode.
#include <doctest/doctest.h>

#include <chrono>
#include <fstream>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/integration/support/network.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kFriend[] = "whatsapp:+15550000003";
constexpr char kStranger[] = "whatsapp:+15559999999";

// Opens a tunnel to each name that is given, says so, and tells which of them are cut until all
// that are to be are, or none is for a minute.
constexpr char kTunnels[] = R"py(
import select, socket, ssl, sys, time
names, expected = sys.argv[2:], int(sys.argv[1])
context = ssl.create_default_context(cafile='ca.pem')
held = {}
for name in names:
    s = socket.create_connection(('127.0.0.1', 3128))
    s.settimeout(30)
    s.sendall(b'CONNECT %s:443 HTTP/1.1\r\n\r\n' % name.encode())
    head = b''
    while b'\r\n\r\n' not in head:
        more = s.recv(1)
        if not more: sys.exit('no tunnel: %r' % head)
        head += more
    if b' 200 ' not in head: sys.exit(head.decode())
    tls = context.wrap_socket(s, server_hostname=name)
    # What is readable may be the server's tickets and no data.
    tls.setblocking(False)
    held[tls] = name
print('open', flush=True)
cut, end = [], time.time() + 60
while len(cut) < expected and time.time() < end:
    for tls in select.select(list(held), [], [], 1)[0]:
        try: data = tls.recv(100)
        except ssl.SSLWantReadError: continue
        except OSError: data = b''
        if not data: cut.append(held.pop(tls))
# What is left still carries.
for tls, name in held.items():
    tls.settimeout(30)
    tls.sendall(b'GET /x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % name.encode())
    got = b''
    while True:
        more = tls.recv(1000)
        if not more: break
        got += more
    if b'hello from outside' in got: cut.append(name + ' goes on')
print(*cut)
)py";

struct World {
  World() {
    config =
        "levels: {friend: {members: ['whatsapp:+15550000003']}}\n"
        "egress:\n"
        "  resolvers: [192.0.2.53]\n"
        "  hosts:\n"
        "    - {name: allowed.example, levels: [friend]}\n"
        "    - {name: git.example, levels: [friend, stranger]}\n"
        "    - {name: api.example, levels: [friend], in_read_only: true}\n";
    supervisor = std::make_unique<Supervisor>(SupervisorOptions{.extra_config = config});
  }
  // A session with the program in it.
  void Prepare(const std::string& session) {
    std::ifstream ca(outside.ca());
    const std::string pem(std::istreambuf_iterator<char>(ca), {});
    const bool ready = supervisor->Write(session, "ca.pem", pem).ok() &&
                       supervisor->Write(session, "tunnels.py", kTunnels).ok();
    if (!ready) {
      throw std::runtime_error("no sandbox: " + supervisor->Log());
    }
  }
  // Starts the program, and returns when its tunnels are open.
  std::future<Outcome> Hold(const std::string& session, int expected,
                            const std::vector<std::string>& names) {
    Prepare(session);
    outside.Forget();
    std::vector<std::string> argv{"python3", "tunnels.py", std::to_string(expected)};
    argv.insert(argv.end(), names.begin(), names.end());
    std::future<Outcome> outcome = std::async(std::launch::async, [this, session, argv] {
      return supervisor->Exec(
          session, argv,
          [](gateway::v1::ExecStart& start) { start.mutable_context()->set_sender(kFriend); }, "",
          std::chrono::seconds(120));
    });
    const bool open = Eventually(
        [&] {
          // Decided and not ended, each.
          const std::string log = Creel({"egress", "log", session, "-n", "100"}).out;
          return outside.Seen("tcp web-tls").size() >= names.size() &&
                 log.find(" ended ") == std::string::npos;
        },
        std::chrono::seconds(60));
    CHECK(open);
    return outcome;
  }
  Finished Creel(const std::vector<std::string>& words) const { return supervisor->Creel(words); }

  Outside outside;
  std::string config;
  std::unique_ptr<Supervisor> supervisor;
};

World& TheWorld() {
  static World world;
  return world;
}

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

bool LogTells(const std::string& session, const std::string& part) {
  return Eventually([&] {
    return Holds(TheWorld().Creel({"egress", "log", session, "-n", "100"}).out, part);
  });
}

TEST_SUITE("EgressCuts") {
  TEST_CASE("a stranger who comes costs the sandbox what only friends may reach") {
    World& world = TheWorld();
    const std::string session = "agent:main:whatsapp:group:1";
    std::future<Outcome> held = world.Hold(session, 1, {"allowed.example", "git.example"});
    // Refused, and it counts all the same.
    const Outcome refused = world.supervisor->Exec(
        session, {"true"},
        [](gateway::v1::ExecStart& start) { start.mutable_context()->set_sender(kStranger); });
    CHECK_FALSE(refused.status.ok());
    const auto began = std::chrono::steady_clock::now();
    const Outcome outcome = held.get();
    CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(30));
    CAPTURE(outcome.err);
    CHECK(outcome.out == "open\nallowed.example git.example goes on\n");
    CHECK(LogTells(session, "cut: host allowed.example: it is not for sandboxes of level"));
    // New ones are refused, and explained alike.
    const Finished explained =
        world.Creel({"egress", "explain", "https://allowed.example/", "--session", session});
    CHECK(Holds(explained.out, "refused for level 'stranger'"));
    CHECK(world.Creel({"egress", "test", "https://allowed.example/", "--session", session})
              .exit_code == 1);
    CHECK(world.Creel({"egress", "test", "https://git.example/", "--session", session}).exit_code ==
          0);
    const std::string record =
        world.Creel({"audit", "show", "--json", "--event", "egress.ended", "-n", "100"}).out;
    CHECK(Holds(record, "cut: host allowed.example"));
  }

  TEST_CASE("a file that is read again takes away what it no longer allows") {
    World& world = TheWorld();
    const std::string session = "agent:main:whatsapp:group:2";
    std::future<Outcome> held = world.Hold(session, 1, {"allowed.example", "git.example"});
    const std::string file = world.supervisor->dir() + "/creel.yaml";
    std::ifstream stream(file);
    const std::string before((std::istreambuf_iterator<char>(stream)), {});
    std::string after = before;
    const std::string rule = "    - {name: allowed.example, levels: [friend]}\n";
    REQUIRE(Holds(after, rule));
    after.erase(after.find(rule), rule.size());
    std::ofstream(file) << after;
    const Finished reloaded = world.Creel({"policy", "reload"});
    CHECK(reloaded.exit_code == 0);
    CHECK(Holds(reloaded.out, "egress"));
    const Outcome outcome = held.get();
    CAPTURE(outcome.err);
    CHECK(outcome.out == "open\nallowed.example git.example goes on\n");
    std::ofstream(file) << before;
    CHECK(world.Creel({"policy", "reload"}).exit_code == 0);
  }

  TEST_CASE("read-only mode cuts at once, but where the rule says that it goes on") {
    World& world = TheWorld();
    const std::string session = "agent:main:whatsapp:group:3";
    std::future<Outcome> held = world.Hold(session, 1, {"allowed.example", "api.example"});
    REQUIRE(world.Creel({"read-only", "on", "--session", session}).exit_code == 0);
    CHECK(LogTells(session, "cut: host allowed.example: read-only mode is on"));
    const auto explain = [&](const std::string& url) {
      return world.Creel({"egress", "explain", url, "--session", session}).out;
    };
    CHECK(Holds(explain("https://allowed.example/"), "read-only mode is on"));
    CHECK_FALSE(Holds(explain("https://api.example/"), "read-only mode is on"));
    const std::string log = world.Creel({"egress", "log", session, "-n", "100"}).out;
    CHECK_FALSE(Holds(log, "cut: host api.example"));
    REQUIRE(world.Creel({"read-only", "off", "--session", session}).exit_code == 0);
    CHECK_FALSE(Holds(explain("https://allowed.example/"), "read-only mode is on"));
    // The command itself is ended by read-only mode, a moment after the cut.
    static_cast<void>(held.get());
  }
}

}  // namespace
}  // namespace creel::testing
