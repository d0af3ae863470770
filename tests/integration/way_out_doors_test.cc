// The doors of the way out: a tool gets neither at its own sandbox's, nor at another's, nor at the
// supervisor's.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "supervisor/base/unique_fd.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kSession[] = "agent:main:whatsapp:group:120363";
constexpr char kOther[] = "agent:main:telegram:dm:42";

struct World {
  World() {
    for (const char* session : {kSession, kOther}) {
      if (!supervisor.Write(session, "x", "x").ok()) {
        throw std::runtime_error("no sandbox: " + supervisor.Log());
      }
    }
  }
  // A python program's output, both streams.
  std::string Python(const std::string& program) {
    if (!supervisor.Write(kSession, "program.py", program).ok()) {
      return "not written";
    }
    const Outcome outcome =
        supervisor.Shell(kSession, "python3 program.py 2>&1", std::chrono::seconds(90));
    return outcome.out + outcome.err;
  }

  Supervisor supervisor{SupervisorOptions{
      .extra_config = "egress:\n  services:\n    - name: api\n      url: http://127.0.0.1:9\n"
                      "      sessions: ['*']\n      allow: [{path: /**}]\n"}};
};

World& TheWorld() {
  static World world;
  return world;
}

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_SUITE("WayOutDoors") {
  TEST_CASE("the sockets of the link, of other sandboxes and of the supervisor are shut to tools") {
    World& world = TheWorld();
    const std::string out = world.Python(
        "import os, socket\n"
        "for name in ('/run/creel/egress.sock', '/run/creel/shim.sock',\n"
        "             '" +
        world.supervisor.run_dir() +
        "/operator.sock',\n"
        "             '" +
        world.supervisor.run_dir() +
        "/gateway.sock',\n"
        "             '/var/run/docker.sock'):\n"
        "    s = socket.socket(socket.AF_UNIX)\n"
        "    try:\n"
        "        s.connect(name)\n"
        "        print('BROKE', name)\n"
        "    except OSError as e: print(type(e).__name__)\n"
        "print(sorted(os.listdir('/run/creel')))\n");
    CHECK(out ==
          "PermissionError\nFileNotFoundError\nFileNotFoundError\nFileNotFoundError\n"
          "FileNotFoundError\n['egress.sock']\n");
    const std::string taken = world.Python(
        "import socket\n"
        "for port in (3128, 1080):\n"
        "    s = socket.socket()\n"
        "    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "    try:\n"
        "        s.bind(('127.0.0.1', port))\n"
        "        s.listen()\n"
        "        print('BROKE')\n"
        "    except OSError as e: print(e.errno)\n");
    CHECK(taken == "98\n98\n");
  }

  TEST_CASE("another sandbox's way out and the supervisor's doors are not found from inside") {
    World& world = TheWorld();
    // Every socket of this supervisor, and a name without a file, on the host: all are there.
    std::vector<std::string> sockets;
    for (const auto& each : std::filesystem::recursive_directory_iterator(
             world.supervisor.dir(), std::filesystem::directory_options::skip_permission_denied)) {
      if (each.is_socket()) {
        sockets.push_back(each.path());
      }
    }
    const std::string other = world.supervisor.Get(kOther).sandbox_id();
    const auto ways_out =
        std::count_if(sockets.begin(), sockets.end(),
                      [](const std::string& path) { return path.ends_with("/egress.sock"); });
    CHECK(ways_out == 2);
    CHECK(std::any_of(sockets.begin(), sockets.end(), [&](const std::string& path) {
      return Holds(path, other) && path.ends_with("/egress.sock");
    }));
    CHECK(std::any_of(sockets.begin(), sockets.end(),
                      [](const std::string& path) { return path.ends_with("/operator.sock"); }));
    const std::string name = "creel-test-" + world.supervisor.Get(kSession).sandbox_id();
    const UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(listen(listener.get(), 8) == 0);
    const UniqueFd caller(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(connect(caller.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);

    std::string paths;
    for (const std::string& path : sockets) {
      paths += path + "\n";
    }
    REQUIRE(world.supervisor.Write(kSession, "sockets.txt", paths).ok());
    const std::string before = world.supervisor.Creel({"egress", "log", kOther, "-n", "1000"}).out;
    const std::string out = world.Python(R"py(
import glob, os, socket
def attempt(name):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    try:
        s.connect(name)
        s.sendall(b'GET http://api.creel/x HTTP/1.1\r\nHost: api.creel\r\n\r\n')
        return 'connected'
    except OSError as e: return type(e).__name__
    finally: s.close()
# What is there to be reached is reached by this.
for own in ('/tmp/own.sock', '\0own'):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(own)
    listener.listen()
    print(attempt(own))
os.remove('/tmp/own.sock')
there = open('sockets.txt').read().split()
roots = [''] + glob.glob('/proc/[0-9]*/root') + glob.glob('/proc/[0-9]*/cwd') + \
    ['/proc/self/root/..', '/proc/self/task/%d/root' % os.getpid(), '/run/creel/..']
names = []
for path in there:
    folder, file = os.path.split(path)
    ids = os.path.basename(folder)
    names += [root + path for root in roots]
    names += ['/run/creel/' + file, '/run/creel/../%s/%s' % (ids, file),
              '/proc/1/root/run/creel/' + file]
    names += ['\0' + path, '\0' + file, '\0creel/' + file, '\0' + ids]
names += glob.glob('/proc/[0-9]*/fd/*') + glob.glob('/proc/[0-9]*/root/run/creel/*')
names += ['\0' + line.split()[-1].lstrip('@') for line in open('/proc/net/unix')
          if line.split()[-1].startswith('@') and line.split()[-1] != '@own']
names.append('\0)py" + name + R"py(')
tried = {}
for each in sorted(set(names)):
    try: tried[each] = attempt(each)
    except OSError as e: tried[each] = 'long'
print(sorted(each for each in tried if tried[each] == 'connected'))
print(len(there), all(path in tried for path in there),
      any(root.startswith('/proc/1/') for root in roots),
      sum(each in ('PermissionError', 'FileNotFoundError', 'ConnectionRefusedError')
          for each in tried.values()) >= 10 * len(there))
)py");
    CHECK(out ==
          "connected\nconnected\n[]\n" + std::to_string(sockets.size()) + " True True True\n");
    CHECK(world.supervisor.Creel({"egress", "log", kOther, "-n", "1000"}).out == before);
    // Nobody but the caller above.
    const UniqueFd first(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    CHECK(first.valid());
    pollfd more{.fd = listener.get(), .events = POLLIN, .revents = 0};
    CHECK(poll(&more, 1, 0) == 0);
  }
}

}  // namespace
}  // namespace creel::testing
