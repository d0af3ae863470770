#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/incident/incident.h"
#include "supervisor/session/session_manager.h"
#include "supervisor/store/store.h"

namespace creel {

// The number that an incident's id is; 0: it is none.
uint64_t IncidentNumber(const std::string& id);

// The incidents that there are and were: in memory, in the store, and in the folders beside the
// bundles. Whom the open ones keep out is told to the gate with each change. Thread-safe.
class IncidentTable {
 public:
  IncidentTable(Store& store, SessionManager& sessions, const std::string& state_dir);

  // Reads what there is and shuts the gate for what is open; the store may have lost what the
  // folders still tell.
  absl::Status Load();

  // Gives it a number and shuts the gate: from the return on nobody whom it is about gets through.
  // Waits for no disk. Until it is Opened, it can only be looked at.
  std::string Add(const Incident& incident);
  // Writes down what Add began, so that a restart goes on with it.
  absl::Status WriteDown(const Incident& incident);
  // Keeps what Add began as it has become.
  absl::Status Opened(const Incident& incident);
  // Changes one, and keeps it. kNotFound: there is none.
  absl::StatusOr<Incident> Change(const std::string& id,
                                  const std::function<void(Incident&)>& change);

  [[nodiscard]] std::vector<Incident> List() const;
  // kNotFound: there is none.
  absl::StatusOr<Incident> Get(const std::string& id) const;
  // The same of those that something is to be done with. kFailedPrecondition: what it is about is
  // still being frozen.
  absl::StatusOr<Incident> GetOpened(const std::string& id) const;
  // Where its bundles lie. Made if it is not there.
  absl::StatusOr<std::string> Folder(const std::string& id) const;

 private:
  [[nodiscard]] std::string PathOf(const std::string& id) const;
  absl::StatusOr<Incident> GetLocked(const std::string& id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LoadFolder(const std::string& name, std::map<uint64_t, Incident>& found);
  absl::Status Save(const Incident& incident) ABSL_EXCLUSIVE_LOCKS_REQUIRED(saving_);
  void ApplyHoldsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Store& store_;
  SessionManager& sessions_;
  const std::string folder_;
  // Held from a change until it is kept, so that the newest is what stays. Add needs it not.
  Mutex saving_ ABSL_ACQUIRED_BEFORE(mu_);
  mutable Mutex mu_;
  std::map<uint64_t, Incident> incidents_ ABSL_GUARDED_BY(mu_);
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::set<uint64_t> opening_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
