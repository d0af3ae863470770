#include "supervisor/sandbox/shim_link.h"

#include <doctest/doctest.h>
#include <grpcpp/client_context.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/supervisor/sandbox/fake_shim.h"
#include "tests/supervisor/sandbox/raw_frames.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = "/tmp/creel-link-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool Within(milliseconds time, const std::function<bool()>& holds) {
  const Deadline deadline = After(time);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// A link and what its callbacks told.
class Sandbox {
 public:
  explicit Sandbox(LinkPool& pool, bool first = true,
                   const std::function<void(ShimLink::Options&)>& change = {},
                   const std::string& below = "", std::function<void(bool)> on_waiting = {})
      : directory_(temp_.path() + below) {
    std::filesystem::create_directories(directory_);
    ShimLink::Options options;
    options.directory = directory_;
    options.sandbox_id = "0123456789abcdef";
    options.key = std::string(32, 'k');
    options.first = first;
    options.setup.set_sandbox_id(options.sandbox_id);
    if (change) {
      change(options);
    }
    ShimLink::Callbacks callbacks;
    callbacks.on_up = [this](std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                             const std::string&) {
      MutexLock lock(mu_);
      ++ups_;
      stub_ = std::move(stub);
      changed_.SignalAll();
    };
    callbacks.on_waiting = std::move(on_waiting);
    callbacks.on_down = [this](const absl::Status& why) {
      MutexLock lock(mu_);
      downs_.push_back(why);
      stub_.reset();
      changed_.SignalAll();
    };
    callbacks.on_dropped = [this](const DroppedPeer& peer) {
      MutexLock lock(mu_);
      dropped_.push_back(peer.reason);
      changed_.SignalAll();
    };
    absl::StatusOr<std::unique_ptr<ShimLink>> link =
        ShimLink::Listen(pool, std::move(options), std::move(callbacks));
    REQUIRE(link.ok());
    link_ = std::move(*link);
  }

  [[nodiscard]] std::string socket() const { return directory_ + "/shim.sock"; }
  ShimLink& link() { return *link_; }
  void Destroy() { link_.reset(); }

  bool UpWithin(milliseconds time, int times = 1) {
    return Wait(time, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ups_ >= times; });
  }
  bool DownWithin(milliseconds time, size_t times = 1) {
    return Wait(time, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return downs_.size() >= times; });
  }
  // Whether a peer was dropped with a reason that holds `text`.
  bool DroppedWithin(milliseconds time, const std::string& text) {
    return Wait(time, [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return std::any_of(dropped_.begin(), dropped_.end(), [&](const std::string& reason) {
        return reason.find(text) != std::string::npos;
      });
    });
  }
  std::shared_ptr<shim::v1::Shim::StubInterface> stub() {
    MutexLock lock(mu_);
    return stub_;
  }
  absl::Status down(size_t index) {
    MutexLock lock(mu_);
    return downs_.at(index);
  }
  int ups() {
    MutexLock lock(mu_);
    return ups_;
  }
  bool Serves() {
    const std::shared_ptr<shim::v1::Shim::StubInterface> stub = this->stub();
    if (stub == nullptr) {
      return false;
    }
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(5));
    shim::v1::GetStatusResponse response;
    return stub->GetStatus(&context, {}, &response).ok() && response.threads() == 7;
  }

 private:
  template <typename Condition>
  bool Wait(milliseconds time, Condition holds) {
    const Deadline deadline = After(time);
    MutexLock lock(mu_);
    while (!holds()) {
      if (!changed_.WaitUntil(mu_, deadline)) {
        return holds();
      }
    }
    return true;
  }

  TempDirectory temp_;
  const std::string directory_;
  Mutex mu_;
  CondVar changed_;
  int ups_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<absl::Status> downs_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> dropped_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<shim::v1::Shim::StubInterface> stub_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<ShimLink> link_;
};

