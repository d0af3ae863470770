// The only way out, from a real container with real clients to real servers: what is allowed works,
// and what is not leaves no trace outside.
#include <doctest/doctest.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/support/network.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

constexpr char kSession[] = "agent:main:whatsapp:group:120363";
constexpr char kOther[] = "agent:main:telegram:dm:42";
constexpr char kKey[] = "s3cr3t-k3y-0f-the-operator";

// One world and one supervisor for all cases: both take seconds to make.
struct World {
  World() {
    std::ofstream(outside.folder() + "/key") << kKey << "\n";
    std::string config =
        "concessions: [egress-no-tls]\n"
        "egress:\n"
        "  resolvers: [192.0.2.53]\n"
        "  limits: {requests_per_minute: 100000, bytes_per_minute: 16GiB, head_timeout: 3s,\n"
        "           connect_timeout: 5s}\n"
        "  services:\n";
    for (const auto& [name, url, credential] : std::vector<std::array<std::string, 3>>{
             {"api", "http://192.0.2.80:8080/v1", "header: X-Key"},
             {"tls", "https://api.example:8443/v1", "bearer: true"},
             {"unverified", "https://other.example:443", "bearer: true"}}) {
      config += "    - name: " + name + "\n      url: " + url +
                "\n      sessions: ['*']\n      ca: " + outside.ca() +
                "\n      websocket: true\n      credential: {" + credential +
                ", file: " + outside.folder() + "/key}\n      allow:\n" +
                "        - {methods: [GET, HEAD, POST], path: /**, max_body: 200MiB}\n";
    }
    config +=
        "    - name: narrow\n      url: http://192.0.2.80:8080/v1\n      sessions: ['*']\n"
        "      allow: [{methods: [GET], path: '/items/*'}]\n";
    config += "  hosts:\n";
    for (const char* name : {"allowed.example", "git.example", "loop.example", "meta.example",
                             "private.example", "mixed.example", "alias.example",
                             "supervisor.example", "rebind.example", "'*.wild.example'"}) {
      config += std::string("    - {name: ") + name + ", sessions: ['*']}\n";
    }
    config +=
        "    - {name: plain.example, ports: [80], plain_http: true, sessions: ['*']}\n"
        "    - {name: loop.example, ports: [80], plain_http: true, sessions: ['*']}\n"
        "    - {name: other.example, ports: [22], no_tls: true, sessions: ['nobody']}\n";
    supervisor = std::make_unique<Supervisor>(SupervisorOptions{.extra_config = config});
    std::ifstream ca(outside.ca());
    const std::string pem(std::istreambuf_iterator<char>(ca), {});
    for (const char* session : {kSession, kOther}) {
      if (!supervisor->Write(session, "ca.pem", pem).ok()) {
        throw std::runtime_error("no sandbox: " + supervisor->Log());
      }
    }
  }
  // What a shell line prints, both streams.
  std::string Sh(const std::string& line,
                 std::chrono::seconds timeout = std::chrono::seconds(90)) const {
    const Outcome outcome = supervisor->Shell(kSession, line + " 2>&1", timeout);
    return outcome.out + outcome.err;
  }
  // A python program's output.
  std::string Python(const std::string& program) const {
    if (!supervisor->Write(kSession, "program.py", program).ok()) {
      return "not written";
    }
    return Sh("python3 program.py");
  }

  Outside outside;
  std::unique_ptr<Supervisor> supervisor;
};

World& TheWorld() {
  static World world;
  return world;
}

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Nothing was let through, and nothing outside has heard of it.
void StaysInside(const std::string& line, const std::string& trace = "") {
  World& world = TheWorld();
  world.outside.Forget();
  const std::string out = world.Sh(line);
  CAPTURE(line);
  CAPTURE(out);
  CHECK_FALSE(Holds(out, "hello from outside"));
  CHECK_FALSE(Holds(out, "canary"));
  for (const std::string& seen : world.outside.Seen(trace)) {
    // The resolver may be asked for a name that a rule covers; nothing else.
    CAPTURE(seen);
    CHECK(seen.rfind("dns ", 0) == 0);
  }
}

