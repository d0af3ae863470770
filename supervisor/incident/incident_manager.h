#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/job_threads.h"
#include "supervisor/incident/capture.h"
#include "supervisor/incident/incident.h"
#include "supervisor/incident/incident_freezer.h"
#include "supervisor/incident/incident_table.h"
#include "supervisor/incident/incident_turns.h"
#include "supervisor/store/store.h"

namespace creel {

// Opens incidents, keeps their evidence, and ends them. Opening waits for nothing else; what is
// done with an incident that is open takes turns as IncidentTurns says. Thread-safe; calls block.
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

  void Restore(const Incident& incident) const;
  // Gives the sandboxes that another open incident is about too over to it; returns the rest.
  std::vector<IncidentSandbox> LeaveToOthers(const Incident& incident);
  // Freezes those of these sandboxes that an open incident has in its list and that run.
  void HoldStill(const std::string& id, const std::set<std::string>& sandboxes,
                 std::vector<std::string>& problems);
  void Tell(const char* what, const Incident& incident, const std::string& reason);
  absl::Status Remove(const IncidentSandbox& sandbox);

  const Rooms rooms_;
  const EvidenceCapture capture_;
  IncidentTable table_;
  IncidentTurns turns_;
  IncidentFreezer freezer_;
  JobThreads removers_{64};
  JobThreads captures_{4};
};

}  // namespace creel
