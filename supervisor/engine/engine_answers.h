#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/status.h"
#include "supervisor/engine/api_version.h"
#include "supervisor/engine/engine.h"

// The engine's answers, from JSON to plain structs. A field that the engine leaves out, which
// differs between its versions, is empty; an answer that is no JSON, or has no more to do with what
// was asked, is kInternal.
namespace creel::answers {

struct VersionRange {
  ApiVersion oldest;
  ApiVersion newest;
};

struct Created {
  std::string id;
  std::vector<std::string> warnings;
};

absl::StatusOr<VersionRange> ReadVersion(std::string_view body);
// `api_version` is not filled in.
absl::StatusOr<EngineInfo> ReadInfo(std::string_view body);
absl::StatusOr<ImageInfo> ReadImage(std::string_view body);
absl::StatusOr<Created> ReadCreated(std::string_view body);
// Of an update.
absl::StatusOr<std::vector<std::string>> ReadWarnings(std::string_view body);
absl::StatusOr<ContainerInfo> ReadContainer(std::string_view body);
absl::StatusOr<std::vector<ContainerInfo>> ReadContainerList(std::string_view body);
absl::StatusOr<int> ReadExitStatus(std::string_view body);
absl::StatusOr<std::vector<ProcessRow>> ReadTop(std::string_view body);
// kFailedPrecondition: the figures are those of a container that does not run.
absl::StatusOr<ContainerStats> ReadStats(std::string_view body);
absl::StatusOr<std::vector<FileChange>> ReadChanges(std::string_view body);
absl::StatusOr<EngineEvent> ReadEvent(std::string_view line);

// One line of a build: what it says, and whether that is the error that ended it.
struct BuildLine {
  std::string text;
  bool failed = false;
};
absl::StatusOr<BuildLine> ReadBuildLine(std::string_view line);

// The engine's error for a status code other than 2xx, its message made fit to be shown.
absl::Status ErrorFor(long status, std::string_view body);

// The `filters` of queries about what has `label`.
std::string ContainerFilter(const std::string& label);
std::string EventFilter(const std::string& label);

}  // namespace creel::answers
