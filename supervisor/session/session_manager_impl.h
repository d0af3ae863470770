#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "supervisor/base/job_threads.h"
#include "supervisor/base/mutex.h"
#include "supervisor/session/admission.h"
#include "supervisor/session/sandbox_factory.h"
#include "supervisor/session/session_entry.h"
#include "supervisor/session/session_manager.h"
#include "supervisor/session/warm_pool.h"

namespace creel {

class EventWatcher;

// The SessionManager. An entry stands in `entries_` from the first request until its removal; the
// store has it from before its container is made until after it is gone, so that nothing can be
// left behind unknown, whenever this process is killed.
class SessionManagerImpl final : public SessionManager {
 public:
  SessionManagerImpl(const Sandbox::Host& host, Store& store, const Clock& clock,
                     SandboxFactory& sandboxes);
  ~SessionManagerImpl() override;

  absl::Status Recover(Deadline deadline) override;
  void Acquire(const OpenOptions& options, OnSandbox done) override;
  absl::StatusOr<std::pair<SessionView, bool>> Open(const OpenOptions& options,
                                                    Deadline deadline) override;
  absl::StatusOr<SessionView> Get(const std::string& session) const override;
  absl::StatusOr<std::shared_ptr<Sandbox>> Find(const std::string& session) const override;
  [[nodiscard]] std::vector<SessionView> List() const override;
  absl::Status Close(const std::string& session, bool force, Deadline deadline) override;
  absl::StatusOr<std::string> Freeze(const std::string& session, const std::string& reason,
                                     Deadline deadline) override;
  absl::StatusOr<std::string> FreezeQuickly(const std::string& session, const std::string& reason,
                                            Deadline deadline) override;
  absl::Status Thaw(const std::string& session, Deadline deadline) override;
  absl::Status ThawHeld(const std::string& session, Deadline deadline) override;
  void SetHolds(std::vector<HoldRule> holds) override { holds_.Set(std::move(holds)); }
  [[nodiscard]] std::vector<UnknownContainer> Unknown() const override;
  [[nodiscard]] std::unique_ptr<PoolView> Pool() const override;
  absl::Status EmptyPool(Deadline deadline) override { return pool_.Empty(deadline); }
  void SetLimits(const SessionsConfig& limits) override;
  void UseLevels(PolicyDesk& desk) override;
  [[nodiscard]] std::string LevelOf(const std::string& sandbox_id) const override;
  void OnLevelChange(LevelListener fell) override;
  void OnGoingOn(GoingOnListener on) override { going_on_ = std::move(on); }
  void FollowLimits() override;
  void Stop() override;

  // What the timer does: closes idle and old sandboxes, writes down the times of calls, tries
  // again to remove what could not be removed. Frozen ones are not touched.
  void Expire();
  // What the timer does too: lets those stand still that nobody has called for
  // sessions.pause_after, and tells the engine of those that go on. Blocks.
  void PauseIdle();
  // What the event stream brings.
  void OnEngineEvent(const EngineEvent& event);
  // Compares running sandboxes with the engine, as events may have been missed.
  void Reconcile();

 private:
  using EntryPtr = std::shared_ptr<SessionEntry>;

