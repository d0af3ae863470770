#include "supervisor/base/job_threads.h"

#include <pthread.h>

#include <system_error>
#include <utility>

namespace creel {

JobThreads::JobThreads(size_t max_threads, std::chrono::milliseconds idle)
    : max_threads_(max_threads), idle_(idle) {}

JobThreads::~JobThreads() { Stop(); }

bool JobThreads::Post(std::function<void()> job) {
  Threads ended;
  {
    MutexLock hold(mu_);
    if (stopping_) {
      return false;
    }
    ended.swap(ended_);
    jobs_.push_back(std::move(job));
    if (!idlers_.empty()) {
      Idler* const last = idlers_.back();
      idlers_.pop_back();
      last->called = true;
      last->changed.SignalOne();
    } else if (threads_.size() < max_threads_) {
      const auto self = threads_.emplace(threads_.end());
      try {
        *self = std::thread([this, self] { Work(self); });
      } catch (const std::system_error&) {
        threads_.erase(self);
        if (threads_.empty()) {
          jobs_.pop_back();
          ended_.swap(ended);
          return false;
        }
      }
    }
  }
  for (std::thread& thread : ended) {
    thread.join();
  }
  return true;
}

void JobThreads::Stop() {
  Threads ended;
  {
    MutexLock hold(mu_);
    stopping_ = true;
    for (Idler* idler : idlers_) {
      idler->changed.SignalOne();
    }
    while (!threads_.empty()) {
      one_ended_.Wait(mu_);
    }
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) {
    thread.join();
  }
}

size_t JobThreads::threads() const {
  MutexLock hold(mu_);
  return threads_.size();
}

void JobThreads::Work(Threads::iterator self) {
  pthread_setname_np(pthread_self(), "job");
  MutexLock hold(mu_);
  while (true) {
    if (!jobs_.empty()) {
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      mu_.Unlock();
      job();
      job = nullptr;
      mu_.Lock();
      continue;
    }
    if (stopping_) {
      break;
    }
    Idler me;
    idlers_.push_back(&me);
    const auto until = std::chrono::steady_clock::now() + idle_;
    bool timed_out = false;
    while (!me.called && !stopping_ && !timed_out) {
      timed_out = !me.changed.WaitUntil(mu_, until);
    }
    if (!me.called) {
      std::erase(idlers_, &me);
      if (jobs_.empty()) {
        break;
      }
    }
  }
  ended_.splice(ended_.end(), threads_, self);
  one_ended_.SignalAll();
}

}  // namespace creel
