#include "supervisor/sandbox/frame_guard.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "supervisor/sandbox/grpc_threads.h"
#include "supervisor/sandbox/guard_proof.h"
#include "supervisor/sandbox/guarded_calls.h"
#include "tests/supervisor/sandbox/raw_frames.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One connection under guard: the hostile end, and the one that gRPC would have, which the test
// uses by the same calls.
struct Line {
  UniqueFd peer;
  UniqueFd inner;
  uint64_t id = 0;
  std::shared_ptr<std::promise<absl::Status>> over = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> ended = over->get_future();

  bool Over(milliseconds within) { return ended.wait_for(within) == std::future_status::ready; }
};

void SetBlocking(int fd) { fcntl(fd, F_SETFL, O_RDWR); }

Line Connect(FrameGuard& guard, UniqueFd theirs, UniqueFd ours, const FrameBounds& bounds = {}) {
  Line line;
  line.peer = std::move(theirs);
  absl::StatusOr<FrameGuard::Guarded> guarded =
      guard.Guard(std::move(ours), bounds,
                  [over = line.over](const absl::Status& why) { over->set_value(why); });
  REQUIRE(guarded.ok());
  line.inner = std::move(guarded->inner);
  line.id = guarded->id;
  SetBlocking(line.inner.get());
  return line;
}

Line Connect(FrameGuard& guard, const FrameBounds& bounds = {}) {
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  return Connect(guard, UniqueFd(pair[0]), UniqueFd(pair[1]), bounds);
}

// As gRPC receives.
ssize_t ReceiveSome(int fd, char* data, size_t size, int flags = 0) {
  // In two pieces, as the frames of a peer do not keep to them.
  iovec parts[2] = {{.iov_base = data, .iov_len = size / 2},
                    {.iov_base = data + size / 2, .iov_len = size - size / 2}};
  msghdr message = {};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  return recvmsg(fd, &message, flags);
}

std::string Receive(int fd, size_t size) {
  std::string all(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ReceiveSome(fd, all.data() + done, size - done);
    if (got <= 0) {
      break;
    }
    done += static_cast<size_t>(got);
  }
  all.resize(done);
  return all;
}

