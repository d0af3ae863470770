#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/session/hold_rules.h"
#include "supervisor/store/store.h"

namespace creel {

// How a session is asked for.
struct OpenOptions {
  std::string session{};
  std::string sender{};
  std::string workspace{};
  std::optional<WorkspaceAccess> access{};  // unset: as configured
  std::map<std::string, std::string> env{};
};

enum class SessionState { kOpening, kRunning, kFrozen, kLost, kClosing };

// A session as it is at one moment.
struct SessionView {
  std::string session;
  std::string sender;
  SessionState state = SessionState::kOpening;
  std::string reason;
  std::chrono::system_clock::time_point opened_at;
  std::chrono::system_clock::time_point last_call_at;
  SandboxIdentity identity;
  uint32_t processes = 0;
  std::string trust_level{};  // the sandbox's, now
  // Why it is not held to its level's limits; empty: it is.
  std::string limits_problem{};
  // What of its freeze would not outlast a restart; empty: nothing.
  std::string warning{};
};

// A container with this install's label that the store does not know. It was paused where that was
// possible, and is never removed unasked.
struct UnknownContainer {
  std::string container_id;
  std::string name;
  std::string sandbox_id;  // as its label says; may be anything
  bool paused = false;
};

class PolicyDesk;
class SandboxFactory;
struct PoolView;

// Session keys and the sandboxes behind them: opens, finds, adopts, expires, removes. Thread-safe.
// Which sessions share a sandbox (scope) is decided here by mapping the gateway's key to ours.
class SessionManager {
 public:
  using OnSandbox = std::function<void(absl::StatusOr<std::shared_ptr<Sandbox>>)>;

  // `host` and `store` must outlive it. Starts no thread of its own yet.
  static absl::StatusOr<std::unique_ptr<SessionManager>> Create(const Sandbox::Host& host,
                                                                Store& store, const Clock& clock);
  // The same with something else than containers. `sandboxes` must outlive it.
  static absl::StatusOr<std::unique_ptr<SessionManager>> Create(const Sandbox::Host& host,
                                                                Store& store, const Clock& clock,
                                                                SandboxFactory& sandboxes);
  virtual ~SessionManager() = default;

  // Compares the store with the engine: adopts what lives, removes what was closed, pauses and
  // lists what is unknown. Then starts the timers and the event stream.
  virtual absl::Status Recover(Deadline deadline) = 0;

  // The sandbox of an open session, at once; or opens it on a worker and calls back then. `done` is
  // called exactly once, possibly before Acquire returns. Concurrent calls for one session wait for
  // one opening. A LOST sandbox is removed and made anew, with the settings it had. While the
  // pointer is held a call counts as under way, and the session is not idle.
  virtual void Acquire(const OpenOptions& options, OnSandbox done) = 0;

  // As Acquire; also tells whether it was made by this call. kAlreadyExists: it is open with other
  // settings. Blocks.
  virtual absl::StatusOr<std::pair<SessionView, bool>> Open(const OpenOptions& options,
                                                            Deadline deadline) = 0;
  // By session key or sandbox id. kNotFound names near keys.
  virtual absl::StatusOr<SessionView> Get(const std::string& session) const = 0;
  virtual absl::StatusOr<std::shared_ptr<Sandbox>> Find(const std::string& session) const = 0;
  [[nodiscard]] virtual std::vector<SessionView> List() const = 0;
  virtual absl::Status Close(const std::string& session, bool force, Deadline deadline) = 0;
  virtual absl::StatusOr<std::string> Freeze(const std::string& session, const std::string& reason,
                                             Deadline deadline) = 0;
  // The same for one of many at once; see Sandbox::FreezeQuickly.
  virtual absl::StatusOr<std::string> FreezeQuickly(const std::string& session,
                                                    const std::string& reason, Deadline deadline) {
    return Freeze(session, reason, deadline);
  }
  // kFailedPrecondition: it is not frozen, its container is gone, or an open incident holds it.
  virtual absl::Status Thaw(const std::string& session, Deadline deadline) = 0;
  // The same for an incident that ends. A session whose container is gone, as it could only be
  // killed, is lost from then on, and the next call gets a new one.
  virtual absl::Status ThawHeld(const std::string& session, Deadline deadline) {
    return Thaw(session, deadline);
  }
  // Whom open incidents keep out, from the return on: neither Acquire nor Open lets them through.
  virtual void SetHolds(std::vector<HoldRule> holds) { static_cast<void>(holds); }
  // Containers that Recover did not know.
  [[nodiscard]] virtual std::vector<UnknownContainer> Unknown() const { return {}; }
  // The containers that wait for sessions; null: there are none, ever.
  [[nodiscard]] virtual std::unique_ptr<PoolView> Pool() const;
  // Removes those, and makes no more until somebody opens a session. kUnavailable: not all are
  // gone.
  virtual absl::Status EmptyPool(Deadline deadline) {
    static_cast<void>(deadline);
    return absl::OkStatus();
  }
  // Other limits from now on; what is open stays open.
  virtual void SetLimits(const SessionsConfig& limits) { static_cast<void>(limits); }

  // Where trust levels are kept; without it sandboxes have none. Set once, before Recover. `desk`
  // must outlive the manager.
  virtual void UseLevels(PolicyDesk& desk) { static_cast<void>(desk); }
  // The trust level of a sandbox now. Empty if there is no such sandbox, which is to count as the
  // lowest.
  [[nodiscard]] virtual std::string LevelOf(const std::string& sandbox_id) const {
    static_cast<void>(sandbox_id);
    return {};
  }
  // `fell` runs at every fall of an open sandbox's level, before the call that caused it goes on,
  // on that call's thread: it must not block. Set at most once by each who is concerned, before
  // calls begin and after UseLevels.
  using LevelListener =
      std::function<void(const std::string& sandbox_id, const std::string& level)>;
  virtual void OnLevelChange(LevelListener fell) { static_cast<void>(fell); }
  // `on` runs whenever a frozen session goes on, on the thread that thawed it and before that
  // returns. Set at most once, before calls begin.
  using GoingOnListener = std::function<void(const std::string& session, Deadline deadline)>;
  virtual void OnGoingOn(GoingOnListener on) { static_cast<void>(on); }

  // The limits of open sandboxes follow their levels as the policy now has them. A fall is
  // followed unasked. Does not wait.
  virtual void FollowLimits() {}

  // Stops timers and the event stream, ends openings that wait; containers stay.
  virtual void Stop() = 0;
};

}  // namespace creel
