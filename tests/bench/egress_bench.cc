#include "tests/bench/egress_bench.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/base/unique_fd.h"
#include "tests/integration/support/supervisor.h"
#include "tests/supervisor/egress/dns_server.h"

namespace creel::bench {
namespace {

using testing::Outcome;
using testing::Supervisor;

constexpr char kOne[] = "agent:main:bench:egress:1";
constexpr char kTwo[] = "agent:main:bench:egress:2";
constexpr char kGigabyte[] = "1073741824";
constexpr int kRequests = 1000;
constexpr int kRounds = 5;
// Of the connections that are held, these are replies under way, which are masked as they come.
constexpr int kTunnels = 400;
constexpr int kStreams = 100;
constexpr char kKey[] = "bench-credential-0123456789";

// A server on loopback that does with each connection what it is told; its threads end with the
// process.
uint16_t Serve(const std::function<void(int)>& serve) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 1024) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("no server on loopback");
  }
  std::thread([listener, serve] {
    for (;;) {
      const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) {
        continue;
      }
      const int yes = 1;
      setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      std::thread([socket, serve] {
        serve(socket);
        close(socket);
      }).detach();
    }
  }).detach();
  return ntohs(address.sin_port);
}

void Ping(int socket) {
  std::string heard;
  char buffer[4096];
  for (ssize_t got = 0; (got = recv(socket, buffer, sizeof buffer, 0)) > 0;) {
    heard.append(buffer, static_cast<size_t>(got));
    if (heard.ends_with("\r\n\r\n")) {
      heard.clear();
      constexpr char kReply[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npong\n";
      send(socket, kReply, sizeof kReply - 1, MSG_NOSIGNAL);
    }
  }
}

void Pour(int socket) {
  const std::vector<char> zeros(1 << 18);
  while (send(socket, zeros.data(), zeros.size(), MSG_NOSIGNAL) > 0) {
  }
}

void Hold(int socket) {
  char byte = 0;
  while (recv(socket, &byte, 1, 0) > 0) {
  }
}

// Events without end, each with the credential and with what begins like it.
void Stream(int socket) {
  char buffer[4096];
  std::string heard;
  while (!heard.ends_with("\r\n\r\n")) {
    const ssize_t got = recv(socket, buffer, sizeof buffer, 0);
    if (got <= 0) {
      return;
    }
    heard.append(buffer, static_cast<size_t>(got));
  }
  std::string event = std::string("data: ") + kKey + " bench-cred";
  while (event.size() < 2000) {
    event += " so what do you think of it? bench-";
  }
  event += "\n\n";
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", event.size());
  const std::string chunk = size + event + "\r\n";
  std::string next =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
      chunk;
  while (send(socket, next.data(), next.size(), MSG_NOSIGNAL) > 0) {
    next = chunk;
    usleep(100'000);
  }
}

double Number(const std::string& out, const std::string& err) {
  if (out.empty()) {
    throw std::runtime_error("egress_client: " + err);
  }
  return std::stod(out);
}

double OnHost(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv{std::string(CREEL_TEST_PROGRAMS) + "/egress_client"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  const testing::Finished finished = testing::RunProgram(argv);
  return Number(finished.out, finished.err);
}

double Inside(Supervisor& supervisor, const char* session, const std::string& program,
              const std::vector<std::string>& arguments) {
  std::vector<std::string> argv{program};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  const Outcome outcome = supervisor.Exec(session, argv);
  return Number(outcome.out, outcome.err + outcome.status.error_message());
}

}  // namespace

void MeasureEgress(Report& report) {
  const std::string ping = std::to_string(Serve(Ping));
  const std::string pour = std::to_string(Serve(Pour));
  const std::string hold = std::to_string(Serve(Hold));
  const std::string stream = std::to_string(Serve(Stream));
  egress::testing::DnsServer dns;
  dns.Set("bench.example", {.addresses = {"127.0.0.1"}});
  Supervisor supervisor(
      {.extra_config = "concessions: [egress-no-tls]\n"
                       "egress:\n"
                       "  resolvers: ['" +
                       dns.address() +
                       "']\n"
                       "  limits: {connections: 600, requests_per_minute: 10000000,\n"
                       "           bytes_per_minute: 1024GiB}\n"
                       "  services:\n"
                       "    - {name: ping, url: 'http://127.0.0.1:" +
                       ping +
                       "', sessions: ['*'], allow: [{path: /ping}]}\n"
                       "    - {name: events, url: 'http://127.0.0.1:" +
                       stream + "', sessions: ['*'], allow: [{path: /events}],\n" +
                       "       credential: {bearer: true, command: [/bin/echo, " + kKey +
                       "]}}\n"
                       "  hosts:\n"
                       "    - {name: bench.example, ports: [" +
                       pour + ", " + hold +
                       "], sessions: ['*'], no_tls: true, addresses: [127.0.0.0/8]}\n"});
  const std::string one = supervisor.PutProgram(kOne, "egress_client");
  const std::string two = supervisor.PutProgram(kTwo, "egress_client");
  const std::string count = std::to_string(kRequests);
  const std::vector<std::string> through{"time", "3128", "http://ping.creel/ping", "ping.creel",
                                         count};
  Samples direct;
  Samples proxied;
  // In turn, so that a noisy moment meets both.
  for (int i = 0; i < kRounds; ++i) {
    direct.Add(OnHost({"time", ping, "/ping", "ping.creel", count}));
    proxied.Add(Inside(supervisor, kOne, one, through));
  }
  report.Times("a small request on loopback, direct", direct);
  report.Times("a small request to a service, from a sandbox", proxied);
  report.Figure("egress_added_ms", proxied.Median() - direct.Median(), "<= 0.5",
                "latency that the way out adds to a small request, ms");

  Samples pull_direct;
  Samples pull_tunnel;
  for (int i = 0; i < kRounds; ++i) {
    pull_direct.Add(OnHost({"pull", pour, "-", kGigabyte}) * 1e3);
    pull_tunnel.Add(
        Inside(supervisor, kOne, one, {"pull", "3128", "bench.example:" + pour, kGigabyte}) * 1e3);
  }
  report.Times("1 GiB over loopback, direct", pull_direct);
  report.Times("1 GiB through CONNECT, from a sandbox", pull_tunnel);
  report.Figure("egress_over_direct", pull_direct.Median() / pull_tunnel.Median(), ">= 0.4",
                "speed of 1 GiB through CONNECT over that of direct loopback");

  Samples alone;
  Samples beside;
  for (int i = 0; i < kRounds; ++i) {
    alone.Add(Inside(supervisor, kTwo, two, through));
  }
  std::thread holder([&] {
    supervisor.Exec(
        kOne,
        {one, "hold", "3128", "bench.example:" + hold, std::to_string(kTunnels), "1000",
         "http://events.creel/events", "events.creel", std::to_string(kStreams)},
        [](auto& start) { start.mutable_spec()->mutable_timeout()->set_seconds(120); }, "",
        std::chrono::seconds(150));
  });
  // Two ends of each are in that sandbox's table.
  const bool held = testing::Eventually(
      [&] {
        return std::atoi(supervisor.Shell(kOne, "grep -c ' 01 ' /proc/net/tcp").out.c_str()) >=
               2 * (kTunnels + kStreams);
      },
      std::chrono::seconds(60));
  if (!held) {
    throw std::runtime_error("the crowd is not there: " + supervisor.Log());
  }
  for (int i = 0; i < kRounds; ++i) {
    beside.Add(Inside(supervisor, kTwo, two, through));
  }
  supervisor.Shell(kOne, "kill -9 $(pidof egress_client)");
  holder.join();
  report.Times("a small request, alone", alone);
  report.Times(
      "a small request beside 400 tunnels, 100 masked streams and a flood in another sandbox",
      beside);
  report.Figure("egress_neighbour", beside.Median() / alone.Median(), "<= 1.5",
                "a small request beside a crowd in another sandbox, over one alone");
}

}  // namespace creel::bench
