#pragma once

#include <sqlite3.h>

#include "supervisor/base/status.h"

namespace creel {

// The newest schema that this build knows.
int NewestSchema();

// Brings the schema of `db` up to `target`, each step in a transaction of its own and noted in the
// table `migrations`. kFailedPrecondition: the schema is newer than NewestSchema().
absl::Status Migrate(sqlite3* db, int target);

}  // namespace creel
