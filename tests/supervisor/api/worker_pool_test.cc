#include "supervisor/api/worker_pool.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>

using creel::WorkerPool;

TEST_SUITE("WorkerPool") {
  TEST_CASE("jobs run at once up to the bound, and all have run when the pool is gone") {
    std::atomic<int> now = 0;
    std::atomic<int> most = 0;
    std::atomic<int> done = 0;
    {
      WorkerPool pool(4);
      for (int i = 0; i < 40; ++i) {
        CHECK(pool.Submit([&] {
          const int here = ++now;
          int seen = most;
          while (here > seen && !most.compare_exchange_weak(seen, here)) {
          }
          usleep(2000);
          --now;
          ++done;
        }));
      }
    }
    CHECK(done == 40);
    CHECK(most == 4);
  }

  TEST_CASE("a full queue refuses") {
    std::atomic<bool> go = false;
    WorkerPool pool(1, 2);
    const auto wait = [&] {
      while (!go) {
        usleep(1000);
      }
    };
    CHECK(pool.Submit(wait));
    usleep(50'000);  // the thread has taken it
    CHECK(pool.Submit(wait));
    CHECK(pool.Submit(wait));
    CHECK(!pool.Submit(wait));
    go = true;
  }
}
