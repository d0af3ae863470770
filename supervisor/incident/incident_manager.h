#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/incident/capture.h"
#include "supervisor/incident/incident.h"
#include "supervisor/session/job_threads.h"
#include "supervisor/store/store.h"

namespace creel {

// Opens incidents, keeps their evidence, and ends them. Thread-safe; calls block.
class IncidentManager {
 public:
  struct Rooms {
    EvidenceCapture::Rooms evidence;
    Store& store;
    const Sandbox::Host& host;
    // Cuts every connection of a sandbox, or of all (empty), and lets none through until it is
    // restored. May be empty: there are no connections.
    std::function<void(const std::string& sandbox, const std::string& reason)> cut{};
    std::function<void(const std::string& sandbox)> restore{};
  };

  struct OpenRequest {
    HoldRule::Scope scope = HoldRule::Scope::kAll;
    std::string who{};  // the sender, or a session key or sandbox id
    std::string reason{};
    bool capture = true;
    bool stop_gateway = false;
    // With the evidence kept, everything is taken down.
    bool teardown = false;
  };
  struct Opened {
    Incident incident;
    // What did not work out, as sentences.
    std::vector<std::string> problems{};
  };

  // Reads what is open and shuts the gate for it; `store` may have lost what the folders beside the
  // bundles still tell. Call it before sessions are recovered, and Resume after.
  static absl::StatusOr<std::unique_ptr<IncidentManager>> Create(const Rooms& rooms);
  // Waits for captures that run.
  ~IncidentManager();
  IncidentManager(const IncidentManager&) = delete;
  IncidentManager& operator=(const IncidentManager&) = delete;

  // Freezes what an open incident is about and what does not stand still, as after a restart.
  void Resume();

  // Shuts the gate, freezes in parallel, and has the evidence collected in the background (with
  // `teardown`: before it returns).
  //   kInvalidArgument  no reason
  //   kNotFound         no such session
  absl::StatusOr<Opened> Open(const OpenRequest& request);
  [[nodiscard]] std::vector<Incident> List() const;
  absl::StatusOr<Incident> Get(const std::string& id) const;
  // kFailedPrecondition: it was torn down.
  absl::StatusOr<IncidentBundle> Capture(const std::string& id);
  // Lets go on what it froze, and opens the gate. kFailedPrecondition: it has ended, or a sandbox
  // does not go on, which then still stands still like all after it.
  absl::StatusOr<Incident> Thaw(const std::string& id);
  // Removes its sandboxes, and opens the gate. kFailedPrecondition: it has ended, or there is no
  // evidence and `without_evidence` is off.
  absl::StatusOr<Incident> Teardown(const std::string& id, bool without_evidence);

 private:
  explicit IncidentManager(const Rooms& rooms);

  absl::Status Load();
  absl::Status Save(const Incident& incident);
  void Cut(const std::string& sandbox, const Incident& incident) const;
  void Restore(const Incident& incident) const;
  void ApplyHoldsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  [[nodiscard]] std::string Folder(const std::string& id) const;
  // Whether the incident is about a session; `reached` are the sandboxes that its sender reached.
  static bool IsMeant(const Incident& incident, const SessionView& view,
                      const std::set<std::string>& reached);
  // Gives the sandboxes that another open incident is about too over to it; returns the rest.
  std::vector<IncidentSandbox> LeaveToOthers(const Incident& incident);
  // Freezes what the incident is about and is not in its list yet; adds it to the list.
  void FreezeAll(Incident& incident, std::vector<std::string>& problems);
  // The sandboxes that a sender reached, by the record.
  [[nodiscard]] std::vector<std::string> ReachedBy(const std::string& sender) const;
  void Tell(const char* what, const Incident& incident, const std::string& reason);
  absl::Status Remove(const IncidentSandbox& sandbox);
  // Changes an incident, and keeps it. kNotFound: there is none.
  absl::StatusOr<Incident> Change(const std::string& id,
                                  const std::function<void(Incident&)>& change);
  absl::Status CheckOpen(const Incident& incident) const;
  // kFailedPrecondition: what it is about is still being frozen.
  absl::Status CheckOpened(const Incident& incident) const;

  const Rooms rooms_;
  const EvidenceCapture capture_;
  // One capture or end of an incident at a time.
  Mutex turn_ ABSL_ACQUIRED_BEFORE(mu_);
  mutable Mutex mu_;
  std::map<uint64_t, Incident> incidents_ ABSL_GUARDED_BY(mu_);
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::set<uint64_t> opening_ ABSL_GUARDED_BY(mu_);
  JobThreads freezers_{64};
  JobThreads captures_{2};
};

}  // namespace creel
