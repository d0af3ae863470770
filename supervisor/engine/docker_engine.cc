#include "supervisor/engine/docker_engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/base/mutex.h"
#include "supervisor/engine/api_version.h"
#include "supervisor/engine/container_json.h"
#include "supervisor/engine/engine_answers.h"
#include "supervisor/engine/http_client.h"
#include "supervisor/engine/line_splitter.h"

namespace creel {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMaxLine = size_t{1} << 20;
// For looking after what a failed call may have left, past the caller's deadline.
constexpr std::chrono::seconds kCleanupTime{5};
// Until the stream of events stands.
constexpr std::chrono::seconds kStreamBegin{10};
constexpr int kRemoveAttempts = 3;

bool AllOf(std::string_view text, std::string_view besides) {
  return std::all_of(text.begin(), text.end(), [besides](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           besides.find(c) != std::string_view::npos;
  });
}

// What can stand in a URL as it is, and is what the engine takes.
absl::Status CheckContainerRef(std::string_view id) {
  if (id.empty() || id.size() > 255 || !AllOf(id, "_.-") || !AllOf(id.substr(0, 1), "")) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no id or name of a container", Printable(id, 80)));
  }
  return absl::OkStatus();
}

absl::Status CheckImageRef(std::string_view image) {
  if (image.empty() || image.size() > 512 || !AllOf(image, "_.-/:@") ||
      !AllOf(image.substr(0, 1), "") || image.find("..") != std::string_view::npos ||
      image.find("//") != std::string_view::npos || image.ends_with('/')) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no id or name of an image", Printable(image, 80)));
  }
  return absl::OkStatus();
}

absl::Status CheckStatus(const HttpAnswer& answer) {
  if (answer.status >= 200 && answer.status < 300) {
    return absl::OkStatus();
  }
  return answers::ErrorFor(answer.status, answer.body);
}

// An engine that was exchanged for another one between two calls refuses the version agreed on.
bool RefusesVersion(const HttpAnswer& answer) {
  return answer.status == 400 && answer.body.find("client version") != std::string::npos;
}

// Waits, but not past `deadline`; false if that has come.
bool SleepBefore(Deadline deadline, milliseconds time) {
  const Deadline wake = std::min(After(time), deadline);
  std::this_thread::sleep_until(wake);
  return wake < deadline;
}

}  // namespace

// The connection and the version that was agreed on over it.
class DockerEngine::Link {
 public:
  explicit Link(EngineAddress address) : http_(std::move(address)) {}

  absl::StatusOr<ApiVersion> Version(Deadline deadline) {
    {
      MutexLock lock(mu_);
      if (version_) {
        return *version_;
      }
    }
    ASSIGN_OR_RETURN(const HttpAnswer answer,
                     http_.Do({.target = "/version", .deadline = deadline}));
    RETURN_IF_ERROR(CheckStatus(answer));
    ASSIGN_OR_RETURN(const answers::VersionRange range, answers::ReadVersion(answer.body));
    const absl::StatusOr<ApiVersion> version = NegotiateApi(range.oldest, range.newest);
    if (!version.ok()) {
      return Annotate(version.status(), http_.address().display);
    }
    MutexLock lock(mu_);
    version_ = *version;
    return *version;
  }

  // `call.target` without the version. An answer that is no success is the engine's error.
  absl::StatusOr<HttpAnswer> Call(HttpCall call) {
    ASSIGN_OR_RETURN(HttpAnswer answer, CallForAnyStatus(std::move(call)));
    RETURN_IF_ERROR(CheckStatus(answer));
    return answer;
  }

  absl::StatusOr<HttpAnswer> CallForAnyStatus(HttpCall call) {
    const std::string target = std::move(call.target);
    for (bool again = true;; again = false) {
      ASSIGN_OR_RETURN(const ApiVersion version, Version(call.deadline));
      call.target = fmt::format("/v{}{}", version.ToString(), target);
      absl::StatusOr<HttpAnswer> answer = http_.Do(call);
      if (absl::IsUnavailable(answer.status())) {
        ForgetVersion();
      }
      if (!again || !answer.ok() || !RefusesVersion(*answer)) {
        return answer;
      }
      ForgetVersion();
    }
  }

  absl::StatusOr<HttpAnswer> Get(std::string target, Deadline deadline) {
    return Call({.target = std::move(target), .deadline = deadline});
  }

