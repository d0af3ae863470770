#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/engine/engine.h"
#include "supervisor/engine/engine_address.h"

namespace creel {

// The engine at the other end of a socket. The API version is agreed on with the first call, and
// anew after the engine was away, as it may come back as another version.
class DockerEngine final : public Engine {
 public:
  // Connects and agrees on the version, so that an engine that is not there, or will not do, is
  // known at once.
  static absl::StatusOr<std::unique_ptr<DockerEngine>> Connect(const EngineOptions& options,
                                                               Deadline deadline);
  ~DockerEngine() override;

  absl::Status Ping(Deadline deadline) override;
  absl::StatusOr<EngineInfo> Info(Deadline deadline) override;
  absl::StatusOr<ImageInfo> InspectImage(const std::string& image, Deadline deadline) override;
  absl::Status BuildImage(std::string_view context_tar, const std::string& tag,
                          const LineSink& lines, Deadline deadline) override;
  absl::StatusOr<std::string> CreateContainer(const ContainerConfig& config,
                                              Deadline deadline) override;
  absl::Status StartContainer(const std::string& id, Deadline deadline) override;
  absl::StatusOr<ContainerInfo> InspectContainer(const std::string& id, Deadline deadline) override;
  absl::StatusOr<std::vector<ContainerInfo>> ListContainers(const std::string& label,
                                                            Deadline deadline) override;
  absl::Status PauseContainer(const std::string& id, Deadline deadline) override;
  absl::Status UnpauseContainer(const std::string& id, Deadline deadline) override;
  absl::Status UpdateContainer(const std::string& id, const ContainerLimits& limits,
                               Deadline deadline) override;
  absl::Status SetCpuShares(const std::string& id, uint64_t shares, Deadline deadline) override;
  absl::Status KillContainer(const std::string& id, const std::string& signal,
                             Deadline deadline) override;
  absl::StatusOr<int> WaitContainer(const std::string& id, Deadline deadline) override;
  absl::Status RemoveContainer(const std::string& id, Deadline deadline) override;
  absl::StatusOr<std::vector<ProcessRow>> Top(const std::string& id, Deadline deadline) override;
  absl::StatusOr<ContainerStats> Stats(const std::string& id, Deadline deadline) override;
  absl::StatusOr<std::vector<FileChange>> Changes(const std::string& id,
                                                  Deadline deadline) override;
  absl::Status GetArchive(const std::string& id, const std::string& path, const ByteSink& sink,
                          Deadline deadline) override;
  absl::Status StreamEvents(const std::string& label, const EventSink& sink,
                            const std::function<void()>& connected,
                            const std::function<bool()>& cancelled) override;

 private:
  class Link;
  explicit DockerEngine(std::unique_ptr<Link> link);

  std::unique_ptr<Link> link_;
};

}  // namespace creel
