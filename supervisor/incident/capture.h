#pragma once

#include <memory>
#include <string>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/clock.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/incident/incident.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Collects the evidence of an incident into one bundle. Works from outside and without the
// containers' cooperation, whether they stand still, run or are gone; what cannot be had is told
// in the bundle.
class EvidenceCapture {
 public:
  struct Rooms {
    SessionManager& sessions;
    AuditLog& audit;
    Engine& engine;
    const Config& config;
    const HostAbilities& abilities;
    const Clock& clock;
    std::string install_id;
  };

  explicit EvidenceCapture(const Rooms& rooms) : rooms_(rooms) {}

  // Writes `folder`/incident-ID-N.tar.zst.
  //   kResourceExhausted  no room, not even for the manifest
  absl::StatusOr<IncidentBundle> Run(const Incident& incident, const std::string& folder,
                                     Deadline deadline) const;

 private:
  const Rooms rooms_;
};

}  // namespace creel