// As gRPC sends; false once it has hung up.
bool SendSome(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    iovec part = {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

// Data frames with a pattern that shows a lost or mixed byte.
std::string Patterned(int frames, size_t size, int seed) {
  std::string all = Frame(kSettings, 0, 0, 0);
  for (int i = 0; i < frames; ++i) {
    std::string frame = Frame(kData, 0, 1, size);
    for (size_t at = 9; at < frame.size(); ++at) {
      frame[at] =
          static_cast<char>((at * 31 + static_cast<size_t>(i) * 7) ^ static_cast<size_t>(seed));
    }
    all += frame;
  }
  return all;
}

int OpenDescriptors() {
  int count = 0;
  for (int fd = 0; fd < 4096; ++fd) {
    count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_SUITE("FrameGuard") {
  TEST_CASE("bytes arrive unchanged in both directions at once") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    const std::string in = Patterned(60, 300000, 1);
    const std::string out = Patterned(60, 300000, 2);
    std::thread sends_in([&] { CHECK(SendUntilRefused(line.peer.get(), in)); });
    std::thread sends_out([&] { CHECK(SendSome(line.inner.get(), out)); });
    std::string got_out;
    std::thread reads_out([&] { got_out = Receive(line.peer.get(), out.size()); });
    CHECK(Receive(line.inner.get(), in.size()) == in);
    sends_in.join();
    sends_out.join();
    reads_out.join();
    CHECK(got_out == out);
  }

  TEST_CASE("what was sent before a hang-up still arrives, then the end of file") {
    auto guard = *FrameGuard::Start();
    for (const bool from_peer : {true, false}) {
      CAPTURE(from_peer);
      Line line = Connect(*guard);
      UniqueFd& from = from_peer ? line.peer : line.inner;
      UniqueFd& to = from_peer ? line.inner : line.peer;
      const std::string bytes = Patterned(1, 100000, 3);
      CHECK(SendUntilRefused(from.get(), bytes));
      from.reset();
      CHECK(Receive(to.get(), bytes.size() + 1) == bytes);
      to.reset();
      REQUIRE(line.Over(seconds(5)));
      // Who ended it is told apart.
      CHECK(line.ended.get().code() ==
            (from_peer ? absl::StatusCode::kOk : absl::StatusCode::kUnavailable));
    }
  }

  TEST_CASE("a broken bound ends both sides at once and nobody else's connection") {
    auto guard = *FrameGuard::Start();
    Line good = Connect(*guard);
    const std::string start = Frame(kSettings, 0, 0, 0);
    const std::string bad[] = {
        Frame(kPushPromise, 0, 1, 10),
        start + Frame(kHeaders, 0, 1, 10) + Repeat(Frame(kContinuation, 0, 1, 100), 20),
        start + FrameHeader(kData, 0, 1, 0xffffff),
        start + Repeat(Frame(kPing, 0, 0, 8), 3000),
        start + Repeat(Frame(kSettings, 0, 0, 6), 3000),
        start + Repeat(Frame(kRstStream, 0, 1, 4), 3000),
        start + Frame(99, 0, 0, 0),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    CHECK(SendUntilRefused(good.peer.get(), start));
    CHECK(Receive(good.inner.get(), start.size()) == start);
    for (const std::string& bytes : bad) {
      Line line = Connect(*guard);
      SendUntilRefused(line.peer.get(), bytes);
      Receive(line.inner.get(), bytes.size() + 1);
      CHECK(errno == ECONNRESET);
      REQUIRE(line.Over(seconds(5)));
      const absl::Status why = line.ended.get();
      CAPTURE(std::string(why.message()));
      CHECK((absl::IsInvalidArgument(why) || absl::IsResourceExhausted(why)));
      CHECK(HangsUpWithin(line.peer.get(), seconds(1)));
      CHECK(HangsUpWithin(line.inner.get(), seconds(1)));
      const std::string more = Frame(kData, 0, 1, 500);
      CHECK(SendUntilRefused(good.peer.get(), more));
      CHECK(Receive(good.inner.get(), more.size()) == more);
    }
  }

  TEST_CASE("nothing of a piece that breaks a bound reaches gRPC") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    CHECK(SendUntilRefused(line.peer.get(),
                           Frame(kSettings, 0, 0, 0) + Frame(kPushPromise, 0, 1, 10)));
    CHECK(Receive(line.inner.get(), 4096).empty());
    CHECK(Receive(line.inner.get(), 1).empty());
  }

  TEST_CASE("a peer that does not begin is dropped") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard, {.first_frame_within = milliseconds(100)});
    REQUIRE(line.Over(seconds(5)));
    CHECK(absl::IsDeadlineExceeded(line.ended.get()));
    Line other = Connect(*guard, {.first_frame_within = milliseconds(100)});
    CHECK(SendUntilRefused(other.peer.get(), Frame(kSettings, 0, 0, 0)));
    CHECK(Receive(other.inner.get(), 9).size() == 9);
    CHECK_FALSE(other.Over(milliseconds(400)));
  }

  TEST_CASE("a peer that passes descriptors is dropped, and they are closed") {
    auto guard = *FrameGuard::Start();
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    UniqueFd theirs(pair[0]);
    UniqueFd ours(pair[1]);
    const int before = OpenDescriptors();
    // Sent before the guard has the socket, as some kernels then refuse it.
    int pipes[2];
    REQUIRE(pipe2(pipes, O_CLOEXEC) == 0);
    UniqueFd read_end(pipes[0]);
    {
      UniqueFd write_end(pipes[1]);
      std::string bytes = Frame(kSettings, 0, 0, 0);
      iovec vec = {.iov_base = bytes.data(), .iov_len = bytes.size()};
      alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
      msghdr message = {};
      message.msg_iov = &vec;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* part = CMSG_FIRSTHDR(&message);
      part->cmsg_level = SOL_SOCKET;
      part->cmsg_type = SCM_RIGHTS;
      part->cmsg_len = CMSG_LEN(2 * sizeof(int));
      const int passed[2] = {write_end.get(), write_end.get()};
      std::memcpy(CMSG_DATA(part), passed, sizeof(passed));
      REQUIRE(sendmsg(theirs.get(), &message, 0) > 0);
    }
    Line line = Connect(*guard, std::move(theirs), std::move(ours));
    CHECK(Receive(line.inner.get(), 1).empty());
    REQUIRE(line.Over(seconds(5)));
    CHECK(absl::IsPermissionDenied(line.ended.get()));
    // Its last writer is closed, so it reads the end of file.
    char byte;
    pollfd waiting = {.fd = read_end.get(), .events = POLLIN, .revents = 0};
    REQUIRE(poll(&waiting, 1, 5000) == 1);
    CHECK(read(read_end.get(), &byte, 1) == 0);
    line.inner.reset();
    line.peer.reset();
    read_end.reset();
    CHECK(OpenDescriptors() <= before);
  }

  TEST_CASE("Drop ends a connection with the reason it was given") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    guard->Drop(line.id, absl::AbortedError("enough"));
    guard->Drop(line.id, absl::AbortedError("twice"));
    REQUIRE(line.Over(seconds(5)));
    CHECK(line.ended.get() == absl::AbortedError("enough"));
    CHECK(HangsUpWithin(line.peer.get(), seconds(1)));
  }

  TEST_CASE("a reader that does not read holds up its own line only, with bounded memory") {
    auto guard = *FrameGuard::Start();
    Line stuck = Connect(*guard);
    Line good = Connect(*guard);
    const std::string frame = Frame(kData, 0, 1, 1u << 20);
    fcntl(stuck.peer.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    CHECK(send(stuck.peer.get(), Frame(kSettings, 0, 0, 0).data(), 9, 0) == 9);
    size_t taken = 0;
    for (int quiet = 0; quiet < 20;) {
      const ssize_t sent = send(stuck.peer.get(), frame.data() + taken % frame.size(),
                                frame.size() - taken % frame.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        taken += static_cast<size_t>(sent);
        quiet = 0;
      } else {
        ++quiet;
        std::this_thread::sleep_for(milliseconds(10));
      }
      REQUIRE(taken < (16u << 20));
    }
    const std::string bytes = Patterned(20, 100000, 4);
    std::thread sender([&] { SendUntilRefused(good.peer.get(), bytes); });
    CHECK(Receive(good.inner.get(), bytes.size()) == bytes);
    sender.join();
    CHECK(Receive(stuck.inner.get(), taken + 9).size() == taken + 9);
  }

  TEST_CASE("a peer that stops reading cannot keep a closed connection") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    fcntl(line.inner.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    const std::string bytes(1u << 20, 'x');
    for (int quiet = 0; quiet < 10;) {
      if (send(line.inner.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) {
        ++quiet;
        std::this_thread::sleep_for(milliseconds(10));
      }
    }
    line.inner.reset();
    REQUIRE(line.Over(seconds(5)));
    CHECK(line.ended.get().code() == absl::StatusCode::kUnavailable);
  }

  TEST_CASE("a peer that only refuses to be written to cannot keep its connection") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    CHECK(SendUntilRefused(line.peer.get(), Frame(kSettings, 0, 0, 0)));
    REQUIRE(shutdown(line.peer.get(), SHUT_RD) == 0);
    CHECK_FALSE(SendSome(line.inner.get(), Frame(kPing, 0, 0, 8)));
    REQUIRE(line.Over(seconds(5)));
  }

  TEST_CASE("a peer that closes its half and does not read cannot keep its connection") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    REQUIRE(shutdown(line.peer.get(), SHUT_WR) == 0);
    CHECK(Receive(line.inner.get(), 1).empty());
    REQUIRE(line.Over(seconds(5)));
    CHECK(line.ended.get().ok());
    // gRPC, which may be about to write, must not be left waiting for room.
    CHECK_FALSE(SendSome(line.inner.get(), std::string(8u << 20, 'x')));
  }

  TEST_CASE("no call shows gRPC bytes that the guard has not seen") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    const std::string start = Frame(kSettings, 0, 0, 0);
    CHECK(SendUntilRefused(line.peer.get(), start));
    char bytes[64];
    for (const int flags : {int{MSG_PEEK}, int{MSG_TRUNC}, int{MSG_PEEK | MSG_DONTWAIT}}) {
      CHECK(ReceiveSome(line.inner.get(), bytes, sizeof(bytes), flags) == -1);
      CHECK(errno == EOPNOTSUPP);
    }
    CHECK(TrafficOf(line.inner.get())->received == 0);
    CHECK(Receive(line.inner.get(), start.size()) == start);
    CHECK(TrafficOf(line.inner.get())->received == start.size());
    // What is not there is told as ever, and ends nothing.
    CHECK(ReceiveSome(line.inner.get(), bytes, sizeof(bytes), MSG_DONTWAIT) == -1);
    CHECK(errno == EAGAIN);
    CHECK_FALSE(line.Over(milliseconds(50)));
  }

  TEST_CASE("a frame that arrives byte by byte is the same frame") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    const std::string bytes = Patterned(1, 40, 5) + FrameHeader(kPushPromise, 0, 1, 4);
    CHECK(SendUntilRefused(line.peer.get(), bytes));
    char byte;
    for (size_t i = 0; i + 1 < bytes.size(); ++i) {
      REQUIRE(ReceiveSome(line.inner.get(), &byte, 1) == 1);
      REQUIRE(byte == bytes[i]);
    }
    // The last byte of the header completes what is not allowed.
    CHECK(ReceiveSome(line.inner.get(), &byte, 1) == -1);
    REQUIRE(line.Over(seconds(5)));
    CHECK(absl::IsInvalidArgument(line.ended.get()));
  }

  TEST_CASE("a number that has been closed is not guarded any more when it comes again") {
    auto guard = *FrameGuard::Start();
    for (int round = 0; round < 50; ++round) {
      Line line = Connect(*guard);
      const int number = line.inner.get();
      line.inner.reset();
      REQUIRE(line.Over(seconds(5)));
      // The connection's end is told late on purpose: it must not touch the new owner.
      while (fcntl(number, F_GETFD) >= 0) {
        std::this_thread::yield();
      }
      int pair[2];
      REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
      UniqueFd one(pair[0]);
      UniqueFd other(pair[1]);
      UniqueFd again(fcntl(one.get(), F_DUPFD_CLOEXEC, number));
      guard->Drop(line.id, absl::AbortedError("late"));
      CHECK(SendSome(other.get(), "junk junk junk"));
      char bytes[64];
      CHECK(ReceiveSome(again.get(), bytes, sizeof(bytes), MSG_PEEK) == 14);
      CHECK(ReceiveSome(again.get(), bytes, sizeof(bytes)) == 14);
    }
  }

  TEST_CASE("descriptors that come and go in many threads are guarded or not, each as it should") {
    auto guard = *FrameGuard::Start();
    std::vector<std::thread> threads;
    std::atomic<int> wrong = 0;
    for (int each = 0; each < 4; ++each) {
      threads.emplace_back([&, each] {
        for (int round = 0; round < 200; ++round) {
          int pair[2];
          if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
            ++wrong;
            continue;
          }
          UniqueFd theirs(pair[0]);
          UniqueFd ours(pair[1]);
          uint64_t id = 0;
          const bool under_guard = (round + each) % 2 == 0;
          if (under_guard) {
            auto guarded = guard->Guard(std::move(ours), {}, [](const absl::Status&) {});
            ours = std::move(guarded->inner);
            id = guarded->id;
          }
          SendUntilRefused(theirs.get(), "junk junk junk");
          char bytes[64];
          const ssize_t got = ReceiveSome(ours.get(), bytes, sizeof(bytes));
          wrong += got == (under_guard ? -1 : 14) ? 0 : 1;
          guard->Drop(id, absl::AbortedError("beside its end"));
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("connections outlive their guard, and end with it") {
    auto guard = *FrameGuard::Start();
    Line line = Connect(*guard);
    CHECK(SendUntilRefused(line.peer.get(), Frame(kSettings, 0, 0, 0)));
    guard.reset();
    REQUIRE(line.Over(milliseconds(0)));
    CHECK(absl::IsCancelled(line.ended.get()));
    CHECK(Receive(line.inner.get(), 1).empty());
    CHECK(errno == ECONNRESET);
    CHECK(HangsUpWithin(line.peer.get(), seconds(1)));
    line.inner.reset();
  }

  TEST_CASE("this program's gRPC goes through the guard, and it is found out if it does not") {
    HoldGrpcThreads();
    auto guard = *FrameGuard::Start();
    const absl::Status proved = ProveGuardedCalls(*guard);
    CAPTURE(std::string(proved.message()));
    CHECK(proved.ok());
    const absl::Status past = ProveGuardedCalls(*guard, [](int fd) { UnguardCalls(fd); });
    CHECK(absl::IsFailedPrecondition(past));
  }

  TEST_CASE("a quiet guard does not run") {
    auto guard = *FrameGuard::Start();
    std::vector<Line> lines;
    for (int i = 0; i < 20; ++i) {
      lines.push_back(Connect(*guard));
      CHECK(SendUntilRefused(lines.back().peer.get(), Frame(kSettings, 0, 0, 0)));
      CHECK(Receive(lines.back().inner.get(), 9).size() == 9);
    }
    // One that has been half-closed, and one that is blocked.
    shutdown(lines[0].peer.get(), SHUT_WR);
    fcntl(lines[1].peer.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    const std::string frame = Frame(kData, 0, 1, 1u << 20);
    while (send(lines[1].peer.get(), frame.data(), frame.size(), MSG_NOSIGNAL) > 0) {
    }
    std::this_thread::sleep_for(milliseconds(100));
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(milliseconds(500));
    const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    CHECK(used < 0.1);
  }

  TEST_CASE("connections that come and go leave no descriptor behind") {
    auto guard = *FrameGuard::Start();
    { Line warm = Connect(*guard); }
    const auto settle = [&] {
      for (int i = 0; i < 500 && (guard->connections() > 0 || guard->closer().backlog() > 0); ++i) {
        std::this_thread::sleep_for(milliseconds(10));
      }
    };
    settle();
    const int before = OpenDescriptors();
    for (int i = 0; i < 300; ++i) {
      Line line = Connect(*guard);
      SendUntilRefused(line.peer.get(), i % 2 == 0 ? Frame(kSettings, 0, 0, 0) : "junk junk junk");
    }
    settle();
    CHECK(OpenDescriptors() <= before);
  }
}

}  // namespace creel