  // session_manager.cc
  void Ask(SessionRequest request);
  // What Ask saw of a running sandbox before it took the lock again.
  struct Seen {
    std::shared_ptr<Sandbox> sandbox;
    SandboxState state = SandboxState::kRunning;
  };
  // Starts or queues what the request waits for and takes it, or leaves it and says why not.
  absl::Status AskLocked(SessionRequest& request, const std::string& name, const Seen& seen)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Makes an entry and posts its opening. `predecessor`, if any, is removed first.
  absl::Status StartOpeningLocked(SessionRequest& request, const std::string& name,
                                  EntryPtr predecessor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status ResolveSettings(const OpenOptions& options, SandboxIdentity& identity) const;
  void OpenOnWorker(const EntryPtr& entry, const EntryPtr& predecessor);
  absl::StatusOr<std::shared_ptr<Sandbox>> Make(const EntryPtr& entry);
  // Out of the container that was taken, or, if that cannot be, a new one.
  absl::StatusOr<std::shared_ptr<Sandbox>> Claim(std::unique_ptr<PooledSandbox> pooled,
                                                 SandboxIdentity& identity);
  // Lets a sandbox that is paused go on, and answers then. `lease` keeps it from being paused
  // again.
  void WakeUp(SessionRequest request, const std::shared_ptr<Sandbox>& sandbox,
              std::shared_ptr<Sandbox> lease);
  void FinishOpening(const EntryPtr& entry, absl::StatusOr<std::shared_ptr<Sandbox>> made);
  [[nodiscard]] EntryPtr FindLocked(const std::string& session) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] absl::Status NotOpenLocked(const std::string& session) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] SessionView ViewLocked(const SessionEntry& entry) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // session_changes.cc
  // Waits until nobody else changes the session, and keeps others away until EndChange.
  absl::StatusOr<EntryPtr> BeginChange(const std::string& session, Deadline deadline);
  void EndChange(const EntryPtr& entry);
  absl::Status ThawBy(const std::string& session, bool incident_ends, Deadline deadline);
  absl::StatusOr<std::string> FreezeBy(const std::string& session, const std::string& reason,
                                       bool quickly, Deadline deadline);
  // Into the record. `Tell` is for what has happened or must not be held up, `TellFirst` for what
  // is not to happen untold.
  void Tell(const char* what, const SessionEntry& entry, const SandboxIdentity& identity,
            const std::string& reason) const;
  [[nodiscard]] absl::Status TellFirst(const char* what, const SessionEntry& entry,
                                       const SandboxIdentity& identity) const;
  // Tells the record should the sandbox be lost.
  void WatchLoss(const EntryPtr& entry);
  void CutEgress(const std::string& sandbox_id, const std::string& reason) const;
  void RestoreEgress(const std::string& sandbox_id) const;
  absl::Status PutRecord(const EntryPtr& entry, const std::string& state);
  // Removes container and record; `entry` is busy and kClosing. What fails is kept in leftovers_
  // and tried again by the timer.
  absl::Status Dispose(const EntryPtr& entry, Deadline deadline);
  // Dispose, and takes the entry away; those who asked meanwhile get a new sandbox.
  absl::Status FinishClosing(const EntryPtr& entry, Deadline deadline);
  absl::Status ThawFromRecord(const EntryPtr& entry, Deadline deadline);

  // session_limits.cc
  // What a sandbox of this name is made with.
  [[nodiscard]] LimitsConfig LimitsToMake(const std::string& name) const;
  void FollowLimitsSoon(const EntryPtr& entry);
  // Has the engine hold the container to its level's limits, and writes that down; false: that did
  // not come to its end.
  bool FollowLimitsOf(const EntryPtr& entry);
  absl::Status ChangeLimits(const EntryPtr& entry, const SandboxIdentity& identity,
                            const LimitsConfig& wanted);

  // session_recovery.cc
  void AdoptRecord(const SessionRecord& record, Deadline deadline);
  void RemoveRecord(const SessionRecord& record, Deadline deadline);
  void RemovePooled(const SessionRecord& record, Deadline deadline);
  void PauseUnknown(const std::vector<ContainerInfo>& containers,
                    const std::set<std::string>& known, Deadline deadline);
  void RemoveLeftFolders(const std::set<std::string>& known, Deadline deadline);
  void ContainerEnded(const std::string& sandbox_id, const std::string& why);
  void RemoveLeftovers();
  void WriteDownCalls();

  // session_pause.cc
  void PostPausing();
  void RunTimers();

  const Sandbox::Host& host_;
  Store& store_;
  const Clock& clock_;
  SandboxFactory& sandboxes_;
  PolicyDesk* desk_ = nullptr;
  // Shared with the entries, which calls may hold for longer than this lives.
  const std::shared_ptr<ToolUids> tool_uids_;
  HoldRules holds_;

  mutable Mutex mu_;
  CondVar changed_;
  std::unordered_map<std::string, EntryPtr> entries_ ABSL_GUARDED_BY(mu_);  // by name
  std::unordered_map<std::string, EntryPtr> by_id_ ABSL_GUARDED_BY(mu_);
  // Removed as far as callers can see, with remains that could not be removed yet. By sandbox id.
  std::map<std::string, EntryPtr> leftovers_ ABSL_GUARDED_BY(mu_);
  std::vector<UnknownContainer> unknown_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> out_of_memory_ ABSL_GUARDED_BY(mu_);  // container ids, until they die
  Admission admission_ ABSL_GUARDED_BY(mu_);
  SessionsConfig limits_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool pausing_ ABSL_GUARDED_BY(mu_) = false;

  // Never calls back, and so may be called with mu_ held.
  WarmPool pool_;
  GoingOnListener going_on_;
  JobThreads jobs_;
  std::unique_ptr<EventWatcher> events_;
  std::thread timers_;
};

}  // namespace creel
