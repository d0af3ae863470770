#include "supervisor/incident/capture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/line.h"
#include "supervisor/base/escape.h"
#include "supervisor/evidence/bundle_writer.h"
#include "supervisor/evidence/named_path.h"
#include "supervisor/evidence/tree_capture.h"
#include "supervisor/sandbox/sandbox_paths.h"

namespace creel {
namespace {

using nlohmann::json;

constexpr size_t kMaxRecordSlice = 64u << 20;
constexpr size_t kMaxOutput = 16u << 20;
constexpr size_t kMaxProcesses = 2048;
constexpr size_t kMaxProcFile = 64u << 10;
constexpr std::chrono::seconds kAskWithin{5};

// A file of /proc, bounded.
std::string ReadProc(int pid, const char* name) {
  const UniqueFd fd(::open(fmt::format("/proc/{}/{}", pid, name).c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(kMaxProcFile, '\0');
  size_t have = 0;
  while (fd.valid() && have < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + have, text.size() - have);
    if (got <= 0) {
      break;
    }
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

std::string Dump(const json& value) {
  return value.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

// A file's name from an id that a gateway chose.
std::string FileName(const std::string& id) {
  std::string name;
  for (const char c : id.substr(0, 100)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
    name += plain ? c : '_';
  }
  return name;
}

// One sandbox's evidence.
class SandboxCapture {
 public:
  SandboxCapture(const EvidenceCapture::Rooms& rooms, const IncidentSandbox& sandbox,
                 BundleWriter& bundle, Deadline deadline)
      : rooms_(rooms),
        sandbox_(sandbox),
        bundle_(bundle),
        deadline_(deadline),
        base_(fmt::format("sandboxes/{}", sandbox.sandbox_id)) {}

  [[nodiscard]] std::vector<std::string>& seen_secrets() { return seen_secrets_; }

  absl::Status Run() {
    RETURN_IF_ERROR(
        bundle_.AddText(base_ + "/sandbox.json", Dump({{"session", sandbox_.session},
                                                       {"sender", sandbox_.sender},
                                                       {"sandbox_id", sandbox_.sandbox_id},
                                                       {"container_id", sandbox_.container_id},
                                                       {"frozen_by", sandbox_.method},
                                                       {"error", sandbox_.error}})));
    RETURN_IF_ERROR(Container());
    RETURN_IF_ERROR(Output());
    return Files();
  }

 private:
  [[nodiscard]] Deadline Soon() const { return std::min(deadline_, After(kAskWithin)); }

  void Missing(const char* what, const absl::Status& why) {
    bundle_.LeftOut(fmt::format("{}/{}: {}", base_, what, std::string(why.message())));
  }

  absl::Status Container() {
    if (sandbox_.container_id.empty()) {
      bundle_.LeftOut(base_ + ": it has no container");
      return absl::OkStatus();
    }
    const absl::StatusOr<ContainerInfo> info =
        rooms_.engine.InspectContainer(sandbox_.container_id, Soon());
    if (!info.ok()) {
      Missing("inspect.json", info.status());
      return absl::OkStatus();
    }
    pid_ = info->pid;
    RETURN_IF_ERROR(bundle_.AddText(base_ + "/inspect.json", info->json));
    const auto changes = rooms_.engine.Changes(sandbox_.container_id, Soon());
    if (changes.ok()) {
      json list = json::array();
      for (const FileChange& change : *changes) {
        list.push_back({{"path", change.path},
                        {"kind", change.kind == ChangeKind::kAdded     ? "added"
                                 : change.kind == ChangeKind::kDeleted ? "deleted"
                                                                       : "modified"}});
      }
      RETURN_IF_ERROR(bundle_.AddText(base_ + "/changes.json", Dump(list)));
    } else {
      Missing("changes.json", changes.status());
    }
    const auto rows = rooms_.engine.Top(sandbox_.container_id, Soon());
    if (!rows.ok()) {
      Missing("processes.json", rows.status());
      return absl::OkStatus();
    }
    json processes = json::array();
    for (const ProcessRow& row : *rows) {
      if (processes.size() >= kMaxProcesses) {
        bundle_.LeftOut(fmt::format("{}/processes.json: there are more", base_));
        break;
      }
      std::string command = ReadProc(row.pid, "cmdline");
      std::replace(command.begin(), command.end(), '\0', ' ');
      processes.push_back({{"pid", row.pid},
                           {"uid", row.uid},
                           {"command", command.empty() ? row.command : command},
                           {"status", ReadProc(row.pid, "status")}});
    }
    return bundle_.AddText(base_ + "/processes.json", Dump(processes));
  }

  // What commands have written, as far as it is kept.
  absl::Status Output() {
    const auto sandbox = rooms_.sessions.Find(sandbox_.sandbox_id);
    if (!sandbox.ok()) {
      Missing("output", sandbox.status());
      return absl::OkStatus();
    }
    json commands = json::array();
    for (const shim::v1::ProcessInfo& info : (*sandbox)->processes().List()) {
      const auto process = (*sandbox)->processes().Find(info.process_id());
      if (process == nullptr) {
        continue;
      }
      std::string output;
      uint64_t offset = 0;
      uint64_t missed = 0;
      for (bool more = true; more && output.size() < kMaxOutput;) {
        const RemoteProcess::Next next = process->Read(offset, [] {});
        if (const auto* piece = std::get_if<std::shared_ptr<const shim::v1::Output>>(&next)) {
          output += (*piece)->data();
          offset = (*piece)->offset() + (*piece)->data().size();
        } else if (const auto* gap = std::get_if<shim::v1::OutputGap>(&next)) {
          missed += gap->to() > offset ? gap->to() - offset : 0;
          more = gap->to() > offset;
          offset = gap->to();
        } else {
          more = false;
        }
      }
      for (const std::string& secret : rooms_.audit.SecretsIn(output)) {
        seen_secrets_.push_back(fmt::format("{}: in what command {} of session {} wrote", secret,
                                            Printable(info.process_id(), 64),
                                            Printable(sandbox_.session, 256)));
      }
      const std::string name =
          fmt::format("output/{:03}-{}.txt", commands.size(), FileName(info.process_id()));
      commands.push_back({{"process_id", info.process_id()},
                          {"command", info.ShortDebugString().substr(0, 4096)},
                          {"output", name},
                          {"bytes_no_longer_kept", missed}});
      RETURN_IF_ERROR(bundle_.AddText(fmt::format("{}/{}", base_, name), output));
    }
    return bundle_.AddText(base_ + "/commands.json", Dump(commands));
  }

  absl::Status Files() {
    const TreeBounds bounds{.max_entries = rooms_.config.incident.max_files};
    bool workspace = false;
    if (pid_ > 0 && rooms_.abilities.root && !rooms_.abilities.engine_elsewhere) {
      const std::pair<std::string, const char*> places[] = {
          {rooms_.config.sandbox.workdir, "workspace"},
          {"/tmp", "tmp"},
          {"/run", "run"},
          {"/dev/shm", "shm"}};
      for (const auto& [path, name] : places) {
        absl::StatusOr<UniqueFd> folder = OpenInProcess(pid_, sandbox_.container_id, path);
        if (!folder.ok()) {
          Missing(name, folder.status());
          continue;
        }
        workspace = workspace || name == std::string_view("workspace");
        RETURN_IF_ERROR(
            CaptureTree(*std::move(folder), fmt::format("{}/{}", base_, name), bounds, bundle_));
      }
    } else {
      bundle_.LeftOut(fmt::format(
          "{}: /tmp, /run and /dev/shm, as {}", base_,
          pid_ <= 0 ? "no process of it is left" : "its processes cannot be seen from here"));
    }
    return workspace ? absl::OkStatus() : FromHost(bounds);
  }

  // The workspace as it lies on the host: as an image or a folder.
  absl::Status FromHost(const TreeBounds& bounds) {
    const SandboxPaths paths = SandboxPaths::For(rooms_.config.paths, sandbox_.sandbox_id);
    std::string place = paths.own_dir;
    if (const auto view = rooms_.sessions.Get(sandbox_.sandbox_id);
        view.ok() && !view->identity.workspace.empty() &&
        view->identity.access != WorkspaceAccess::kNone) {
      place = view->identity.workspace;
    }
    absl::StatusOr<UniqueFd> folder = OpenFolder(place);
    if (!folder.ok()) {
      Missing("host", folder.status());
      return absl::OkStatus();
    }
    return CaptureTree(*std::move(folder), base_ + "/host", bounds, bundle_);
  }

  const EvidenceCapture::Rooms& rooms_;
  const IncidentSandbox& sandbox_;
  BundleWriter& bundle_;
  const Deadline deadline_;
  const std::string base_;
  std::vector<std::string> seen_secrets_;
  int pid_ = 0;
};

// The lines of the record that concern the incident, the newest where they are many.
absl::StatusOr<std::string> RecordSlice(const AuditLog& audit, const Incident& incident,
                                        BundleWriter& bundle) {
  AuditQuery concerns;
  for (const IncidentSandbox& each : incident.sandboxes) {
    concerns.any_session.push_back(each.session);
    concerns.any_sandbox.push_back(each.sandbox_id);
  }
  concerns.FindMasked(audit);
  AuditReader reader(audit.directory(), {});
  std::deque<std::string> lines;
  size_t bytes = 0;
  size_t dropped = 0;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader.Next());
    if (!line) {
      break;
    }
    const std::optional<LineFrame> frame = ParseFrame(*line);
    const bool wanted =
        (!concerns.any_session.empty() && concerns.Fits(*line)) || frame->event == "checkpoint" ||
        frame->event.starts_with("incident.") || frame->event.starts_with("record.") ||
        frame->event.starts_with("supervisor.") || frame->event.starts_with("operator.");
    if (!wanted) {
      continue;
    }
    lines.emplace_back(*line);
    bytes += line->size() + 1;
    while (bytes > kMaxRecordSlice) {
      bytes -= lines.front().size() + 1;
      lines.pop_front();
      ++dropped;
    }
  }
  if (dropped > 0) {
    bundle.LeftOut(fmt::format("record.jsonl: the oldest {} lines", dropped));
  }
  std::string text;
  text.reserve(bytes);
  for (const std::string& line : lines) {
    text += line;
    text += '\n';
  }
  return text;
}

// A file or folder that the operator named. The gateway, or whoever got hold of it, may have put
// links there: none of theirs is followed.
absl::Status AddGatewayFile(const std::string& path, const TreeBounds& bounds,
                            BundleWriter& bundle) {
  const std::string name = "gateway" + path;
  const absl::StatusOr<UniqueFd> named = OpenNamed(path);
  absl::StatusOr<UniqueFd> fd = named.ok() ? OpenToRead(named->get()) : named.status();
  struct stat info {};
  if (!fd.ok() || ::fstat(fd->get(), &info) != 0) {
    bundle.LeftOut(fmt::format("{}: {}", name, std::string(fd.status().message())));
    return absl::OkStatus();
  }
  return S_ISDIR(info.st_mode) ? CaptureTree(*std::move(fd), name, bounds, bundle)
                               : bundle.AddFile(name, info, fd->get());
}

// Bytes of `folder`'s disk that may be used without going below `floor`.
uint64_t RoomAbove(const std::string& folder, uint64_t floor) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) {
    return UINT64_MAX;
  }
  const uint64_t free = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  return free > floor ? free - floor : 0;
}

}  // namespace

absl::StatusOr<IncidentBundle> EvidenceCapture::Run(const Incident& incident,
                                                    const std::string& folder,
                                                    Deadline deadline) const {
  const auto began = std::chrono::steady_clock::now();
  const auto now = rooms_.clock.Now();
  const uint64_t floor = rooms_.config.sandbox.limits.free_space_floor_bytes;
  std::string path;
  for (size_t n = incident.bundles.size() + 1;; ++n) {
    path = fmt::format("{}/incident-{}-{}.tar.zst", folder, incident.id, n);
    if (::access(path.c_str(), F_OK) != 0) {
      break;
    }
  }
  // The key is the record's, and lives as long as that.
  const std::shared_ptr<const SigningKey> key(std::shared_ptr<void>(), &rooms_.audit.key());
  ASSIGN_OR_RETURN(
      const std::unique_ptr<BundleWriter> bundle,
      BundleWriter::Create({.path = path,
                            .incident = incident.id,
                            .install_id = rooms_.install_id,
                            .key = key,
                            .max_bytes = rooms_.config.incident.max_bundle_bytes,
                            .room = [&folder, floor] { return RoomAbove(folder, floor); },
                            .deadline = deadline,
                            .now = now}));
  RETURN_IF_ERROR(bundle->AddText("incident.json", IncidentToJson(incident)));
  RETURN_IF_ERROR(
      bundle->AddText("signing-key.pub", PublicKeyPem(rooms_.audit.key().public_key())));
  const absl::StatusOr<std::string> slice = RecordSlice(rooms_.audit, incident, *bundle);
  if (slice.ok()) {
    RETURN_IF_ERROR(bundle->AddText("record.jsonl", *slice));
  } else {
    bundle->LeftOut(fmt::format("record.jsonl: {}", std::string(slice.status().message())));
  }
  for (const std::string& file : rooms_.config.incident.gateway_files) {
    RETURN_IF_ERROR(
        AddGatewayFile(file, {.max_entries = rooms_.config.incident.max_files}, *bundle));
  }
  std::vector<std::string> seen_secrets;
  for (const IncidentSandbox& sandbox : incident.sandboxes) {
    SandboxCapture one(rooms_, sandbox, *bundle, deadline);
    RETURN_IF_ERROR(one.Run());
    std::move(one.seen_secrets().begin(), one.seen_secrets().end(),
              std::back_inserter(seen_secrets));
  }
  ASSIGN_OR_RETURN(BundleWriter::Finished finished, bundle->Finish());
  return IncidentBundle{.path = path,
                        .bytes = finished.bytes,
                        .sha256 = std::move(finished.sha256),
                        .made_at = now,
                        .took = std::chrono::duration_cast<std::chrono::microseconds>(
                            std::chrono::steady_clock::now() - began),
                        .members = finished.members,
                        .left_out = std::move(finished.left_out),
                        .seen_secrets = std::move(seen_secrets)};
}

}  // namespace creel
