#pragma once

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// The verbs that touch one entry of a directory. Arguments, results and errors are those of
// shim.proto. All need the tool's identity.

absl::StatusOr<v1::FileInfo> Stat(const FileRoots& roots, const v1::StatArgs& args);

// True if the directory was made, false if it was there.
absl::StatusOr<bool> MakeDirectory(const FileRoots& roots, const v1::MakeDirectoryArgs& args);

// Across file systems a move is a copy and a removal, and stops in between if either fails.
absl::Status Move(const FileRoots& roots, const v1::MoveArgs& args, const Cancel& cancel);

}  // namespace creel::shim
