#include "supervisor/web/record_tail.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/audit/line.h"
#include "supervisor/base/mutex.h"

using namespace creel;  // NOLINT: a test of one room

namespace {

struct World {
  World() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~World() { std::filesystem::remove_all(path); }
  std::unique_ptr<AuditLog> Open(uint64_t max_file_bytes) {
    return *AuditLog::Open(
        {.directory = path + "/record", .install_id = "i", .max_file_bytes = max_file_bytes},
        clock);
  }
  std::string path = "/tmp/creel-tail-XXXXXX";
  SystemClock clock;
};

struct Seen {
  void Take(std::string_view line) {
    MutexLock lock(mu);
    if (const auto frame = ParseFrame(line)) {
      numbers.push_back(frame->seq);
    }
  }
  bool WaitFor(size_t count) {
    for (int i = 0; i < 1000; ++i) {
      {
        MutexLock lock(mu);
        if (numbers.size() >= count) {
          return true;
        }
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  Mutex mu;
  std::vector<uint64_t> numbers ABSL_GUARDED_BY(mu);
};

}  // namespace

TEST_SUITE("RecordTail") {
  TEST_CASE("every line from now on comes once and in order, over the end of files") {
    World world;
    // Small files: the record begins a new one after a few lines.
    const auto audit = world.Open(2000);
    for (int i = 0; i < 20; ++i) {
      REQUIRE(audit->Append(AuditEvent("before").Number("i", i)).ok());
    }
    const uint64_t first = audit->head().seq + 1;
    Seen seen;
    {
      web::RecordTail tail(*audit, [&](std::string_view line) { seen.Take(line); });
      for (int i = 0; i < 200; ++i) {
        REQUIRE(audit->Append(AuditEvent("after").Number("i", i)).ok());
        if (i % 50 == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(60));
        }
      }
      CHECK(seen.WaitFor(200));
      tail.Stop();
      REQUIRE(audit->Append(AuditEvent("late")).ok());
    }
    MutexLock lock(seen.mu);
    REQUIRE(seen.numbers.size() >= 200);
    for (size_t i = 0; i < seen.numbers.size(); ++i) {
      CHECK(seen.numbers[i] == first + i);
    }
  }
}
