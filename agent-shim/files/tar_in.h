#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent-shim/files/cancel.h"
#include "agent-shim/files/roots.h"
#include "agent-shim/files/tar_format.h"
#include "creel/shim/v1/files.pb.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// Unpacks a tar stream that comes in pieces, see shim.proto. The stream is hostile until shown
// otherwise: every name is walked part by part below the directory without following any link, so
// that neither `..` nor a link that the archive itself made leads elsewhere; what is in the way of
// a file is replaced, never written through. All members need the tool's identity.
class TarUnpacker {
 public:
  static absl::StatusOr<std::unique_ptr<TarUnpacker>> Open(const FileRoots& roots,
                                                           const v1::TarInArgs& args);
  // kInvalidArgument if this is no tar stream. What was unpacked by then stays.
  absl::Status Append(std::string_view data);
  // kInvalidArgument if the stream lacks its end mark.
  absl::StatusOr<v1::TarInResult> Finish();

 private:
  TarUnpacker(UniqueFd top, std::string rename_root)
      : top_(std::move(top)), rename_root_(std::move(rename_root)) {}

  absl::Status TakeBlock(std::string_view block);
  absl::Status BeginEntry(TarHeader header);
  absl::Status BeginFile(const TarHeader& header, int dir, const std::string& name);
  // Takes content of the current entry; padding is not content.
  absl::Status TakeContent(std::string_view data);
  absl::Status EndContent();
  // The parts of an entry's name, or nothing if it has to be refused.
  absl::StatusOr<std::optional<std::vector<std::string>>> PartsOf(const std::string& name);
  // The directory for an entry, made if it is missing. Invalid if the way there is no way.
  absl::StatusOr<int> ParentOf(const std::vector<std::string>& parts);
  void Refuse() { result_.set_entries_refused(result_.entries_refused() + 1); }
  void Count() { result_.set_entries(result_.entries() + 1); }

  const UniqueFd top_;
  const std::string rename_root_;
  // The one top entry, when it is renamed.
  std::string only_root_;
  v1::TarInResult result_;

  // A header block that has come in part.
  std::string partial_;
  // What is left of the content, and then of the padding.
  uint64_t content_left_ = 0;
  uint64_t padding_left_ = 0;
  // Where the content goes: a file, or a header of the format's own; neither: nowhere.
  UniqueFd file_;
  std::optional<TarKind> meta_;
  std::string meta_text_;
  int64_t modified_at_ = 0;
  // What the headers in front say about the next entry.
  std::string pax_;
  std::string long_name_;
  std::string long_link_;
  // Several entries mostly lie in one directory: it stays open.
  std::string parent_path_;
  UniqueFd parent_;
  int zero_blocks_ = 0;
};

}  // namespace creel::shim
