#include "supervisor/sandbox/workspace_watch.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <optional>
#include <thread>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/dir_tree.h"

namespace creel {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{2000};
// A look takes at most a tenth of the time.
constexpr int kRestPerWork = 9;
constexpr uint64_t kMaxEntries = 1'000'000;

}  // namespace

struct WorkspaceWatch::State {
  struct Entry {
    Watched watched;
    // What it held at the first look.
    std::optional<uint64_t> base;
    bool gone = false;
  };

  void Run();
  // What is wrong with it; empty: nothing.
  static std::string Look(Entry& entry);

  Mutex mu;
  CondVar changed;
  std::list<std::shared_ptr<Entry>> entries ABSL_GUARDED_BY(mu);
  // Being looked at; not held by mu while that lasts.
  std::shared_ptr<Entry> current ABSL_GUARDED_BY(mu);
  bool running ABSL_GUARDED_BY(mu) = false;
  std::thread::id worker ABSL_GUARDED_BY(mu);
};

std::string WorkspaceWatch::State::Look(Entry& entry) {
  const Watched& watched = entry.watched;
  struct statvfs about {};
  if (::statvfs(watched.folder.c_str(), &about) == 0) {
    const uint64_t free = static_cast<uint64_t>(about.f_bavail) * about.f_frsize;
    if (free < watched.floor_bytes) {
      return fmt::format("the disk of its workspace '{}' has {} MiB left, and {} MiB are kept free",
                         watched.folder, free >> 20, watched.floor_bytes >> 20);
    }
  }
  const uint64_t bytes = TreeBytes(watched.folder, kMaxEntries);
  if (!entry.base.has_value()) {
    entry.base = watched.grown ? bytes : 0;
  }
  if (bytes > *entry.base + watched.limit_bytes) {
    return fmt::format("its workspace '{}' holds {} MiB, and may hold {} MiB", watched.folder,
                       bytes >> 20, (*entry.base + watched.limit_bytes) >> 20);
  }
  return {};
}

void WorkspaceWatch::State::Run() {
  pthread_setname_np(pthread_self(), "workspace-watch");
  MutexLock lock(mu);
  worker = std::this_thread::get_id();
  while (!entries.empty()) {
    const auto begin = std::chrono::steady_clock::now();
    const std::list<std::shared_ptr<Entry>> round = entries;
    for (const std::shared_ptr<Entry>& entry : round) {
      if (entry->gone) {
        continue;
      }
      current = entry;
      mu.Unlock();
      if (const std::string why = Look(*entry); !why.empty()) {
        entry->watched.over(why);
      }
      mu.Lock();
      current.reset();
      changed.SignalAll();
    }
    const auto now = std::chrono::steady_clock::now();
    const auto next = now + std::max<std::chrono::steady_clock::duration>(
                                kBetweenLooks, (now - begin) * kRestPerWork);
    while (!entries.empty() && changed.WaitUntil(mu, next)) {
    }
  }
  running = false;
}

WorkspaceWatch::WorkspaceWatch() : state_(std::make_shared<State>()) {}

WorkspaceWatch& WorkspaceWatch::Shared() {
  static WorkspaceWatch& shared = *new WorkspaceWatch();
  return shared;
}

std::shared_ptr<void> WorkspaceWatch::Watch(Watched watched) {
  auto entry = std::make_shared<State::Entry>();
  entry->watched = std::move(watched);
  {
    MutexLock lock(state_->mu);
    state_->entries.push_back(entry);
    if (!state_->running) {
      state_->running = true;
      std::thread([state = state_] { state->Run(); }).detach();
    }
  }
  return std::shared_ptr<void>(static_cast<void*>(nullptr), [state = state_, entry](void*) {
    MutexLock lock(state->mu);
    entry->gone = true;
    state->entries.remove(entry);
    state->changed.SignalAll();
    // From within `over` there is nothing to wait for: what follows does not touch the caller's
    // things.
    while (state->current == entry && state->worker != std::this_thread::get_id()) {
      state->changed.Wait(state->mu);
    }
  });
}

}  // namespace creel