TEST_SUITE("Egress") {
  TEST_CASE("curl reaches an allowed host with nothing configured") {
    World& world = TheWorld();
    CHECK(world.Sh("curl -sS --cacert ca.pem https://allowed.example/x") == "hello from outside\n");
    CHECK(world.Sh("curl -sS http://plain.example/x") == "hello from outside\n");
    CHECK(world
              .Sh("curl -sS --cacert ca.pem https://a.b.wild.example/x -o /dev/null -w "
                  "'%{ssl_verify_result} %{http_connect}'")
              .find(" 200") != std::string::npos);
    CHECK(world.Sh("curl -sS --cacert ca.pem -x socks5h://127.0.0.1:1080 "
                   "https://allowed.example/x") == "hello from outside\n");
  }

  TEST_CASE("git clones a repository over HTTPS") {
    World& world = TheWorld();
    CHECK(world.Sh("rm -rf repo; GIT_SSL_CAINFO=/workspace/ca.pem git clone -q "
                   "https://git.example/repo.git repo && cat repo/README") ==
          "cloned from outside\n");
  }

  TEST_CASE("python's urllib and http.client reach hosts and services") {
    World& world = TheWorld();
    CHECK(world.Python(
              "import ssl, urllib.request as r\n"
              "c = ssl.create_default_context(cafile='ca.pem')\n"
              "print(r.urlopen('https://allowed.example/x', context=c).read())\n"
              "print(r.urlopen('http://api.creel/x').read())\n"
              "import http.client\n"
              "h = http.client.HTTPConnection('127.0.0.1', 3128)\n"
              "for i in range(3):\n"
              "    h.request('GET', 'http://api.creel/echo', headers={'Host': 'api.creel'})\n"
              "    print(h.getresponse().read().splitlines()[0])\n"
              "h = http.client.HTTPSConnection('127.0.0.1', 3128, context=c)\n"
              "h.set_tunnel('allowed.example', 443)\n"
              "h.request('GET', '/x')\n"
              "print(h.getresponse().read())\n") ==
          "b'hello from outside\\n'\nb'hello from outside\\n'\n"
          "b'GET /v1/echo HTTP/1.1'\nb'GET /v1/echo HTTP/1.1'\nb'GET /v1/echo HTTP/1.1'\n"
          "b'hello from outside\\n'\n");
  }

  TEST_CASE("node's fetch reaches hosts, and node:http services") {
    World& world = TheWorld();
    const std::string cache =
        RunProgram({CREEL_TEST_SOURCES "/tests/e2e/setup.sh"}, "", std::chrono::seconds(900)).out;
    REQUIRE(cache.size() > 1);
    const std::string node = cache.substr(0, cache.find('\n')) + "/node/node";
    REQUIRE(world.supervisor
                ->Creel({"cp", std::filesystem::canonical(node).string(),
                         std::string(kSession) + ":/workspace/node"})
                .exit_code == 0);
    REQUIRE(world.supervisor
                ->Write(kSession, "program.mjs",
                        "import http from 'node:http';\n"
                        "console.log(await (await fetch('https://allowed.example/x')).text());\n"
                        "for (const url of ['http://api.creel/x', 'https://nowhere.example/'])\n"
                        "  try { await fetch(url); console.log('BROKE'); }\n"
                        "  catch (e) { console.log('refused'); }\n"
                        "http.get('http://api.creel/x', (r) => {\n"
                        "  r.on('data', (d) => console.log(d.toString()));\n"
                        "});\n")
                .ok());
    const std::string out =
        world.Sh("chmod +x node; NODE_EXTRA_CA_CERTS=ca.pem ./node --no-warnings program.mjs");
    CHECK(out == "hello from outside\n\nrefused\nrefused\nhello from outside\n\n");
    // The refusal of a service's tunnel says what to do instead.
    const std::string log = world.supervisor->Creel({"egress", "log", kSession, "-n", "20"}).out;
    CHECK(Holds(log, "api.creel is a service, and those are spoken to in plain http"));
    world.Sh("rm node");
  }

  TEST_CASE("a client that keeps its connection is served on one to the upstream") {
    World& world = TheWorld();
    world.outside.Forget();
    CHECK(world.Sh("curl -sS http://api.creel/a http://api.creel/b http://api.creel/c -w "
                   "'%{num_connects}\\n'") ==
          "hello from outside\n1\nhello from outside\n0\nhello from outside\n0\n");
    CHECK(world.outside.Seen("tcp api").size() == 1);
    CHECK(world.outside.Seen("http api GET /v1/").size() == 3);
  }

  TEST_CASE("an SSE reply streams as it comes") {
    const std::string out = TheWorld().Python(
        "import time, urllib.request as r\n"
        "lag = []\n"
        "for line in r.urlopen('http://api.creel/sse'):\n"
        "    if line.startswith(b'data:'):\n"
        "        lag.append(time.time() - float(line.split()[2]))\n"
        "print(len(lag), 'late' if max(lag) > 0.25 * len(lag) else 'in time')\n");
    CHECK(out == "5 in time\n");
  }

  TEST_CASE("100 MB go up and down through a service, and the supervisor stays small") {
    World& world = TheWorld();
    const auto rss_kb = [&] {
      std::ifstream status("/proc/" + std::to_string(world.supervisor->pid()) + "/status");
      for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmHWM:", 0) == 0) {
          return std::atol(line.c_str() + 6);
        }
      }
      return 0L;
    };
    const long before = rss_kb();
    REQUIRE(world.Sh("head -c 104857600 /dev/zero > big; sha256sum big | cut -c1-64").size() == 65);
    const std::string sum = world.Sh("sha256sum big | cut -c1-64");
    for (const std::string service : {"api", "tls"}) {
      CHECK(world.Sh("curl -sS -T big -X POST http://" + service + ".creel/upload") ==
            "104857600 " + sum);
      CHECK(world.Sh("curl -sS -X POST -H 'Transfer-Encoding: chunked' --data-binary @big http://" +
                     service + ".creel/upload") == "104857600 " + sum);
      CHECK(world.Sh("curl -sS http://" + service + ".creel/download | wc -c") == "104857600\n");
    }
    CHECK(rss_kb() - before < 32 * 1024);
    world.Sh("rm big");
  }

  TEST_CASE("a websocket goes on through a service, both ways, masked message by message") {
    const std::string masked(sizeof kKey - 1, '*');
    CHECK(TheWorld().Python(R"py(
import socket
s = socket.create_connection(('127.0.0.1', 3128))
s.settimeout(20)
s.sendall(b'GET http://api.creel/ws HTTP/1.1\r\nHost: api.creel\r\n'
          b'Connection: Upgrade\r\nUpgrade: websocket\r\n'
          b'Sec-WebSocket-Version: 13\r\n'
          b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
def take(size):
    data = b''
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more: raise SystemExit('ended')
        data += more
    return data
def hear():
    size = take(2)[1]
    return take(int.from_bytes(take(2), 'big') if size == 126 else size).decode()
def say(text):
    size = bytes([128 + len(text)]) if len(text) < 126 else b'\xfe' + len(text).to_bytes(2, 'big')
    s.sendall(b'\x81' + size + bytes([1, 2, 3, 4]) +
              bytes(b ^ (i % 4 + 1) for i, b in enumerate(text)))
head = b''
while b'\r\n\r\n' not in head: head += take(1)
print(head.split()[1], b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head)
for i in range(3):
    say(b'ping %d' % i)
    print(hear())
say(b'push')
say(b'after')
print(hear(), hear(), hear(), hear())
say(b'x' * 1000)
text = hear()
print(len(text), text[999:])
# Over two messages it is not the credential any more; neither waits for the other, and the next
# whole one is masked again.
say(b'split')
print(hear(), hear())
say(b'whole')
print(hear())
s.settimeout(0.3)
try: print('BROKE', s.recv(1))
except TimeoutError: print('open')
s.settimeout(20)
s.sendall(b'\x88\x80\0\0\0\0')
print(s.recv(1))
)py") == "b'101' True\nping 0 " + masked + "\nping 1 " + masked + "\nping 2 " + masked +
              "\nevent 0 event 1 event 2 after " + masked + "\n1027 x " + masked +
              "\ns3cr3t-k3y-0f -the-operator\nwhole " + masked + "\nopen\nb''\n");
  }

  TEST_CASE("the credential reaches the upstream and is nowhere in the container") {
    World& world = TheWorld();
    world.outside.Forget();
    for (const std::string service : {"api", "tls"}) {
      for (const std::string path : {"echo", "error", "redirect", "split"}) {
        const std::string out = world.Sh("curl -sSi -m 20 http://" + service + ".creel/" + path +
                                         " -H 'X-Key: mine' -H 'Authorization: Bearer mine'");
        CAPTURE(out);
        CHECK_FALSE(Holds(out, kKey));
        CHECK_FALSE(Holds(out, std::string(kKey).substr(0, 12)));
        CHECK_FALSE(Holds(out, "s3cr3t"));
        CHECK(Holds(out, "*****"));
        CHECK_FALSE(Holds(out, "czNjcjN0"));  // base64
      }
    }
    CHECK(world.outside.Seen("http api GET /v1/echo auth=" + std::string("Bearer mine")).empty());
    CHECK(world.outside.Seen(std::string("auth=") + kKey).size() >= 4);
    CHECK(world.outside.Seen(std::string("auth=Bearer ") + kKey).size() >= 4);
    // Followed, a redirect off the service meets the rules without the credential.
    world.outside.Forget();
    const std::string followed = world.Sh("curl -sSiL -m 20 http://api.creel/redirect");
    CHECK_FALSE(Holds(followed, "s3cr3t"));
    CHECK(Holds(followed, "X-Creel-Reason"));
    CHECK(world.outside.Seen("caught").empty());
    CHECK(world.outside.Seen("other").empty());
    // Searched for by a process of the container, in all that it may read.
    const std::string search = world.Python(
        "import glob, os\n"
        "key = 's3cr3t' + '-k3y-'\n"  // so that this program is not found
        "found = []\n"
        "for name in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n"
        "        if key.encode() in open(name, 'rb').read(): found.append(name)\n"
        "    except OSError: pass\n"
        "for top in ('/workspace', '/tmp', '/run', '/etc', '/dev/shm', '/var'):\n"
        "    for folder, _, files in os.walk(top):\n"
        "        for file in files:\n"
        "            try:\n"
        "                path = os.path.join(folder, file)\n"
        "                if os.path.isfile(path) and key.encode() in open(path, 'rb').read():\n"
        "                    found.append(path)\n"
        "            except OSError: pass\n"
        "print(found)\n");
    CHECK(search == "[]\n");
    // And from outside, in the memory of every process of the container, the shim's too.
    std::string pids =
        RunProgram({"docker", "top", world.supervisor->Get(kSession).container_id(), "-eo", "pid"})
            .out;
    int searched = 0;
    const std::regex number("[0-9]+");
    for (std::sregex_iterator each(pids.begin(), pids.end(), number), end; each != end; ++each) {
      const std::string pid = each->str();
      std::ifstream maps("/proc/" + pid + "/maps");
      std::ifstream memory("/proc/" + pid + "/mem", std::ios::binary);
      for (std::string line; std::getline(maps, line);) {
        unsigned long from = 0;
        unsigned long to = 0;
        if (std::sscanf(line.c_str(), "%lx-%lx r", &from, &to) != 2 || Holds(line, "[v") ||
            to - from > (256u << 20)) {
          continue;
        }
        std::string bytes(to - from, '\0');
        memory.clear();
        memory.seekg(static_cast<std::streamoff>(from));
        memory.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        CAPTURE(line);
        CHECK_FALSE(Holds(bytes, kKey));
        ++searched;
      }
    }
    CHECK(searched > 5);
  }

  TEST_CASE("an upstream whose certificate is not good gets no request") {
    World& world = TheWorld();
    world.outside.Forget();
    const std::string out = world.Sh("curl -sSi -m 20 http://unverified.creel/x");
    CHECK(Holds(out, "HTTP/1.1 502"));
    CHECK_FALSE(Holds(out, "other.example"));
    CHECK(world.outside.Seen("http ").empty());
  }

  TEST_CASE("a hostile or stuck upstream harms nobody") {
    World& world = TheWorld();
    CHECK(Holds(world.Sh("curl -sSi -m 20 http://api.creel/hostile"), "HTTP/1.1 502"));
    std::thread stuck([&] { world.Sh("curl -sS -m 5 http://api.creel/slow"); });
    CHECK(world.supervisor->Shell(kOther, "curl -sS -m 4 http://api.creel/x").out ==
          "hello from outside\n");
    stuck.join();
  }

  TEST_CASE("a refusal tells the rule, and what the operator would add") {
    const std::string out = TheWorld().Sh("curl -sSi http://nowhere.example/x");
    CHECK(Holds(out, "HTTP/1.1 403 Forbidden"));
    CHECK(Holds(out, "X-Creel-Reason: default: no rule names nowhere.example:80"));
    CHECK(Holds(out, "hosts: [{name: nowhere.example, ports: [80]"));
  }

  TEST_CASE("raw sockets, UDP and connections of its own do not get out") {
    for (const char* line : {
             "curl -sS -m 3 --noproxy '*' http://192.0.2.80/x",
             "curl -sS -m 3 --noproxy '*' http://192.0.2.1/x",
             "curl -sS -m 3 --noproxy '*' -k https://allowed.example/x",
             "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
             "python3 -c 'import socket; s=socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
             "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
             "s.sendto(b\"x\", (\"192.0.2.80\", 53))'",
             "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
             "s.sendto(b\"x\", (\"192.0.2.80\", 443))'",
             "python3 -c 'import socket; socket.create_connection((\"192.0.2.80\", 22), 3)'",
             "python3 -c 'import socket; socket.socket(40, 1)'",
             "ip link add dummy0 type dummy",
         }) {
      StaysInside(line);
      CHECK(TheWorld().outside.Seen().empty());
    }
  }

  TEST_CASE("DNS of no kind gets out, through the proxy neither") {
    World& world = TheWorld();
    for (const char* line : {
             "getent hosts allowed.example",
             "python3 -c 'import socket; print(socket.gethostbyname(\"allowed.example\"))'",
             "curl -sS -m 5 https://c2VjcmV0.allowed.example/x",
             "curl -sS -m 5 http://c2VjcmV0.plain.example/x",
             "curl -sS -m 5 http://c2VjcmV0.api.creel/x",
             "curl -sS -m 5 -x socks5h://127.0.0.1:1080 https://c2VjcmV0.allowed.example/",
             "curl -sS -m 5 -x socks5://127.0.0.1:1080 https://allowed.example/",
             "curl -sS -m 5 https://nowhere.example/",
             "curl -sS -m 5 -p https://allowed.example:53/",
             "curl -sS -m 5 --doh-url https://dns.nowhere.example/q https://nowhere.example/",
         }) {
      StaysInside(line);
      CHECK(world.outside.Seen("c2VjcmV0").empty());
      CHECK(world.outside.Seen("nowhere").empty());
    }
  }

  TEST_CASE("SOCKS knows names only, and carries neither addresses nor datagrams") {
    const std::string out = TheWorld().Python(
        "import socket\n"
        "web, port = socket.inet_aton('192.0.2.80'), (80).to_bytes(2, 'big')\n"
        "name = b'allowed.example'\n"
        "for request in (b'\\x05\\x01\\x00' + b'\\x05\\x01\\x00\\x01' + web + port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x01\\x00\\x04' + bytes(10) + b'\\xff\\xff' "
        "+ web + "
        "port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x02\\x00\\x03\\x0f' + name + port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x03\\x00\\x03\\x0f' + name + port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x01\\x00\\x03\\x0a192.0.2.80' + port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x01\\x00\\x03\\x0bapi.creel\\r\\n' + port,\n"
        "                b'\\x05\\x01\\x00' + b'\\x05\\x01\\x00\\x03\\x09api.creel' + port,\n"
        "                b'\\x04\\x01' + port + web + b'\\0',\n"
        "                b'\\x04\\x01' + port + b'\\0\\0\\0\\1\\0' + name + b'\\0'):\n"
        "    s = socket.create_connection(('127.0.0.1', 1080))\n"
        "    s.settimeout(20)\n"
        "    s.sendall(request)\n"
        "    got = b''\n"
        "    try:\n"
        "        while True:\n"
        "            more = s.recv(100)\n"
        "            if not more: break\n"
        "            got += more\n"
        "    except OSError as e: got += type(e).__name__.encode()\n"
        "    print(got[2:4] if got[:2] == b'\\x05\\x00' else got[:10])\n");
    CHECK(out ==
          "b'\\x05\\x02'\nb'\\x05\\x02'\nb'\\x05\\x02'\nb'\\x05\\x02'\nb'\\x05\\x02'\n"
          "b'\\x05\\x02'\nb'\\x05\\x02'\nb'HTTP/1.1 4'\nb'HTTP/1.1 4'\n");
    CHECK(TheWorld().outside.Seen("canary").empty());
  }

  TEST_CASE("another port, and another name, do not get out") {
    for (const char* target :
         {"allowed.example:22", "allowed.example:80", "allowed.example:25", "allowed.example:8443",
          "other.example:22", "other.example:443", "xallowed.example:443",
          "allowed.example.other.example:443", "wild.example:443", "plain.example:80"}) {
      StaysInside(std::string("curl -sS -m 5 -p telnet://") + target + " < /dev/null");
      StaysInside(std::string("curl -sS -m 5 -k https://") + target + "/x");
    }
    CHECK(TheWorld().outside.Seen("canary").empty());
  }

  TEST_CASE("an IP address does not get out in any notation, nor localhost and its relatives") {
    World& world = TheWorld();
    for (const char* host : {"192.0.2.80",
                             "3221226064",
                             "0xc0000250",
                             "0300.0.02.0120",
                             "192.0.592",
                             "0xc0.0.2.80",
                             "[::ffff:192.0.2.80]",
                             "[::ffff:c000:250]",
                             "127.0.0.1",
                             "127.1",
                             "2130706433",
                             "0x7f000001",
                             "017700000001",
                             "[::1]",
                             "localhost",
                             "localhost.localdomain",
                             "ip6-localhost",
                             "0.0.0.0",
                             "0",
                             "169.254.169.254",
                             "[fd00:ec2::254]",
                             "192.0.2.1",
                             "198.51.100.66",
                             "localhost.",
                             "x.localhost",
                             "ip6-loopback",
                             "[::]",
                             "[::127.0.0.1]",
                             "[64:ff9b::c000:250]",
                             "[fe80::1%lo]",
                             "0x7f.1",
                             "127.0.0.1.",
                             "192.0.2.80.",
                             "0xC0000250"}) {
      // By hand, as clients rewrite some of them.
      const std::string connect =
          "printf 'CONNECT " + std::string(host) +
          ":443 HTTP/1.1\\r\\n\\r\\n' | timeout 10 python3 -c 'import socket,sys\n"
          "s = socket.create_connection((\"127.0.0.1\", 3128)); "
          "s.sendall(sys.stdin.buffer.read())\nprint(s.recv(4096).decode())'";
      StaysInside(connect);
      CHECK(world.outside.Seen().empty());
      StaysInside("curl -sS -m 5 --globoff --noproxy '' -g -x http://127.0.0.1:3128 http://" +
                  std::string(host) + "/x");
      CHECK(world.outside.Seen().empty());
    }
  }

  TEST_CASE("a name that leads to an address of ours, of the cloud's or of a private network") {
    World& world = TheWorld();
    for (const char* name : {"loop", "meta", "private", "mixed", "alias", "supervisor"}) {
      StaysInside("curl -sSi -m 8 -k https://" + std::string(name) + ".example/x");
      const std::string out =
          world.Sh("curl -sS -m 8 -k https://" + std::string(name) + ".example/x -D -");
      CHECK(Holds(out, "X-Creel-Reason: address: "));
    }
    StaysInside("curl -sSi -m 8 http://loop.example/x");
  }

  TEST_CASE("a name that rebinds between check and connect is connected to as it was checked") {
    World& world = TheWorld();
    world.outside.Forget();
    // The resolver says loopback from the second question on, and its answers may not be kept.
    CHECK(world.Sh("curl -sS -m 8 --cacert ca.pem https://rebind.example/x") ==
          "hello from outside\n");
    CHECK(world.outside.Seen("dns rebind.example 1").size() == 1);
    CHECK(Holds(world.Sh("curl -sS -m 8 --cacert ca.pem https://rebind.example/x -D -"),
                "X-Creel-Reason: address: "));
  }

  TEST_CASE("a tunnel that is not TLS for its name does not get out") {
    World& world = TheWorld();
    StaysInside(
        "curl -sS -m 8 -k --connect-to other.example:443:allowed.example:443 "
        "https://other.example/x",
        "http ");
    // A good hello, with GREASE in place of ECH as well, in pieces.
    const std::string program =
        "import socket, ssl, sys, time\n"
        "def tunnel():\n"
        "    s = socket.create_connection(('127.0.0.1', 3128))\n"
        "    s.settimeout(10)\n"
        "    s.sendall(b'CONNECT allowed.example:443 HTTP/1.1\\r\\n\\r\\n')\n"
        "    head = b''\n"
        "    while b'\\r\\n\\r\\n' not in head: head += s.recv(1)\n"
        "    assert b' 200 ' in head, head\n"
        "    return s\n"
        "def hello(name):\n"
        "    context = ssl.create_default_context(cafile='ca.pem')\n"
        "    context.check_hostname = False\n"
        "    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()\n"
        "    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)\n"
        "    try: tls.do_handshake()\n"
        "    except ssl.SSLWantReadError: pass\n"
        "    return outgoing.read()\n"
        "def grease(record):\n"
        "    # An ECH extension at the end of the extensions.\n"
        "    ext = b'\\xfe\\x0d' + (32).to_bytes(2, 'big') + bytes(32)\n"
        "    at = 5 + 4 + 2 + 32\n"
        "    at += 1 + record[at]\n"
        "    at += 2 + int.from_bytes(record[at:at+2], 'big')\n"
        "    at += 1 + record[at]\n"
        "    size = int.from_bytes(record[at:at+2], 'big') + len(ext)\n"
        "    body = record[9:at] + size.to_bytes(2, 'big') + record[at+2:] + ext\n"
        "    message = b'\\x01' + len(body).to_bytes(3, 'big') + body\n"
        "    return record[:3] + len(message).to_bytes(2, 'big') + message\n"
        "def outcome(pieces):\n"
        "    s = tunnel()\n"
        "    try:\n"
        "        for piece in pieces:\n"
        "            s.sendall(piece)\n"
        "            time.sleep(0.01)\n"
        "        first = s.recv(1)\n"
        "    except OSError: return 'cut'\n"
        "    return {b'\\x16': 'served', b'\\x15': 'alert', b'': 'cut'}.get(first, first)\n"
        "good, bad = hello('allowed.example'), hello('other.example')\n"
        "cut = lambda b, n: [b[i:i+n] for i in range(0, len(b), n)]\n"
        "def records(record):\n"
        "    body = record[5:]\n"
        "    return b''.join(record[:3] + len(p).to_bytes(2, 'big') + p for p in cut(body, 40))\n"
        "print('good', outcome([good]), outcome(cut(good, 7)), outcome([records(good)]),\n"
        "      outcome([grease(good)]))\n"
        "print('bad', outcome([bad]), outcome(cut(bad, 7)), outcome([records(bad)]),\n"
        "      outcome([grease(bad)]), outcome([hello(None)]))\n"
        "for raw in (b'SSH-2.0-x\\r\\n', b'GET / HTTP/1.1\\r\\nHost: "
        "allowed.example\\r\\n\\r\\n',\n"
        "            b'\\x16\\x02', b'\\x16\\x03\\x01\\xff\\xff\\x01', b'\\x00' * 100):\n"
        "    print(outcome([raw]))\n";
    world.outside.Forget();
    const std::string out = world.Python(program);
    CHECK(out ==
          "good served served served served\nbad alert alert alert alert alert\n"
          "alert\nalert\nalert\nalert\nalert\n");
    CHECK(world.outside.Seen("http ").empty());
  }

  TEST_CASE("Host that differs, smuggling, tricks with paths and headers do not get out") {
    World& world = TheWorld();
    const std::string start = "POST http://api.creel/x HTTP/1.1\\r\\nHost: api.creel\\r\\n";
    const auto send = [&](const std::string& request) {
      world.outside.Forget();
      const std::string out =
          world.Sh("printf '" + request +
                   "' | timeout 15 python3 -c 'import socket,sys\n"
                   "s = socket.create_connection((\"127.0.0.1\", 3128)); "
                   "s.sendall(sys.stdin.buffer.read())\n"
                   "while True:\n  d = s.recv(4096)\n  if not d: break\n  print(d.decode())'");
      CAPTURE(request);
      CAPTURE(out);
      CHECK(Holds(out, "HTTP/1.1 4"));
      CHECK(Holds(out, "X-Creel-Reason: "));
      CHECK(world.outside.Seen("http ").empty());
    };
    const std::string smuggled = "GET /v1/smuggled HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n";
    send("GET http://plain.example/x HTTP/1.1\\r\\nHost: allowed.example\\r\\n\\r\\n");
    send("GET http://api.creel/x HTTP/1.1\\r\\nHost: tls.creel\\r\\n\\r\\n");
    send("GET http://api.creel/x HTTP/1.1\\r\\n\\r\\n");
    send(start + "Content-Length: 6\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" +
         smuggled);
    send(start + "Content-Length: 0\\r\\nContent-Length: 44\\r\\n\\r\\n" + smuggled);
    send(start +
         "Transfer-Encoding: chunked\\r\\nTransfer-Encoding: identity\\r\\n\\r\\n0\\r\\n\\r\\n");
    send(start + "Transfer-Encoding: \\x0bchunked\\r\\n\\r\\n0\\r\\n\\r\\n" + smuggled);
    send(start + "X: a\\r\\n Content-Length: 44\\r\\n\\r\\n" + smuggled);
    send(start + "X: a\\nContent-Length: 44\\r\\n\\r\\n" + smuggled);
    send(start + "X: a\\rY: b\\r\\n\\r\\n");
    send(start + "X-HTTP-Method-Override: DELETE\\r\\n\\r\\n");
    send(start + "X-Original-URL: /v1/admin\\r\\n\\r\\n");
    send("CONNECT api.creel:80 HTTP/1.1\\r\\n\\r\\n");
    send("CONNECT tls.creel:443 HTTP/1.1\\r\\n\\r\\n");
    for (const char* path : {"//x", "/a/../x", "/./x", "/a/%%2e%%2e/x", "/a%%2f..%%2fx", "/a;b",
                             "/a%%5c..%%5cx", "/%%61", "/a%%0d%%0aX:y", "/a%%00"}) {
      send("GET http://api.creel" + std::string(path) +
           " HTTP/1.1\\r\\nHost: api.creel\\r\\n\\r\\n");
    }
    // A route that takes GET below /items and nothing else.
    CHECK(world.Sh("curl -sS http://narrow.creel/items/1") == "hello from outside\n");
    for (const char* path : {"/admin",
                             "/items",
                             "/items/1/2",
                             "/ITEMS/1",
                             "/Items/1",
                             "/items/../admin",
                             "/items/1/../../admin",
                             "/items/%%2e%%2e/admin",
                             "/items/%%2E%%2E/admin",
                             "/items/..%%2fadmin",
                             "/items/..%%2Fadmin",
                             "/items/1%%2f..%%2f..%%2fadmin",
                             "/items/%%252e%%252e/admin",
                             "//items/1",
                             "/items//1",
                             "/items;/1",
                             "/items/1;/../admin",
                             "/items/..;/admin",
                             "/items/.%%2e/admin",
                             "/items/\\\\..\\\\admin",
                             "/items/..%%5cadmin",
                             "/items/1%%00",
                             "/items/1%%0d%%0aX:y",
                             "/items/%%c0%%ae%%c0%%ae/admin",
                             "/items/1#/../../admin",
                             "/items/1?_method=DELETE",
                             "/items/1?X-HTTP-Method-Override=PUT"}) {
      send("GET http://narrow.creel" + std::string(path) +
           " HTTP/1.1\\r\\nHost: narrow.creel\\r\\n\\r\\n");
    }
    for (const char* header :
         {"X-HTTP-Method-Override: DELETE", "x-http-method: DELETE", "X-Method-Override: DELETE",
          "X-Rewrite-URL: /v1/admin", "X-Original-URL: /v1/admin", "Transfer-Encoding : chunked",
          "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 0x5", "Host: api.creel",
          "Upgrade: h2c", "X y: z", ": z"}) {
      send("GET http://narrow.creel/items/1 HTTP/1.1\\r\\nHost: narrow.creel\\r\\n" +
           std::string(header) + "\\r\\n\\r\\n");
    }
    for (const char* target :
         {"http://narrow.creel@other.example/items/1",
          "http://other.example\\\\@narrow.creel/items/1", "http://narrow.creel:8080/items/1",
          "http://narrow.creel.other.example/items/1", "https://narrow.creel/items/1",
          "ftp://narrow.creel/items/1", "/items/1", "*", "http:///items/1",
          "http://narrow.creel%%2eother.example/items/1"}) {
      send("GET " + std::string(target) + " HTTP/1.1\\r\\nHost: narrow.creel\\r\\n\\r\\n");
    }
    send("CONNECT allowed.example:443\\015\\012X: y HTTP/1.1\\r\\n\\r\\n");
    send("CONNECT allowed.example HTTP/1.1\\r\\n\\r\\n");
    send("CONNECT http://allowed.example:443 HTTP/1.1\\r\\n\\r\\n");
    send("CONNECT allowed.example:443 HTTP/1.1\\r\\nHost: other.example:443\\r\\n\\r\\n");
    send("CONNECT allowed.example:443 HTTP/1.1\\r\\nContent-Length: 4\\r\\n\\r\\nevil");
    send("TRACE http://api.creel/x HTTP/1.1\\r\\nHost: api.creel\\r\\n\\r\\n");
    send("get http://api.creel/x HTTP/1.1\\r\\nHost: api.creel\\r\\n\\r\\n");
    // After a good request, what follows it is judged by itself.
    world.outside.Forget();
    world.Sh("printf '" + start + "Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n" + smuggled +
             "' | timeout 5 python3 -c 'import socket,sys\n"
             "s = socket.create_connection((\"127.0.0.1\", 3128)); "
             "s.sendall(sys.stdin.buffer.read())\n"
             "while s.recv(4096): pass'");
    CHECK(world.outside.Seen("smuggled").empty());
    CHECK(world.outside.Seen("http api POST /v1/x").size() == 1);
  }

  TEST_CASE("a flood of connections harms neither the shim nor another sandbox") {
    World& world = TheWorld();
    std::thread flood([&] {
      world.Python(
          "import socket, time\n"
          "held = []\n"
          "end = time.time() + 8\n"
          "while time.time() < end:\n"
          "    try:\n"
          "        s = socket.socket(); s.setblocking(False)\n"
          "        try: s.connect(('127.0.0.1', 3128))\n"
          "        except BlockingIOError: pass\n"
          "        held.append(s)\n"
          "        if len(held) > 900: held = held[300:]\n"
          "    except OSError: time.sleep(0.01)\n");
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    for (int i = 0; i < 5; ++i) {
      CHECK(world.supervisor->Exec(kSession, {"echo", "alive"}).out == "alive\n");
      CHECK(world.supervisor->Shell(kOther, "curl -sS -m 8 http://api.creel/x").out ==
            "hello from outside\n");
    }
    flood.join();
    CHECK(Eventually(
        [&] { return world.Sh("curl -sS -m 8 http://api.creel/x") == "hello from outside\n"; },
        std::chrono::seconds(20)));
  }

  TEST_CASE("what went out is recorded, and rules are explained and tried") {
    World& world = TheWorld();
    world.Sh("curl -sS 'http://api.creel/x?token=abc'; curl -sS http://nowhere.example/");
    const std::string door = world.supervisor->run_dir() + "/operator.sock";
    const auto creel = [&](std::vector<std::string> argv) {
      argv.insert(argv.begin(), {CREEL_TEST_CLI, "--operator-socket", door, "egress"});
      return RunProgram(argv);
    };
    const Finished log = creel({"log", kSession, "-n", "4"});
    CHECK(log.exit_code == 0);
    CHECK(Holds(log.out, "api.creel:80/x?***"));
    CHECK_FALSE(Holds(log.out, "abc"));
    CHECK(Holds(log.out, "no rule names nowhere.example:80"));
    CHECK(Holds(creel({"explain", "http://api.creel/x", "--session", kSession}).out, "allowed"));
    CHECK(Holds(creel({"explain", "https://nowhere.example/", "--session", kSession}).out,
                "hosts: [{name: nowhere.example, ports: [443]"));
    const Finished tried = creel({"test", "http://api.creel/x", "--session", kSession});
    CHECK(tried.exit_code == 0);
    CHECK(Holds(tried.out, "hello from outside"));
    CHECK(creel({"test", "https://private.example/", "--session", kSession}).exit_code == 1);
    CHECK(Holds(creel({"credentials"}).out, "bearer"));
    CHECK(creel({"revoke", "api"}).exit_code == 0);
    CHECK(Holds(world.Sh("curl -sSi http://api.creel/x"), "HTTP/1.1 503"));
    CHECK(creel({"restore", "api"}).exit_code == 0);
    CHECK(world.Sh("curl -sS http://api.creel/x") == "hello from outside\n");
    // In the record too, each when it was decided and when it ended.
    const Finished record =
        world.supervisor->Creel({"audit", "show", "--json", "--event", "egress.", "-n", "1000"});
    CHECK(record.exit_code == 0);
    for (const char* part :
         {R"("event":"egress.allowed")", R"("event":"egress.denied")", R"("event":"egress.ended")",
          R"("rule":"service api")", R"("verdict":"deny")", R"("target":"api.creel:80")",
          R"("method":"GET")", R"("path":"/x?***")", R"("status":200)", R"("bytes_down":19)",
          R"("us":)"}) {
      CAPTURE(part);
      CHECK(Holds(record.out, part));
    }
    CHECK(Holds(record.out, world.supervisor->Get(kSession).sandbox_id()));
    CHECK_FALSE(Holds(record.out, "token=abc"));
    CHECK_FALSE(Holds(record.out, kKey));
    CHECK(world.supervisor->Creel({"audit", "verify"}).exit_code == 0);
    CHECK(Holds(world.supervisor->Log(), "rule=\"service api\""));
    CHECK_FALSE(Holds(world.supervisor->Log(), kKey));
  }

  TEST_CASE("the way out is there again after the supervisor was killed") {
    World& world = TheWorld();
    world.supervisor->Restart(SIGKILL);
    CHECK(world.Sh("curl -sS http://api.creel/x") == "hello from outside\n");
  }
}

}  // namespace
}  // namespace creel::testing
