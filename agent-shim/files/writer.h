#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/replacement.h"
#include "agent-shim/files/roots.h"
#include "creel/shim/v1/files.pb.h"
#include "supervisor/base/crypto.h"

namespace creel::shim {

// One WriteFile call, see shim.proto. Destroyed before Commit(), it leaves everything as it was,
// save what was appended. All members and the destructor need the tool's identity.
class FileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<FileWriter>> Open(const FileRoots& roots,
                                                          const v1::WriteFileArgs& args,
                                                          const Cancel& cancel);
  absl::Status Append(std::string_view data);
  absl::StatusOr<v1::WriteFileResult> Commit();

 private:
  FileWriter(Place place, v1::WriteFileArgs args)
      : place_(std::move(place)), args_(std::move(args)) {}
  absl::Status CheckPresent(const Cancel& cancel);
  absl::Status OpenForAppend();

  const Place place_;
  const v1::WriteFileArgs args_;
  // What was there when the call began.
  std::optional<struct stat> before_;
  std::optional<ReplacementFile> replacement_;
  // When appending.
  UniqueFd append_;
  Sha256 hash_;
};

// One EditFile call, see shim.proto. The file may have at most 64 MiB, before and after.
absl::StatusOr<v1::EditFileResult> EditFile(const FileRoots& roots, const v1::EditFileArgs& args,
                                            const Cancel& cancel);

}  // namespace creel::shim