  // A POST without a body that must not be carried out twice.
  absl::StatusOr<HttpAnswer> PostForAnyStatus(std::string target, Deadline deadline) {
    return CallForAnyStatus(
        {.method = "POST", .target = std::move(target), .repeatable = false, .deadline = deadline});
  }

  absl::Status Post(std::string target, Deadline deadline) {
    ASSIGN_OR_RETURN(const HttpAnswer answer, PostForAnyStatus(std::move(target), deadline));
    return CheckStatus(answer);
  }

  // `deadline` is for the beginning.
  absl::StatusOr<HttpAnswer> Stream(HttpClient::StreamCall call, Deadline deadline) {
    ASSIGN_OR_RETURN(const ApiVersion version, Version(deadline));
    call.target = fmt::format("/v{}{}", version.ToString(), call.target);
    call.begin_by = deadline;
    absl::StatusOr<HttpAnswer> answer = http_.Stream(call);
    if (absl::IsUnavailable(answer.status()) || (answer.ok() && RefusesVersion(*answer))) {
      ForgetVersion();
    }
    return answer;
  }

  HttpClient& http() { return http_; }

 private:
  void ForgetVersion() {
    MutexLock lock(mu_);
    version_.reset();
  }

  HttpClient http_;
  Mutex mu_;
  std::optional<ApiVersion> version_ ABSL_GUARDED_BY(mu_);
};

absl::StatusOr<std::unique_ptr<DockerEngine>> DockerEngine::Connect(const EngineOptions& options,
                                                                    Deadline deadline) {
  ASSIGN_OR_RETURN(EngineAddress address, ResolveEngineAddress(options));
  auto link = std::make_unique<Link>(std::move(address));
  RETURN_IF_ERROR(link->Version(deadline).status());
  return std::unique_ptr<DockerEngine>(new DockerEngine(std::move(link)));
}

DockerEngine::DockerEngine(std::unique_ptr<Link> link) : link_(std::move(link)) {}
DockerEngine::~DockerEngine() = default;

absl::Status DockerEngine::Ping(Deadline deadline) {
  return link_->Get("/_ping", deadline).status();
}

absl::StatusOr<EngineInfo> DockerEngine::Info(Deadline deadline) {
  ASSIGN_OR_RETURN(const HttpAnswer answer, link_->Get("/info", deadline));
  ASSIGN_OR_RETURN(EngineInfo info, answers::ReadInfo(answer.body));
  ASSIGN_OR_RETURN(const ApiVersion version, link_->Version(deadline));
  info.api_version = version.ToString();
  return info;
}

absl::StatusOr<ImageInfo> DockerEngine::InspectImage(const std::string& image, Deadline deadline) {
  RETURN_IF_ERROR(CheckImageRef(image));
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->Get(fmt::format("/images/{}/json", image), deadline));
  return answers::ReadImage(answer.body);
}

absl::Status DockerEngine::BuildImage(std::string_view context_tar, const std::string& tag,
                                      const LineSink& lines, Deadline deadline) {
  RETURN_IF_ERROR(CheckImageRef(tag));
  LineSplitter splitter(kMaxLine);
  absl::Status failed;
  const auto take = [&](std::string_view line) {
    const absl::StatusOr<answers::BuildLine> read = answers::ReadBuildLine(line);
    if (!read.ok()) {
      failed = read.status();
      return false;
    }
    if (read->failed) {
      failed = absl::InternalError(fmt::format("building '{}': {}", tag, read->text));
    } else if (lines && !read->text.empty()) {
      lines(read->text);
    }
    return true;
  };
  const absl::Status sent =
      link_
          ->Call({.method = "POST",
                  .target = fmt::format("/build?t={}&version=1&rm=1&forcerm=1&networkmode=default",
                                        EscapeQuery(tag)),
                  .body = context_tar,
                  .content_type = "application/x-tar",
                  .repeatable = false,
                  .deadline = deadline,
                  .sink = [&](std::string_view bytes) { return splitter.Feed(bytes, take); }})
          .status();
  RETURN_IF_ERROR(failed);
  if (splitter.too_long()) {
    return absl::InternalError(fmt::format("building '{}': the engine's line has no end", tag));
  }
  RETURN_IF_ERROR(sent);
  splitter.Flush(take);
  return failed;
}

