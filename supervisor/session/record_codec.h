#pragma once

#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/store/store.h"

namespace creel {

// none, ro, rw.
std::string_view AccessName(WorkspaceAccess access);

// Puts what the store keeps of a sandbox into `record`; session, sender, state and times are left
// alone.
void IdentityToRecord(const SandboxIdentity& identity, SessionRecord& record);
// kDataLoss: the record does not hold what was written.
absl::StatusOr<SandboxIdentity> IdentityFromRecord(const SessionRecord& record);

}  // namespace creel
