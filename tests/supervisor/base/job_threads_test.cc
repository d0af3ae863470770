#include "supervisor/base/job_threads.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace creel {
namespace {

using std::chrono::milliseconds;

TEST_SUITE("JobThreads") {
  TEST_CASE("every job runs once, on no more threads than allowed") {
    std::atomic<int> ran{0};
    std::atomic<int> at_once{0};
    std::atomic<int> most{0};
    {
      JobThreads jobs(3);
      for (int i = 0; i < 100; ++i) {
        CHECK(jobs.Post([&] {
          const int now = ++at_once;
          int seen = most;
          while (now > seen && !most.compare_exchange_weak(seen, now)) {
          }
          std::this_thread::sleep_for(milliseconds(1));
          --at_once;
          ++ran;
        }));
      }
      jobs.Stop();
      CHECK_FALSE(jobs.Post([&] { ++ran; }));
    }
    CHECK(ran == 100);
    CHECK(most == 3);
  }

  TEST_CASE("a job now and then keeps one thread, not as many as once were needed") {
    JobThreads jobs(4, milliseconds(300));
    std::atomic<int> running{0};
    for (int i = 0; i < 4; ++i) {
      CHECK(jobs.Post([&] {
        ++running;
        while (running < 4) {
          std::this_thread::sleep_for(milliseconds(1));
        }
      }));
    }
    for (int i = 0; i < 1000 && jobs.threads() > 1; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
      CHECK(jobs.Post([] {}));
    }
    CHECK(running == 4);
    CHECK(jobs.threads() == 1);
  }

  TEST_CASE("idle threads end") {
    JobThreads jobs(4, milliseconds(20));
    CHECK(jobs.threads() == 0);
    CHECK(jobs.Post([] {}));
    CHECK(jobs.threads() == 1);
    for (int i = 0; i < 200 && jobs.threads() > 0; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    CHECK(jobs.threads() == 0);
    std::atomic<bool> ran{false};
    CHECK(jobs.Post([&] { ran = true; }));
    jobs.Stop();
    CHECK(ran);
  }
}

}  // namespace
}  // namespace creel
