#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent-shim/files/reader.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"

namespace creel::shim {

// Packs a file or a tree, see shim.proto, in pieces of at most 1 MiB. A file that shrinks while it
// is packed is filled up with zeros, one that grows is cut: its header has gone out already. What
// the tool may not read fails the call, so that an archive that ends well is whole.
absl::StatusOr<std::unique_ptr<Producer<std::string>>> TarOut(const FileRoots& roots,
                                                              const v1::TarOutArgs& args);

// A name for the top of an archive: one part, not `.` or `..`, without NUL; or empty.
absl::Status CheckRootName(std::string_view name);

}  // namespace creel::shim