absl::StatusOr<std::string> DockerEngine::CreateContainer(const ContainerConfig& config,
                                                          Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(config.name));
  RETURN_IF_ERROR(CheckImageRef(config.image));
  ASSIGN_OR_RETURN(const ApiVersion version, link_->Version(deadline));
  ASSIGN_OR_RETURN(const std::string body, ToEngineJson(config, version));
  const absl::StatusOr<HttpAnswer> answer = link_->CallForAnyStatus(
      {.method = "POST",
       .target = fmt::format("/containers/create?name={}", EscapeQuery(config.name)),
       .body = body,
       .content_type = "application/json",
       .repeatable = false,
       .deadline = deadline});
  if (!answer.ok()) {
    // It may have been made all the same. The name could be another's, so that what goes must be
    // as we asked for and never have run.
    const Deadline until = After(kCleanupTime);
    const absl::StatusOr<ContainerInfo> made = InspectContainer(config.name, until);
    if (made.ok() && made->state == ContainerState::kCreated &&
        std::includes(made->labels.begin(), made->labels.end(), config.labels.begin(),
                      config.labels.end())) {
      RemoveContainer(made->id, until).IgnoreError();
    }
    return answer.status();
  }
  if (answer->status == 409) {
    return absl::AlreadyExistsError(answers::ErrorFor(409, answer->body).message());
  }
  RETURN_IF_ERROR(CheckStatus(*answer));
  ASSIGN_OR_RETURN(answers::Created created, answers::ReadCreated(answer->body));
  std::erase_if(created.warnings, [&config](const std::string& warning) {
    return std::any_of(config.accepted_warnings.begin(), config.accepted_warnings.end(),
                       [&warning](const std::string& accepted) {
                         return warning.find(accepted) != std::string::npos;
                       });
  });
  if (!created.warnings.empty()) {
    const absl::Status removed = RemoveContainer(created.id, After(kCleanupTime));
    return absl::FailedPreconditionError(fmt::format(
        "the engine cannot hold container '{}' to what was asked for: {}{}", config.name,
        Printable(fmt::format("{}", fmt::join(created.warnings, "; ")), 2048),
        removed.ok() ? "" : " (and it could not be removed)"));
  }
  return created.id;
}

absl::Status DockerEngine::StartContainer(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->PostForAnyStatus(fmt::format("/containers/{}/start", id), deadline));
  return answer.status == 304 ? absl::OkStatus() : CheckStatus(answer);  // 304: runs already
}

absl::StatusOr<ContainerInfo> DockerEngine::InspectContainer(const std::string& id,
                                                             Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->Get(fmt::format("/containers/{}/json", id), deadline));
  return answers::ReadContainer(answer.body);
}

absl::StatusOr<std::vector<ContainerInfo>> DockerEngine::ListContainers(const std::string& label,
                                                                        Deadline deadline) {
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->Get(fmt::format("/containers/json?all=1&filters={}",
                                          EscapeQuery(answers::ContainerFilter(label))),
                              deadline));
  return answers::ReadContainerList(answer.body);
}

absl::Status DockerEngine::PauseContainer(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  return link_->Post(fmt::format("/containers/{}/pause", id), deadline);
}

absl::Status DockerEngine::UnpauseContainer(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  return link_->Post(fmt::format("/containers/{}/unpause", id), deadline);
}

absl::Status DockerEngine::UpdateContainer(const std::string& id, const ContainerLimits& limits,
                                           Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  const std::string body = ToEngineJson(limits);
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->Call({.method = "POST",
                                .target = fmt::format("/containers/{}/update", id),
                                .body = body,
                                .content_type = "application/json",
                                .deadline = deadline}));
  ASSIGN_OR_RETURN(const std::vector<std::string> warnings, answers::ReadWarnings(answer.body));
  if (!warnings.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("the engine cannot hold container '{}' to its new limits: {}", id,
                    Printable(fmt::format("{}", fmt::join(warnings, "; ")), 2048)));
  }
  return absl::OkStatus();
}

absl::Status DockerEngine::SetCpuShares(const std::string& id, uint64_t shares, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  const std::string body = fmt::format("{{\"CpuShares\":{}}}", shares);
  return link_
      ->Call({.method = "POST",
              .target = fmt::format("/containers/{}/update", id),
              .body = body,
              .content_type = "application/json",
              .deadline = deadline})
      .status();
}

absl::Status DockerEngine::KillContainer(const std::string& id, const std::string& signal,
                                         Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  if (signal.empty() || !AllOf(signal, "+-")) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no name of a signal", Printable(signal, 80)));
  }
  return link_->Post(fmt::format("/containers/{}/kill?signal={}", id, EscapeQuery(signal)),
                     deadline);
}

