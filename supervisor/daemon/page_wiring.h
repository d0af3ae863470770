#pragma once

#include <memory>

#include "supervisor/api/page_service.h"
#include "supervisor/api/server.h"
#include "supervisor/audit/audit_log.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/web/server.h"

namespace creel {

// The page, or why there is none.
using MaybePage = absl::StatusOr<std::unique_ptr<web::WebServer>>;

// Listens if the configuration wants a page; an address that cannot be had is logged, and no reason
// to stop. All must outlive it.
MaybePage ListenForPage(const Config& config, const Clock& clock, web::Metrics& metrics,
                        AuditLog& audit);

// What the operator's door does with it. `page` must outlive the door.
PageDoor DoorOf(const MaybePage& page);

// Has it do what `api`'s operator's door does, which must outlive it.
void ServePage(const MaybePage& page, ApiServer& api);

// Where it is, as a line of `creel doctor`.
Finding PageFinding(const MaybePage& page, const Config& config);

}  // namespace creel
