// What the frame guard costs: throughput of large DATA frames and the time of a round trip, over a
// socket pair and over the same with one end under guard, by the calls that gRPC makes.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/sandbox/frame_guard.h"

namespace creel {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kFrame = 64u << 10;
constexpr uint64_t kTotal = 4ull << 30;
constexpr int kRounds = 30000;

std::string Frame(uint8_t type, uint32_t stream, size_t length) {
  std::string frame(9 + length, 'x');
  frame[0] = static_cast<char>(length >> 16);
  frame[1] = static_cast<char>(length >> 8);
  frame[2] = static_cast<char>(length);
  frame[3] = static_cast<char>(type);
  frame[4] = 0;
  for (int i = 0; i < 4; ++i) {
    frame[5 + i] = static_cast<char>(stream >> (24 - 8 * i));
  }
  return frame;
}

void SendAll(int fd, const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    iovec part = {.iov_base = const_cast<char*>(bytes.data()) + done,
                  .iov_len = bytes.size() - done};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0) {
      std::abort();
    }
    done += static_cast<size_t>(sent);
  }
}

void ReceiveAll(int fd, uint64_t bytes) {
  std::vector<char> buffer(256u << 10);
  while (bytes > 0) {
    iovec part = {.iov_base = buffer.data(), .iov_len = std::min<uint64_t>(buffer.size(), bytes)};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t got = recvmsg(fd, &message, 0);
    if (got <= 0) {
      std::abort();
    }
    bytes -= static_cast<uint64_t>(got);
  }
}

// Two connected blocking sockets: the peer's, and the one that gRPC would hold.
struct Ends {
  UniqueFd peer;
  UniqueFd inner;
};

Ends Connect(FrameGuard* guard) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    std::abort();
  }
  const int size = 1 << 20;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
  setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
  if (guard == nullptr) {
    return {UniqueFd(pair[0]), UniqueFd(pair[1])};
  }
  FrameBounds bounds;
  bounds.max_small_data_per_second = 100000000;
  auto guarded = guard->Guard(UniqueFd(pair[1]), bounds, [](const absl::Status&) {});
  if (!guarded.ok()) {
    std::abort();
  }
  return {UniqueFd(pair[0]), std::move(guarded->inner)};
}

void SetBlocking(int fd) { fcntl(fd, F_SETFL, O_RDWR); }

double Throughput(FrameGuard* guard, bool inward) {
  Ends ends = Connect(guard);
  SetBlocking(ends.inner.get());
  const int from = inward ? ends.peer.get() : ends.inner.get();
  const int to = inward ? ends.inner.get() : ends.peer.get();
  const std::string settings = Frame(4, 0, 0);
  const std::string data = Frame(0, 1, kFrame);
  const uint64_t frames = kTotal / kFrame;
  const auto start = Clock::now();
  std::thread writer([&] {
    SendAll(from, settings);
    for (uint64_t i = 0; i < frames; ++i) {
      SendAll(from, data);
    }
  });
  ReceiveAll(to, settings.size() + frames * data.size());
  writer.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return static_cast<double>(kTotal) / seconds / 1e9;
}

double RoundTripMicros(FrameGuard* guard) {
  Ends ends = Connect(guard);
  SetBlocking(ends.inner.get());
  const std::string settings = Frame(4, 0, 0);
  const std::string data = Frame(0, 1, 200);
  SendAll(ends.peer.get(), settings);
  ReceiveAll(ends.inner.get(), settings.size());
  std::thread echo([&] {
    for (int i = 0; i < kRounds; ++i) {
      ReceiveAll(ends.peer.get(), data.size());
      SendAll(ends.peer.get(), data);
    }
  });
  std::vector<double> micros;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = Clock::now();
    SendAll(ends.inner.get(), data);
    ReceiveAll(ends.inner.get(), data.size());
    micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  echo.join();
  std::nth_element(micros.begin(), micros.begin() + kRounds / 2, micros.end());
  return micros[kRounds / 2];
}

int Main() {
  auto guard = FrameGuard::Start();
  if (!guard.ok()) {
    return 1;
  }
  fmt::print("{:28} {:>8} {:>8}\n", "", "bare", "guarded");
  fmt::print("{:28} {:8.2f} {:8.2f}\n", "peer to gRPC, GB/s", Throughput(nullptr, true),
             Throughput(guard->get(), true));
  fmt::print("{:28} {:8.2f} {:8.2f}\n", "gRPC to peer, GB/s", Throughput(nullptr, false),
             Throughput(guard->get(), false));
  fmt::print("{:28} {:8.1f} {:8.1f}\n", "round trip, median us", RoundTripMicros(nullptr),
             RoundTripMicros(guard->get()));
  return 0;
}

}  // namespace
}  // namespace creel

int main() { return creel::Main(); }