absl::StatusOr<int> DockerEngine::WaitContainer(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  ASSIGN_OR_RETURN(
      const HttpAnswer answer,
      link_->Call({.method = "POST",
                   .target = fmt::format("/containers/{}/wait?condition=not-running", id),
                   .deadline = deadline}));
  return answers::ReadExitStatus(answer.body);
}

absl::Status DockerEngine::RemoveContainer(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  int failures = 0;
  for (milliseconds pause{20};; pause = std::min(pause * 2, milliseconds(200))) {
    ASSIGN_OR_RETURN(
        const HttpAnswer answer,
        link_->CallForAnyStatus({.method = "DELETE",
                                 .target = fmt::format("/containers/{}?force=1&v=1", id),
                                 .deadline = deadline}));
    const absl::Status status = CheckStatus(answer);
    if (status.ok() || absl::IsNotFound(status)) {
      return absl::OkStatus();
    }
    // 409: another call is removing it, and is waited for. 500: among others, a mount that is still
    // busy for a moment.
    const bool again =
        answer.status == 409 || (answer.status == 500 && ++failures < kRemoveAttempts);
    if (!again) {
      return status;
    }
    if (!SleepBefore(deadline, pause)) {
      return absl::DeadlineExceededError(
          fmt::format("container '{}' is not removed yet: {}", id, std::string(status.message())));
    }
  }
}

absl::StatusOr<std::vector<ProcessRow>> DockerEngine::Top(const std::string& id,
                                                          Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  // The engine runs the host's own ps, whose default shows names for uids.
  ASSIGN_OR_RETURN(
      const HttpAnswer answer,
      link_->Get(fmt::format("/containers/{}/top?ps_args={}", id, EscapeQuery("-eo pid,uid,args")),
                 deadline));
  return answers::ReadTop(answer.body);
}

absl::StatusOr<ContainerStats> DockerEngine::Stats(const std::string& id, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  ASSIGN_OR_RETURN(
      const HttpAnswer answer,
      link_->Get(fmt::format("/containers/{}/stats?stream=false&one-shot=true", id), deadline));
  return answers::ReadStats(answer.body);
}

absl::StatusOr<std::vector<FileChange>> DockerEngine::Changes(const std::string& id,
                                                              Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  ASSIGN_OR_RETURN(const HttpAnswer answer,
                   link_->Get(fmt::format("/containers/{}/changes", id), deadline));
  return answers::ReadChanges(answer.body);
}

absl::Status DockerEngine::GetArchive(const std::string& id, const std::string& path,
                                      const ByteSink& sink, Deadline deadline) {
  RETURN_IF_ERROR(CheckContainerRef(id));
  if (!path.starts_with('/') || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no absolute path", Printable(path, 200)));
  }
  return link_
      ->Call({.target = fmt::format("/containers/{}/archive?path={}", id, EscapeQuery(path)),
              .deadline = deadline,
              .sink = sink})
      .status();
}

absl::Status DockerEngine::StreamEvents(const std::string& label, const EventSink& sink,
                                        const std::function<void()>& connected,
                                        const std::function<bool()>& cancelled) {
  LineSplitter splitter(kMaxLine);
  absl::Status failed;
  const auto take = [&](std::string_view line) {
    const absl::StatusOr<EngineEvent> event = answers::ReadEvent(line);
    if (!event.ok()) {
      failed = event.status();
      return false;
    }
    return sink(*event);
  };
  // The engine answers a moment before it begins to listen to itself. With a time it repeats what
  // it remembers from then on, so that nothing falls into the gap.
  const int64_t since = std::chrono::duration_cast<std::chrono::seconds>(
                            std::chrono::system_clock::now().time_since_epoch())
                            .count() -
                        1;
  const absl::StatusOr<HttpAnswer> answer =
      link_->Stream({.target = fmt::format("/events?since={}&filters={}", since,
                                           EscapeQuery(answers::EventFilter(label))),
                     .sink = [&](std::string_view bytes) { return splitter.Feed(bytes, take); },
                     .connected = connected,
                     .cancelled = cancelled},
                    After(kStreamBegin));
  RETURN_IF_ERROR(failed);
  if (splitter.too_long()) {
    return absl::InternalError("an event of the engine has no end");
  }
  RETURN_IF_ERROR(answer.status());
  return CheckStatus(*answer);
}

}  // namespace creel
