// Standing still while nobody calls.
#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/escape.h"
#include "supervisor/session/session_manager_impl.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kPauseTimeout{5};
// Telling the engine that one goes on makes it stand still for a moment: not at a call's beginning.
constexpr std::chrono::seconds kSettleAfter{1};

}  // namespace

std::unique_ptr<PoolView> SessionManagerImpl::Pool() const {
  return std::make_unique<PoolView>(pool_.View());
}

void SessionManagerImpl::PostPausing() {
  {
    MutexLock hold(mu_);
    if (pausing_) {
      return;
    }
    pausing_ = true;
  }
  const bool posted = jobs_.Post([this] {
    PauseIdle();
    MutexLock hold(mu_);
    pausing_ = false;
  });
  if (!posted) {
    MutexLock hold(mu_);
    pausing_ = false;
  }
}

void SessionManagerImpl::PauseIdle() {
  struct Due {
    EntryPtr entry;
    std::shared_ptr<Sandbox> sandbox;
  };
  std::vector<Due> due;
  std::vector<std::shared_ptr<Sandbox>> unsettled;
  std::chrono::seconds pause_after{0};
  bool with_running = false;
  const auto now = clock_.Now();
  {
    MutexLock hold(mu_);
    pause_after = limits_.pause_after;
    with_running = limits_.pause_running;
    for (const auto& [id, entry] : by_id_) {
      if (entry->busy || entry->state != SessionState::kRunning || entry->sandbox == nullptr) {
        continue;
      }
      if (entry->sandbox->unsettled()) {
        if (now - entry->last_call_at() >= kSettleAfter || entry->calls.load() == 0) {
          unsettled.push_back(entry->sandbox);
        }
      } else if (pause_after.count() > 0 && entry->calls.load() == 0 &&
                 now - entry->last_call_at() >= pause_after &&
                 now - entry->awake_at >= pause_after && !entry->sandbox->paused()) {
        due.push_back({entry, entry->sandbox});
      }
    }
  }
  for (const auto& sandbox : unsettled) {
    static_cast<void>(sandbox->SettleResume(After(kPauseTimeout)));
  }
  for (const Due& each : due) {
    // A call counts itself first and then asks whether it is paused; the sandbox says first that it
    // is, and then asks this again. So one of the two sees the other.
    const absl::StatusOr<bool> paused = each.sandbox->PauseIdle(
        [&] {
          return each.entry->calls.load() == 0 && now - each.entry->last_call_at() >= pause_after;
        },
        with_running, After(kPauseTimeout));
    if (!paused.ok()) {
      spdlog::debug("sandbox {} stays awake: {}", each.sandbox->identity().id,
                    Printable(std::string(paused.status().message()), 256));
    }
    if (!paused.ok() || !*paused) {
      MutexLock hold(mu_);
      each.entry->awake_at = now;
    }
    MutexLock hold(mu_);
    if (stopping_) {
      return;
    }
  }
}

}  // namespace creel
