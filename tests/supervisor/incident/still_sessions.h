#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Sessions in memory that stand still and go on as they are told. Thread-safe; hooks run without a
// lock held, and may block.
class StillSessions final : public SessionManager {
 public:
  // A session that runs; its sandbox's id is its name.
  void Add(const std::string& session) {
    SessionView view;
    view.session = session;
    view.identity.id = session;
    view.state = SessionState::kRunning;
    MutexLock hold(mu_);
    views_[session] = view;
  }
  // Runs as a sandbox is about to be asked for what its commands wrote, and about to be frozen.
  void OnFind(std::function<void(const std::string&)> hook) { on_find_ = std::move(hook); }
  void OnFreeze(std::function<void(const std::string&)> hook) { on_freeze_ = std::move(hook); }

  bool Runs(const std::string& session) const {
    const auto view = Get(session);
    return view.ok() && view->state == SessionState::kRunning;
  }
  absl::Status Held(const std::string& session) const { return holds_.Check(session, ""); }

  absl::Status Recover(Deadline) override { return absl::OkStatus(); }
  void Acquire(const OpenOptions&, OnSandbox done) override {
    done(absl::UnimplementedError("nobody calls here"));
  }
  absl::StatusOr<std::pair<SessionView, bool>> Open(const OpenOptions&, Deadline) override {
    return absl::UnimplementedError("nobody opens here");
  }
  absl::StatusOr<SessionView> Get(const std::string& session) const override {
    MutexLock hold(mu_);
    const auto found = views_.find(session);
    if (found == views_.end()) {
      return absl::NotFoundError("no such session");
    }
    return found->second;
  }
  absl::StatusOr<std::shared_ptr<Sandbox>> Find(const std::string& session) const override {
    if (on_find_) {
      on_find_(session);
    }
    return absl::NotFoundError("it has no shim");
  }
  std::vector<SessionView> List() const override {
    MutexLock hold(mu_);
    std::vector<SessionView> all;
    for (const auto& [name, view] : views_) {
      all.push_back(view);
    }
    return all;
  }
  absl::Status Close(const std::string& session, bool, Deadline) override {
    MutexLock hold(mu_);
    views_.erase(session);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> Freeze(const std::string& session, const std::string& reason,
                                     Deadline) override {
    if (on_freeze_) {
      on_freeze_(session);
    }
    RETURN_IF_ERROR(Turn(session, SessionState::kFrozen, reason));
    return "engine";
  }
  absl::Status Thaw(const std::string& session, Deadline) override {
    return Turn(session, SessionState::kRunning, "");
  }
  void SetHolds(std::vector<HoldRule> holds) override { holds_.Set(std::move(holds)); }
  void Stop() override {}

 private:
  absl::Status Turn(const std::string& session, SessionState state, const std::string& reason) {
    MutexLock hold(mu_);
    const auto found = views_.find(session);
    if (found == views_.end()) {
      return absl::NotFoundError("no such session");
    }
    found->second.state = state;
    found->second.reason = reason;
    return absl::OkStatus();
  }

  std::function<void(const std::string&)> on_find_;
  std::function<void(const std::string&)> on_freeze_;
  HoldRules holds_;
  mutable Mutex mu_;
  std::map<std::string, SessionView> views_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
