#pragma once

#include <memory>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/status.h"
#include "supervisor/config/egress_config.h"
#include "supervisor/egress/proxy.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// The sandboxes' way out. What it decides is written to `audit`, which must outlive it, and what
// cannot be written is refused.
absl::StatusOr<std::unique_ptr<egress::Proxy>> StartEgress(const EgressConfig& config,
                                                           AuditLog& audit);

// Tells the proxy who is behind a sandbox, and of every change of that: a level that falls, a
// read-only switch, another policy. Until what is returned is destroyed; all must outlive that.
std::shared_ptr<void> ConnectEgress(egress::Proxy& proxy, SessionManager& sessions,
                                    PolicyDesk& desk);

}  // namespace creel
