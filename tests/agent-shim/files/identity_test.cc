#include "agent-shim/files/identity.h"

#include <sys/inotify.h>
#include <sys/resource.h>

#include <fstream>
#include <thread>

#include "agent-shim/files/worker_pool.h"
#include "agent-shim/files/writer.h"
#include "tests/agent-shim/files/scratch.h"

namespace creel::shim {
namespace {

constexpr ToolIdentity kNobody{.uid = 65534, .gid = 65534};

// Runs `body` on a thread of its own, since what it becomes it stays.
template <typename Body>
void OnThread(Body body) {
  std::thread(body).join();
}

TEST_SUITE("BecomeTool") {
  TEST_CASE("as root a thread gives up what root may, and the others do not") {
    if (geteuid() != 0) {
      return;
    }
    const Scratch scratch;
    chmod(scratch.base().c_str(), 0755);
    chmod(scratch.Work("").c_str(), 0777);
    Put(scratch.Work("secret"), "root's");
    chmod(scratch.Work("secret").c_str(), 0600);
    Put(scratch.Work("readable"), "all's");
    OnThread([&] {
      REQUIRE(BecomeTool(kNobody).ok());
      v1::ReadFileArgs read;
      read.set_path("secret");
      CHECK(absl::IsPermissionDenied(Drain(ReadFile(scratch.roots(), read)).status()));
      v1::WriteFileArgs write;
      const Cancel cancel;
      // The directory would allow a replacement; the file's own mode does not.
      for (const char* path : {"secret", "readable"}) {
        write.set_path(path);
        CHECK(absl::IsPermissionDenied(FileWriter::Open(scratch.roots(), write, cancel).status()));
      }
      write.set_path("mine");
      absl::StatusOr<std::unique_ptr<FileWriter>> writer =
          FileWriter::Open(scratch.roots(), write, cancel);
      REQUIRE_MESSAGE(writer.ok(), std::string(writer.status().message()));
      CHECK((*writer)->Commit().ok());
      CHECK(chown(scratch.Work("mine").c_str(), 0, 0) != 0);
      // The uids by which signals and ptrace are judged stay root's.
      CHECK(getuid() == 0);
      CHECK(geteuid() == 0);
      std::string line;
      for (std::ifstream status("/proc/thread-self/status"); std::getline(status, line);) {
        if (line.rfind("Cap", 0) == 0 && line.rfind("CapBnd", 0) != 0) {
          CHECK(line.find_first_not_of("0", 8) == std::string::npos);
        }
        if (line.rfind("Groups:", 0) == 0) {
          CHECK(line.find_first_of("0123456789") == std::string::npos);
        }
      }
      // Again, as for a worker that was started by a worker.
      CHECK(BecomeTool(kNobody).ok());
      CHECK(!BecomeTool({.uid = 1234, .gid = 1234}).ok());
    });
    struct stat stat {};
    REQUIRE(lstat(scratch.Work("mine").c_str(), &stat) == 0);
    CHECK(stat.st_uid == kNobody.uid);
    CHECK(stat.st_gid == kNobody.gid);
    CHECK(Get(scratch.Work("secret")) == "root's");
  }

  TEST_CASE("without the right to change, only oneself will do") {
    OnThread([] {
      if (geteuid() == 0) {
        REQUIRE(BecomeTool(kNobody).ok());
      }
      CHECK(!BecomeTool({.uid = 4711, .gid = 4711}).ok());
    });
    CHECK(!BecomeTool({.uid = static_cast<uid_t>(-1), .gid = 0}).ok());
  }
}

TEST_SUITE("MakeInotifyAs") {
  TEST_CASE("instances count against the tool and not against root") {
    if (geteuid() != 0) {
      return;
    }
    std::ifstream limit_file("/proc/sys/fs/inotify/max_user_instances");
    int limit = 0;
    limit_file >> limit;
    if (limit <= 0 || limit > 800) {
      return;
    }
    std::vector<UniqueFd> instances;
    absl::Status full;
    for (int i = 0; i <= limit && full.ok(); ++i) {
      absl::StatusOr<UniqueFd> instance = MakeInotifyAs({.uid = 64'321, .gid = 64'321});
      if (instance.ok()) {
        instances.push_back(*std::move(instance));
      } else {
        full = instance.status();
      }
    }
    CHECK(absl::IsResourceExhausted(full));
    CHECK(static_cast<int>(instances.size()) == limit);
    const UniqueFd own(inotify_init1(IN_CLOEXEC));
    CHECK(own.valid());
    CHECK(geteuid() == 0);
  }
}

TEST_SUITE("WorkerPool") {
  TEST_CASE("threads are at most as many as allowed, and end when idle") {
    const ToolIdentity self{.uid = geteuid(), .gid = getegid()};
    std::atomic<int> ran = 0;
    {
      WorkerPool pool(self, 3);
      CHECK(pool.threads() == 0);
      for (int i = 0; i < 50; ++i) {
        pool.Submit([&](const absl::Status& identity) {
          CHECK(identity.ok());
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          ++ran;
        });
      }
      CHECK(pool.threads() == 3);
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (pool.threads() > 0 && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      CHECK(pool.threads() == 0);
      CHECK(ran == 50);
      pool.Submit([&](const absl::Status&) { ++ran; });
    }
    CHECK(ran == 51);
  }

  TEST_CASE("work on a thread without the identity is told so") {
    std::atomic<bool> refused = false;
    {
      WorkerPool pool({.uid = static_cast<uid_t>(-1), .gid = 0}, 1);
      pool.Submit([&](const absl::Status& identity) { refused = !identity.ok(); });
    }
    CHECK(refused);
  }
}

}  // namespace
}  // namespace creel::shim
