#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/job_threads.h"
#include "supervisor/incident/incident.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Lets stand still what an incident is about: its sandboxes, and their ways out. Thread-safe; calls
// block.
class IncidentFreezer {
 public:
  struct Rooms {
    SessionManager& sessions;
    AuditLog& audit;
    // As IncidentManager's.
    std::function<void(const std::string& sandbox, const std::string& reason)> cut{};
  };

  explicit IncidentFreezer(Rooms rooms) : rooms_(std::move(rooms)) {}

  // Cuts the ways out of all that the incident is about, as far as that is known at once.
  void CutAll(const Incident& incident) const;
  // Freezes in parallel what the incident is about and is not in its list yet; adds it to the list.
  // What did not work out is added to `problems`, as sentences.
  void FreezeAll(Incident& incident, std::vector<std::string>& problems);
  // Freezes a sandbox that is in the incident's list, and cuts its way out, if it runs. Returns
  // how; nothing, if it does not run.
  absl::StatusOr<std::optional<std::string>> FreezeAgain(const Incident& incident,
                                                         const std::string& sandbox) const;
  // Freezes nothing more, and returns when what goes on has ended.
  void Stop() { threads_.Stop(); }

 private:
  // Whether the incident is about a session; `reached` are the sandboxes that its sender reached.
  static bool IsMeant(const Incident& incident, const SessionView& view,
                      const std::set<std::string>& reached);
  // The sandboxes that a sender reached, by the record.
  [[nodiscard]] std::set<std::string> ReachedBy(const std::string& sender) const;
  void Cut(const std::string& sandbox, const Incident& incident) const;
  // Freezes these, and tells how it went.
  std::vector<IncidentSandbox> FreezeThese(const std::vector<SessionView>& due,
                                           const Incident& incident);

  const Rooms rooms_;
  JobThreads threads_{64};
};

}  // namespace creel
