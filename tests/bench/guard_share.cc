#include "tests/bench/guard_share.h"

#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "supervisor/base/unique_fd.h"
#include "supervisor/sandbox/frame_guard.h"
#include "supervisor/sandbox/guarded_calls.h"

namespace creel::bench {
namespace {

// As gRPC cuts a stream up: a message of a quarter MiB in frames of 16 KiB, read in pieces of 8
// KiB.
constexpr size_t kFrame = 16u << 10;
constexpr size_t kFrames = 8;
constexpr size_t kPiece = 8u << 10;
constexpr size_t kRounds = 1024;
constexpr int kRuns = 9;

void Require(bool holds, const char* what) {
  if (!holds) {
    throw std::runtime_error(what);
  }
}

std::string Frames() {
  std::string all;
  for (size_t i = 0; i < kFrames; ++i) {
    std::string frame(9 + kFrame, 'x');
    const unsigned char header[9] = {0, kFrame >> 8 & 0xff, kFrame & 0xff, 0, 0, 0, 0, 0, 1};
    std::copy(std::begin(header), std::end(header), frame.begin());
    all += frame;
  }
  return all;
}

double ThreadMs() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// Of this thread, which writes and reads in turn.
double RunMs(int from, int to, const std::string& bytes) {
  std::vector<char> buffer(bytes.size());
  const double before = ThreadMs();
  for (size_t round = 0; round < kRounds; ++round) {
    Require(
        send(from, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()),
        "send to the guard");
    for (size_t done = 0; done < bytes.size();) {
      std::array<iovec, 16> parts;
      size_t count = 0;
      for (size_t at = done; at < bytes.size() && count < parts.size(); at += kPiece) {
        parts[count++] = {.iov_base = buffer.data() + at,
                          .iov_len = std::min(kPiece, bytes.size() - at)};
      }
      msghdr message = {};
      message.msg_iov = parts.data();
      message.msg_iovlen = count;
      const ssize_t got = recvmsg(to, &message, 0);
      Require(got > 0, "receive through the guard");
      done += static_cast<size_t>(got);
    }
  }
  return ThreadMs() - before;
}

struct Line {
  UniqueFd peer;
  UniqueFd ours;
};

Line Connect() {
  int pair[2];
  Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
  const int size = 1 << 20;
  setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
  return {UniqueFd(pair[0]), UniqueFd(pair[1])};
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace

double GuardMsPerGib() {
  const auto guard = FrameGuard::Start();
  Require(guard.ok(), "start a guard");
  Line bare = Connect();
  Line guarded = Connect();
  auto taken = (*guard)->Guard(std::move(guarded.ours), {}, [](const absl::Status&) {});
  Require(taken.ok(), "guard a socket");
  guarded.ours = std::move(taken->inner);
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  Require(send(guarded.peer.get(), settings.data(), settings.size(), 0) == 9, "begin");
  char first[9];
  iovec part = {.iov_base = first, .iov_len = sizeof(first)};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Require(recvmsg(guarded.ours.get(), &message, 0) == 9, "begin");

  const std::string bytes = Frames();
  std::vector<double> without;
  std::vector<double> with;
  for (int run = 0; run < kRuns; ++run) {
    without.push_back(RunMs(bare.peer.get(), bare.ours.get(), bytes));
    with.push_back(RunMs(guarded.peer.get(), guarded.ours.get(), bytes));
  }
  Require(TrafficOf(guarded.ours.get())->received > kRuns * kRounds * bytes.size(),
          "the guard saw nothing");
  const double gib = static_cast<double>(kRounds * bytes.size()) / (1024.0 * 1024 * 1024);
  return std::max(0.0, Median(with) - Median(without)) / gib;
}

}  // namespace creel::bench
