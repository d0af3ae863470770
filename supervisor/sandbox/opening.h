#pragma once

#include <string>

#include "supervisor/base/clock.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {

// What the engine says of `image`. kNotFound says how to get it; kFailedPrecondition: it is for
// another kind of machine.
absl::StatusOr<ImageInfo> FindImage(Engine& engine, const std::string& image, Deadline deadline);

// The folders of a sandbox that its link and its output need, each closed as it has to be.
absl::Status MakeSandboxFolders(const PathsConfig& config, const SandboxPaths& paths);

}  // namespace creel
