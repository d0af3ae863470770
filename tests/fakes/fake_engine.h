#pragma once

#include <fmt/format.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/engine/engine.h"

namespace creel {

// An engine in memory: containers are entries of a map, states follow the calls as the real one's
// do, and nothing runs. Thread-safe; hooks run without a lock held.
class FakeEngine final : public Engine {
 public:
  struct Container {
    std::string id;
    ContainerConfig config;
    ContainerState state = ContainerState::kCreated;
    int pid = 0;
    int exit_code = 0;
    bool oom_killed = false;
  };

  FakeEngine() {
    info_.version = "20.10.24";
    info_.api_version = "1.41";
    info_.cgroup_version = "2";
    info_.default_runtime = "runc";
    info_.runtimes = {"runc"};
    info_.security_options = {"name=apparmor", "name=seccomp,profile=default"};
    info_.storage_driver = "overlay2";
    info_.root_dir = "/var/lib/docker";
    info_.cpus = 2;
    info_.memory_bytes = int64_t{8} << 30;
  }

  // What a test sets up.

  void SetInfo(EngineInfo info) {
    MutexLock lock(mu_);
    info_ = std::move(info);
  }
  // Images are found by this name and by their id.
  void AddImage(const std::string& name, ImageInfo image) {
    MutexLock lock(mu_);
    images_[name] = std::move(image);
  }
  // The next call of `method` ("StartContainer") fails so, before it has any effect. Repeated, the
  // failures queue up.
  void FailNext(const std::string& method, absl::Status status) {
    MutexLock lock(mu_);
    failures_[method].push_back(std::move(status));
  }
  // Away, every call is kUnavailable and event streams break.
  void SetAway(bool away) {
    MutexLock lock(mu_);
    away_ = away;
    changed_.SignalAll();
  }
  // Called when a container has been started, as what the container does first.
  void OnStart(std::function<void(const Container&)> hook) {
    MutexLock lock(mu_);
    on_start_ = std::move(hook);
  }
  // The container ends by itself.
  void Exit(const std::string& id, int exit_code, bool oom_killed = false) {
    MutexLock lock(mu_);
    if (Container* found = FindLocked(id)) {
      if (oom_killed) {
        TellLocked(*found, "oom");
      }
      found->oom_killed = oom_killed;
      EndLocked(*found, exit_code);
    }
  }
  void AddEvent(EngineEvent event) {
    MutexLock lock(mu_);
    AddEventLocked(std::move(event));
  }

  // What a test looks at.

  std::vector<Container> Containers() {
    MutexLock lock(mu_);
    std::vector<Container> all;
    for (const auto& [id, container] : containers_) {
      all.push_back(container);
    }
    return all;
  }
  // The methods called so far, in order, with the id or name they were about: "StartContainer abc".
  std::vector<std::string> Calls() {
    MutexLock lock(mu_);
    return calls_;
  }

  // Engine.

  absl::Status Ping(Deadline deadline) override {
    MutexLock lock(mu_);
    return EnterLocked("Ping", "", deadline);
  }

  absl::StatusOr<EngineInfo> Info(Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("Info", "", deadline));
    return info_;
  }

