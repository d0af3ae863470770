#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// Finds lines, see shim.proto. Goes into hidden files and directories, but not into those named
// `.git`. A file that holds a NUL byte is given up where that is seen, and counted as skipped. At
// most a few hundred KiB are held, however long the lines; in a line longer than that, a match of
// more than 8 KiB may be missed.
absl::StatusOr<std::unique_ptr<Producer<v1::GrepBatch>>> Grep(const FileRoots& roots,
                                                              const v1::GrepArgs& args);

}  // namespace creel::shim