// Calls home until somebody listens.
bool CallAgain(FakeShim& shim, const std::string& path) {
  for (int i = 0; i < 300; ++i) {
    if (shim.Call(path)) {
      return true;
    }
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

}  // namespace

TEST_SUITE("ShimLink") {
  TEST_CASE("the first call hands over the key, and the link stands") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    struct stat info;
    REQUIRE(stat(sandbox.socket().c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0600);
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(sandbox.UpWithin(seconds(5)));
    CHECK(shim.key() == std::string(32, 'k'));
    CHECK(sandbox.Serves());
  }

  TEST_CASE("while the link stands nothing listens, afterwards it listens again") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(sandbox.UpWithin(seconds(5)));
    CHECK_FALSE(std::filesystem::exists(sandbox.socket()));
    CHECK_FALSE(ConnectUnix(sandbox.socket()).valid());
    for (int again = 1; again <= 5; ++again) {
      shim.HangUp();
      REQUIRE(sandbox.DownWithin(seconds(5), static_cast<size_t>(again)));
      CHECK(sandbox.down(static_cast<size_t>(again) - 1).ok());
      REQUIRE(CallAgain(shim, sandbox.socket()));
      REQUIRE(sandbox.UpWithin(seconds(5), again + 1));
      CHECK(sandbox.Serves());
    }
  }

  TEST_CASE("a supervisor that lost the answer to its first call still gets the shim") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    FakeShim shim;
    shim.set_key(std::string(32, 'k'), "0123456789abcdef");
    REQUIRE(shim.Call(sandbox.socket()));
    CHECK(sandbox.UpWithin(seconds(5)));
  }

  TEST_CASE("who does not prove to be the shim is dropped, and the shim comes in") {
    const struct {
      const char* what;
      std::function<void(FakeShim&)> make;
      const char* reason;
    } rows[] = {
        {"wrong key",
         [](FakeShim& shim) { shim.set_key(std::string(32, 'x'), "0123456789abcdef"); },
         "its proof is wrong"},
        {"no proof", [](FakeShim& shim) { shim.lie = [](auto& hello) { hello.clear_proof(); }; },
         "its proof is wrong"},
        {"another sandbox",
         [](FakeShim& shim) {
           shim.lie = [](auto& hello) { hello.set_sandbox_id("\x1b[2Jfedc"); };
         },
         "[2Jfedc'"},
        {"another version", [](FakeShim& shim) { shim.version = "7.0.0"; }, "version 7.0.0"},
        {"nonsense for a version", [](FakeShim& shim) { shim.version = "\n"; }, "of the form"},
        {"no key", [](FakeShim& shim) { shim.set_key("", ""); }, "an error: a key too"},
    };
    for (const auto& row : rows) {
      CAPTURE(std::string(row.what));
      auto pool = *LinkPool::Start();
      Sandbox sandbox(*pool, false);
      FakeShim bad;
      bad.set_key(std::string(32, 'k'), "0123456789abcdef");
      row.make(bad);
      REQUIRE(bad.Call(sandbox.socket()));
      CHECK(sandbox.DroppedWithin(seconds(5), row.reason));
      CHECK(sandbox.ups() == 0);
      FakeShim good;
      good.set_key(std::string(32, 'k'), "0123456789abcdef");
      REQUIRE(good.Call(sandbox.socket()));
      CHECK(sandbox.UpWithin(seconds(5)));
    }
  }

  TEST_CASE("a proof that was good once is not good again") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    std::string proof;
    FakeShim shim;
    shim.lie = [&](auto& hello) { proof = hello.proof(); };
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(sandbox.UpWithin(seconds(5)));
    shim.HangUp();
    REQUIRE(sandbox.DownWithin(seconds(5)));
    FakeShim other;
    other.set_key("?", "0123456789abcdef");
    other.lie = [&](auto& hello) { hello.set_proof(proof); };
    REQUIRE(CallAgain(other, sandbox.socket()));
    CHECK(sandbox.DroppedWithin(seconds(5), "its proof is wrong"));
    CHECK(sandbox.ups() == 1);
  }

  TEST_CASE("a silent peer is dropped after a second") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    const auto start = std::chrono::steady_clock::now();
    const UniqueFd silent = ConnectUnix(sandbox.socket());
    REQUIRE(silent.valid());
    CHECK(HangsUpWithin(silent.get(), seconds(5)));
    const auto took = std::chrono::steady_clock::now() - start;
    CHECK(took > milliseconds(900));
    CHECK(took < milliseconds(2500));
    CHECK(sandbox.DroppedWithin(seconds(1), "not proved itself after 1000 ms"));
  }

  TEST_CASE("a crowd does not keep the shim out") {
    for (const bool first : {true, false}) {
      CAPTURE(first);
      auto pool = *LinkPool::Start();
      Sandbox sandbox(*pool, first);
      std::vector<std::thread> crowd;
      for (int i = 0; i < 50; ++i) {
        crowd.emplace_back([&sandbox] {
          const UniqueFd fd = ConnectUnix(sandbox.socket());
          if (fd.valid()) {
            HangsUpWithin(fd.get(), seconds(30));
          }
        });
      }
      std::this_thread::sleep_for(milliseconds(100));
      FakeShim shim;
      if (!first) {
        shim.set_key(std::string(32, 'k'), "0123456789abcdef");
      }
      CHECK(CallAgain(shim, sandbox.socket()));
      CHECK(sandbox.UpWithin(seconds(30)));
      CHECK(sandbox.Serves());
      for (std::thread& one : crowd) {
        one.join();
      }
    }
  }

  TEST_CASE("a hostile peer is dropped with the reason, and other links serve on") {
    auto pool = *LinkPool::Start();
    Sandbox other(*pool);
    FakeShim shim;
    REQUIRE(shim.Call(other.socket()));
    REQUIRE(other.UpWithin(seconds(5)));
    const std::string start = Frame(kSettings, 0, 0, 0);
    const struct {
      std::string bytes;
      const char* reason;
    } rows[] = {
        {start + Frame(kHeaders, 0, 1, 10) + Repeat(Frame(kContinuation, 0, 1, 1000), 10000),
         "CONTINUATION frames"},
        {start + FrameHeader(kData, 0, 1, 0xffffff) + std::string(1 << 20, 'x'), "above the bound"},
        {start + Repeat(Frame(kPing, 0, 0, 8), 50000), "control frames a second"},
        {start + Repeat(Frame(kSettings, 0, 0, 6), 50000), "control frames a second"},
        {start + Repeat(Frame(kRstStream, 0, 1, 4), 50000), "control frames a second"},
        {start + Frame(kPushPromise, 0, 1, 4), "PUSH_PROMISE"},
        {start + Frame(77, 0, 1, 4), "unknown type 77"},
        {"GET / HTTP/1.1\r\n\r\n", "dropped a peer"},
    };
    Sandbox sandbox(*pool);
    for (const auto& row : rows) {
      CAPTURE(std::string(row.reason));
      const UniqueFd hostile = ConnectUnix(sandbox.socket());
      REQUIRE(hostile.valid());
      SendUntilRefused(hostile.get(), row.bytes);
      CHECK(sandbox.DroppedWithin(seconds(5), row.reason));
      CHECK(other.Serves());
    }
  }

  TEST_CASE("a shim that turns hostile is dropped, its calls end, and the link listens again") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(sandbox.UpWithin(seconds(5)));
    const std::shared_ptr<shim::v1::Shim::StubInterface> stub = sandbox.stub();
    CHECK(SendUntilRefused(shim.wire(), Frame(kPushPromise, 0, 1, 4)));
    REQUIRE(sandbox.DownWithin(seconds(5)));
    CHECK(absl::IsInvalidArgument(sandbox.down(0)));
    CHECK(sandbox.DroppedWithin(seconds(1), "PUSH_PROMISE"));
    grpc::ClientContext context;
    shim::v1::GetStatusResponse response;
    CHECK(stub->GetStatus(&context, {}, &response).error_code() == grpc::StatusCode::UNAVAILABLE);
    REQUIRE(CallAgain(shim, sandbox.socket()));
    CHECK(sandbox.UpWithin(seconds(5), 2));
  }

  TEST_CASE("a call that waits ends at once when the connection does") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool);
    // Says Hello itself and then nothing more: the answer comes from a real shim's server, frozen
    // by not being asked any further.
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(sandbox.UpWithin(seconds(5)));
    const std::shared_ptr<shim::v1::Shim::StubInterface> stub = sandbox.stub();
    sandbox.link().Drop(absl::AbortedError("the container ended"));
    grpc::ClientContext context;
    shim::v1::GetStatusResponse response;
    const auto start = std::chrono::steady_clock::now();
    REQUIRE(sandbox.DownWithin(seconds(5)));
    CHECK(sandbox.down(0) == absl::AbortedError("the container ended"));
    CHECK_FALSE(stub->GetStatus(&context, {}, &response).ok());
    CHECK(std::chrono::steady_clock::now() - start < seconds(1));
  }

  TEST_CASE("credentials are checked where they are known") {
    auto pool = *LinkPool::Start();
    Sandbox wrong_uid(*pool, true, [](auto& options) { options.peer_uid = geteuid() + 1; });
    const UniqueFd first = ConnectUnix(wrong_uid.socket());
    CHECK(HangsUpWithin(first.get(), milliseconds(900)));
    CHECK(wrong_uid.DroppedWithin(seconds(1), "it is of uid"));
    Sandbox wrong_pid(*pool, true,
                      [](auto& options) { options.expected_pid = [] { return getpid() + 1; }; });
    const UniqueFd second = ConnectUnix(wrong_pid.socket());
    CHECK(HangsUpWithin(second.get(), milliseconds(900)));
    CHECK(wrong_pid.DroppedWithin(seconds(1), "not the container's first"));
    Sandbox right(*pool, true, [](auto& options) {
      options.peer_uid = geteuid();
      options.expected_pid = [] { return getpid(); };
    });
    FakeShim shim;
    REQUIRE(shim.Call(right.socket()));
    CHECK(right.UpWithin(seconds(5)));
  }

  TEST_CASE("a directory with a long path can be listened in") {
    auto pool = *LinkPool::Start();
    Sandbox sandbox(*pool, true, {}, "/" + std::string(200, 'd'));
    CHECK(std::filesystem::is_socket(sandbox.socket()));
    std::filesystem::create_symlink(std::filesystem::path(sandbox.socket()).parent_path(),
                                    "/tmp/creel-link-short-" + std::to_string(getpid()));
    const std::string link = "/tmp/creel-link-short-" + std::to_string(getpid());
    FakeShim shim;
    CHECK(shim.Call(link + "/shim.sock"));
    CHECK(sandbox.UpWithin(seconds(5)));
    std::filesystem::remove(link);
  }

  TEST_CASE("a link can be destroyed at any point") {
    auto pool = *LinkPool::Start();
    for (int i = 0; i < 60; ++i) {
      Sandbox sandbox(*pool);
      FakeShim shim;
      const UniqueFd silent = i % 3 == 0 ? ConnectUnix(sandbox.socket()) : UniqueFd();
      shim.Call(sandbox.socket());
      std::this_thread::sleep_for(std::chrono::microseconds(i * 150));
      sandbox.Destroy();
      CHECK_FALSE(std::filesystem::exists(sandbox.socket()));
    }
  }

  TEST_CASE("a directory that is missing, and a key of another size, are errors") {
    auto pool = *LinkPool::Start();
    ShimLink::Options options;
    options.directory = "/nonexistent/creel";
    options.key = std::string(32, 'k');
    CHECK(absl::IsNotFound(ShimLink::Listen(*pool, options, {}).status()));
    options.key = "short";
    CHECK(absl::IsInvalidArgument(ShimLink::Listen(*pool, options, {}).status()));
  }

  TEST_CASE("the supervisor speaks to its own minor version and the one before") {
    const struct {
      const char* ours;
      const char* theirs;
      bool speaks;
    } rows[] = {
        {"1.4.0", "1.4.0", true},
        {"1.4.0", "1.4.9", true},
        {"1.4.2", "1.3.0", true},
        {"1.4.0", "1.2.0", false},
        {"1.4.0", "1.5.0", false},
        {"1.4.0", "2.4.0", false},
        {"1.4.0", "0.4.0", false},
        {"1.0.0", "0.9.0", false},
        {"1.4.0", "1.4", false},
        {"1.4.0", "", false},
        {"1.4.0", "1.4.0x", false},
        {"1.4.0", "-1.4.0", false},
        {"1.4.0", "1.99999999999.0", false},
    };
    for (const auto& row : rows) {
      CAPTURE(std::string(row.theirs));
      CHECK(CheckShimVersion(row.ours, row.theirs).ok() == row.speaks);
    }
  }

  TEST_CASE("one that is kept waiting is told nothing until it is begun with") {
    auto pool = LinkPool::Start();
    REQUIRE(pool.ok());
    std::atomic<int> here{0};
    Sandbox sandbox(
        **pool, true, [](ShimLink::Options& options) { options.ahead = true; }, "",
        [&](bool is_here) { here = is_here ? 1 : -1; });
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(Within(seconds(5), [&] { return here == 1; }));
    // Longer than a peer may take to prove itself: it is not its turn.
    CHECK_FALSE(sandbox.UpWithin(milliseconds(1500)));
    CHECK(shim.key().empty());
    shim::v1::SandboxSetup setup;
    setup.set_sandbox_id("0123456789abcdef");
    sandbox.link().Begin(setup);
    REQUIRE(sandbox.UpWithin(seconds(5)));
    CHECK(shim.key() == std::string(32, 'k'));
    CHECK(sandbox.Serves());
  }

  TEST_CASE("one that hangs up while it waits is missed, and the next takes its place") {
    auto pool = LinkPool::Start();
    REQUIRE(pool.ok());
    std::atomic<int> here{0};
    Sandbox sandbox(
        **pool, true, [](ShimLink::Options& options) { options.ahead = true; }, "",
        [&](bool is_here) { here = is_here ? 1 : -1; });
    {
      FakeShim shim;
      REQUIRE(shim.Call(sandbox.socket()));
      REQUIRE(Within(seconds(5), [&] { return here == 1; }));
    }
    REQUIRE(Within(seconds(5), [&] { return here == -1; }));
    FakeShim next;
    REQUIRE(next.Call(sandbox.socket()));
    REQUIRE(Within(seconds(5), [&] { return here == 1; }));
    shim::v1::SandboxSetup setup;
    setup.set_sandbox_id("0123456789abcdef");
    sandbox.link().Begin(setup);
    CHECK(sandbox.UpWithin(seconds(5)));
  }

  TEST_CASE("one that is not the container's first process is not begun with") {
    auto pool = LinkPool::Start();
    REQUIRE(pool.ok());
    std::atomic<int> here{0};
    std::atomic<int> expected{0};
    Sandbox sandbox(
        **pool, true,
        [&](ShimLink::Options& options) {
          options.ahead = true;
          options.expected_pid = [&] { return expected.load(); };
        },
        "", [&](bool is_here) { here = is_here ? 1 : -1; });
    FakeShim shim;
    REQUIRE(shim.Call(sandbox.socket()));
    REQUIRE(Within(seconds(5), [&] { return here == 1; }));
    // Known only now.
    expected = 1;
    sandbox.link().Begin({});
    CHECK(sandbox.DroppedWithin(seconds(5), "not the container's first"));
    CHECK_FALSE(sandbox.UpWithin(milliseconds(300)));
    CHECK(shim.key().empty());
  }
}

}  // namespace creel