  absl::StatusOr<ImageInfo> InspectImage(const std::string& image, Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("InspectImage", image, deadline));
    const ImageInfo* const found = FindImageLocked(image);
    if (found == nullptr) {
      return absl::NotFoundError(fmt::format("No such image: {}", image));
    }
    return *found;
  }

  absl::Status BuildImage(std::string_view context_tar, const std::string& tag,
                          const LineSink& lines, Deadline deadline) override {
    {
      MutexLock lock(mu_);
      RETURN_IF_ERROR(EnterLocked("BuildImage", tag, deadline));
      if (context_tar.empty()) {
        return absl::InvalidArgumentError("the context has no Dockerfile");
      }
      images_[tag] = ImageInfo{.id = fmt::format("sha256:{:064x}", ++made_),
                               .architecture = "amd64",
                               .size_bytes = static_cast<int64_t>(context_tar.size())};
    }
    if (lines) {
      lines(fmt::format("Successfully tagged {}", tag));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> CreateContainer(const ContainerConfig& config,
                                              Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("CreateContainer", config.name, deadline));
    if (FindImageLocked(config.image) == nullptr) {
      return absl::NotFoundError(fmt::format("No such image: {}", config.image));
    }
    if (FindLocked(config.name) != nullptr) {
      return absl::AlreadyExistsError(fmt::format("the name '{}' is taken", config.name));
    }
    Container container;
    container.id = fmt::format("{:064x}", ++made_);
    container.config = config;
    const std::string id = container.id;
    TellLocked(containers_[id] = std::move(container), "create");
    return id;
  }

  absl::Status StartContainer(const std::string& id, Deadline deadline) override {
    Container started;
    std::function<void(const Container&)> hook;
    {
      MutexLock lock(mu_);
      RETURN_IF_ERROR(EnterLocked("StartContainer", id, deadline));
      Container* const found = FindLocked(id);
      if (found == nullptr) {
        return NoContainer(id);
      }
      if (found->state == ContainerState::kRunning) {
        return absl::OkStatus();
      }
      if (found->state == ContainerState::kPaused) {
        return absl::FailedPreconditionError("cannot start a paused container");
      }
      found->state = ContainerState::kRunning;
      found->pid = ++last_pid_;
      found->exit_code = 0;
      found->oom_killed = false;
      TellLocked(*found, "start");
      started = *found;
      hook = on_start_;
    }
    if (hook) {
      hook(started);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ContainerInfo> InspectContainer(const std::string& id,
                                                 Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("InspectContainer", id, deadline));
    const Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    ContainerInfo info = Describe(*found);
    info.pid = found->pid;
    info.exit_code = found->exit_code;
    info.oom_killed = found->oom_killed;
    info.json = "{}";
    return info;
  }

  absl::StatusOr<std::vector<ContainerInfo>> ListContainers(const std::string& label,
                                                            Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("ListContainers", label, deadline));
    std::vector<ContainerInfo> list;
    for (const auto& [id, container] : containers_) {
      if (HasLabel(container.config.labels, label)) {
        list.push_back(Describe(container));
      }
    }
    return list;
  }

  absl::Status PauseContainer(const std::string& id, Deadline deadline) override {
    return Move("PauseContainer", id, deadline, ContainerState::kRunning, ContainerState::kPaused,
                "pause");
  }

  absl::Status UnpauseContainer(const std::string& id, Deadline deadline) override {
    return Move("UnpauseContainer", id, deadline, ContainerState::kPaused, ContainerState::kRunning,
                "unpause");
  }

  absl::Status UpdateContainer(const std::string& id, const ContainerLimits& limits,
                               Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("UpdateContainer", id, deadline));
    Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    const auto set = [](int64_t value, int64_t& out) { out = value > 0 ? value : out; };
    set(limits.memory_bytes, found->config.memory_bytes);
    set(limits.nano_cpus, found->config.nano_cpus);
    set(limits.pids, found->config.pids_limit);
    return absl::OkStatus();
  }

  absl::Status KillContainer(const std::string& id, const std::string& signal,
                             Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("KillContainer", id, deadline));
    Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    if (!Alive(*found)) {
      return NotRunning(id);
    }
    TellLocked(*found, "kill");
    if (signal == "SIGKILL" || signal == "KILL" || signal == "9") {
      EndLocked(*found, 137);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int> WaitContainer(const std::string& id, Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("WaitContainer", id, deadline));
    const Container* found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    const std::string full_id = found->id;
    for (;;) {
      if (away_) {
        return Away();
      }
      if (const auto it = exit_codes_.find(full_id);
          (found = FindLocked(full_id)) == nullptr && it != exit_codes_.end()) {
        return it->second;  // ended and removed at once
      }
      if (found == nullptr) {
        return NoContainer(id);
      }
      if (!Alive(*found)) {
        return found->exit_code;
      }
      if (!changed_.WaitUntil(mu_, deadline) && std::chrono::steady_clock::now() >= deadline) {
        return absl::DeadlineExceededError("the container did not end in time");
      }
    }
  }

  absl::Status RemoveContainer(const std::string& id, Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("RemoveContainer", id, deadline));
    Container* const found = FindLocked(id);
    if (found != nullptr) {
      if (Alive(*found)) {
        EndLocked(*found, 137);
      }
      TellLocked(*found, "destroy");
      containers_.erase(found->id);
      changed_.SignalAll();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<ProcessRow>> Top(const std::string& id, Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("Top", id, deadline));
    const Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    if (!Alive(*found)) {
      return NotRunning(id);
    }
    return std::vector<ProcessRow>{
        {.pid = found->pid, .uid = 0, .command = found->config.entrypoint.front()}};
  }

  absl::StatusOr<ContainerStats> Stats(const std::string& id, Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("Stats", id, deadline));
    const Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    if (!Alive(*found)) {
      return NotRunning(id);
    }
    ContainerStats stats;
    stats.at = std::chrono::system_clock::now();
    stats.cpu_total_ns = 1'000'000;
    stats.memory_bytes = 1u << 20;
    stats.memory_limit_bytes = static_cast<uint64_t>(found->config.memory_bytes);
    stats.pids = 1;
    stats.pids_limit = static_cast<uint64_t>(found->config.pids_limit);
    return stats;
  }

  absl::StatusOr<std::vector<FileChange>> Changes(const std::string& id,
                                                  Deadline deadline) override {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked("Changes", id, deadline));
    if (FindLocked(id) == nullptr) {
      return NoContainer(id);
    }
    return std::vector<FileChange>{};
  }

  // An archive without a file: the two empty blocks that end one.
  absl::Status GetArchive(const std::string& id, const std::string& path, const ByteSink& sink,
                          Deadline deadline) override {
    {
      MutexLock lock(mu_);
      RETURN_IF_ERROR(EnterLocked("GetArchive", id + " " + path, deadline));
      if (FindLocked(id) == nullptr) {
        return NoContainer(id);
      }
    }
    return sink(std::string(1024, '\0')) ? absl::OkStatus()
                                         : absl::CancelledError("the receiver ended the transfer");
  }

  absl::Status StreamEvents(const std::string& label, const EventSink& sink,
                            const std::function<void()>& connected,
                            const std::function<bool()>& cancelled) override {
    size_t next = 0;
    {
      MutexLock lock(mu_);
      RETURN_IF_ERROR(EnterLocked("StreamEvents", label, Deadline::max()));
      next = events_.size();
    }
    if (connected) {
      connected();
    }
    for (;;) {
      if (cancelled && cancelled()) {
        return absl::OkStatus();
      }
      EngineEvent event;
      {
        MutexLock lock(mu_);
        if (away_) {
          return Away();
        }
        if (next == events_.size()) {
          changed_.WaitUntil(mu_, After(std::chrono::milliseconds(20)));
          continue;
        }
        event = events_[next++];
      }
      if (HasLabel(event.attributes, label) && !sink(event)) {
        return absl::OkStatus();
      }
    }
  }

 private:
  static absl::Status Away() { return absl::UnavailableError("no engine answers at fake://"); }
  static absl::Status NoContainer(const std::string& id) {
    return absl::NotFoundError(fmt::format("No such container: {}", id));
  }
  static absl::Status NotRunning(const std::string& id) {
    return absl::FailedPreconditionError(fmt::format("Container {} is not running", id));
  }
  static bool Alive(const Container& container) {
    return container.state == ContainerState::kRunning ||
           container.state == ContainerState::kPaused;
  }
  static bool HasLabel(const std::map<std::string, std::string>& labels, const std::string& label) {
    const size_t equals = label.find('=');
    const auto found = labels.find(label.substr(0, equals));
    return found != labels.end() &&
           (equals == std::string::npos || found->second == label.substr(equals + 1));
  }
  static ContainerInfo Describe(const Container& container) {
    ContainerInfo info;
    info.id = container.id;
    info.name = container.config.name;
    info.image = container.config.image;
    info.labels = container.config.labels;
    info.state = container.state;
    return info;
  }

  absl::Status EnterLocked(const std::string& method, const std::string& about, Deadline deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    calls_.push_back(about.empty() ? method : method + " " + about);
    if (std::deque<absl::Status>& queue = failures_[method]; !queue.empty()) {
      absl::Status status = std::move(queue.front());
      queue.pop_front();
      return status;
    }
    if (away_) {
      return Away();
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError("no time left to ask the engine");
    }
    return absl::OkStatus();
  }

  const ImageInfo* FindImageLocked(const std::string& image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (const auto& [name, info] : images_) {
      if (name == image || info.id == image) {
        return &info;
      }
    }
    return nullptr;
  }

  Container* FindLocked(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    for (auto& [key, container] : containers_) {
      if (key == id || container.config.name == id) {
        return &container;
      }
    }
    return nullptr;
  }

  void AddEventLocked(EngineEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    events_.push_back(std::move(event));
    changed_.SignalAll();
  }

  void TellLocked(const Container& container, const std::string& action)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    EngineEvent event{.type = "container",
                      .action = action,
                      .id = container.id,
                      .attributes = container.config.labels,
                      .at = std::chrono::system_clock::now()};
    event.attributes["name"] = container.config.name;
    event.attributes["image"] = container.config.image;
    if (action == "die") {
      event.attributes["exitCode"] = std::to_string(container.exit_code);
    }
    AddEventLocked(std::move(event));
  }

  void EndLocked(Container& container, int exit_code) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    container.state = ContainerState::kExited;
    container.pid = 0;
    container.exit_code = exit_code;
    exit_codes_[container.id] = exit_code;
    TellLocked(container, "die");
  }

  absl::Status Move(const std::string& method, const std::string& id, Deadline deadline,
                    ContainerState from, ContainerState to, const std::string& action) {
    MutexLock lock(mu_);
    RETURN_IF_ERROR(EnterLocked(method, id, deadline));
    Container* const found = FindLocked(id);
    if (found == nullptr) {
      return NoContainer(id);
    }
    if (found->state != from) {
      return absl::FailedPreconditionError(
          fmt::format("Container {} is not in the state for '{}'", id, action));
    }
    found->state = to;
    TellLocked(*found, action);
    return absl::OkStatus();
  }

  Mutex mu_;
  CondVar changed_;
  EngineInfo info_ ABSL_GUARDED_BY(mu_);
  bool away_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t made_ ABSL_GUARDED_BY(mu_) = 0;
  int last_pid_ ABSL_GUARDED_BY(mu_) = 1000;
  std::map<std::string, ImageInfo> images_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Container> containers_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> exit_codes_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::deque<absl::Status>> failures_ ABSL_GUARDED_BY(mu_);
  std::vector<EngineEvent> events_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> calls_ ABSL_GUARDED_BY(mu_);
  std::function<void(const Container&)> on_start_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
