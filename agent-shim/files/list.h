#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// Lists a directory, or a tree, in the order of the file system, in batches of at most 512 entries
// or about 64 KiB. Directories that the tool may not read are listed without their content.
absl::StatusOr<std::unique_ptr<Producer<v1::FileBatch>>> ListDirectory(
    const FileRoots& roots, const v1::ListDirectoryArgs& args);

// Lists what matches a pattern, in the same way.
absl::StatusOr<std::unique_ptr<Producer<v1::FileBatch>>> Glob(const FileRoots& roots,
                                                              const v1::GlobArgs& args);

}  // namespace creel::shim
