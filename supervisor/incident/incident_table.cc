#include "supervisor/incident/incident_table.h"

#include <dirent.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "supervisor/audit/record_files.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxIncidentFile = 16u << 20;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};
using Dir = std::unique_ptr<DIR, CloseDir>;

// What a capture left that was killed: nobody goes on with it, and it can be large.
void RemoveUnfinished(const std::string& folder) {
  const Dir dir(::opendir(folder.c_str()));
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    if (std::string_view(entry->d_name).ends_with(".tar.zst.new")) {
      static_cast<void>(::unlinkat(::dirfd(dir.get()), entry->d_name, 0));
    }
  }
}

absl::Status MakeFolder(const std::string& path) {
  return ::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST
             ? absl::OkStatus()
             : ErrnoStatus(errno, fmt::format("make the folder '{}'", path));
}

}  // namespace

uint64_t IncidentNumber(const std::string& id) {
  return id.empty() || id.find_first_not_of("0123456789") != std::string::npos || id.size() > 12
             ? 0
             : std::strtoull(id.c_str(), nullptr, 10);
}

IncidentTable::IncidentTable(Store& store, SessionManager& sessions, const std::string& state_dir)
    : store_(store), sessions_(sessions), folder_(fmt::format("{}/incidents", state_dir)) {}

std::string IncidentTable::PathOf(const std::string& id) const {
  return fmt::format("{}/{}", folder_, id);
}

absl::StatusOr<std::string> IncidentTable::Folder(const std::string& id) const {
  std::string path = PathOf(id);
  RETURN_IF_ERROR(MakeFolder(path));
  return path;
}

absl::Status IncidentTable::Load() {
  std::map<uint64_t, Incident> found;
  ASSIGN_OR_RETURN(const std::vector<Store::IncidentRow> rows, store_.ListIncidents());
  for (const Store::IncidentRow& row : rows) {
    absl::StatusOr<Incident> incident = IncidentFromJson(row.body);
    if (incident.ok() && IncidentNumber(incident->id) != 0) {
      found[IncidentNumber(incident->id)] = *std::move(incident);
    } else {
      spdlog::error("the store's incident {} cannot be read: {}", Printable(row.id, 32),
                    Printable(std::string(incident.status().message()), 256));
    }
  }
  RETURN_IF_ERROR(MakeFolder(folder_));
  const Dir dir(::opendir(folder_.c_str()));
  uint64_t highest = found.empty() ? 0 : found.rbegin()->first;
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    highest = std::max(highest, IncidentNumber(entry->d_name));
    LoadFolder(entry->d_name, found);
  }
  MutexLock hold(mu_);
  incidents_ = std::move(found);
  next_ = highest + 1;
  ApplyHoldsLocked();
  return absl::OkStatus();
}

// What a lost database does not know any more, the folders do.
void IncidentTable::LoadFolder(const std::string& name, std::map<uint64_t, Incident>& found) {
  const uint64_t number = IncidentNumber(name);
  if (number == 0) {
    return;
  }
  RemoveUnfinished(PathOf(name));
  if (found.contains(number)) {
    return;
  }
  const absl::StatusOr<std::string> text =
      ReadRecordFile(PathOf(name) + "/incident.json", kMaxIncidentFile);
  absl::StatusOr<Incident> incident = text.ok() ? IncidentFromJson(*text) : text.status();
  if (!incident.ok() || IncidentNumber(incident->id) != number) {
    spdlog::error("the folder of incident {} tells nothing of it", number);
    return;
  }
  spdlog::warn("incident {} is not in the store, and was read from its folder", number);
  static_cast<void>(
      store_.PutIncident({.id = incident->id, .state = StateText(incident->state), .body = *text}));
  found[number] = *std::move(incident);
}

void IncidentTable::ApplyHoldsLocked() {
  std::vector<HoldRule> holds;
  for (const auto& [number, incident] : incidents_) {
    if (incident.state == IncidentState::kOpen) {
      holds.push_back(incident.hold());
    }
  }
  sessions_.SetHolds(holds);
}

absl::Status IncidentTable::Save(const Incident& incident) {
  absl::Status saved = WriteDown(incident);
  ASSIGN_OR_RETURN(const std::string folder, Folder(incident.id));
  RETURN_IF_ERROR(WriteRecordFile(folder + "/incident.json", IncidentToJson(incident)));
  return saved;
}

std::string IncidentTable::Add(const Incident& incident) {
  MutexLock hold(mu_);
  const uint64_t number = next_++;
  Incident& added = incidents_[number] = incident;
  added.id = std::to_string(number);
  opening_.insert(number);
  ApplyHoldsLocked();
  return added.id;
}

absl::Status IncidentTable::WriteDown(const Incident& incident) {
  return store_.PutIncident(
      {.id = incident.id, .state = StateText(incident.state), .body = IncidentToJson(incident)});
}

absl::Status IncidentTable::Opened(const Incident& incident) {
  MutexLock save(saving_);
  {
    MutexLock hold(mu_);
    incidents_[IncidentNumber(incident.id)] = incident;
    opening_.erase(IncidentNumber(incident.id));
  }
  return Save(incident);
}

absl::StatusOr<Incident> IncidentTable::Change(const std::string& id,
                                               const std::function<void(Incident&)>& change) {
  MutexLock save(saving_);
  Incident changed;
  {
    MutexLock hold(mu_);
    const auto found = incidents_.find(IncidentNumber(id));
    if (found == incidents_.end()) {
      return absl::NotFoundError(fmt::format("there is no incident '{}'", Printable(id, 32)));
    }
    change(found->second);
    changed = found->second;
    ApplyHoldsLocked();
  }
  RETURN_IF_ERROR(Annotate(Save(changed), "write the incident down"));
  return changed;
}

std::vector<Incident> IncidentTable::List() const {
  MutexLock hold(mu_);
  std::vector<Incident> all;
  for (const auto& [number, incident] : incidents_) {
    all.push_back(incident);
  }
  return all;
}

absl::StatusOr<Incident> IncidentTable::GetLocked(const std::string& id) const {
  const auto found = incidents_.find(IncidentNumber(id));
  if (found == incidents_.end()) {
    return absl::NotFoundError(fmt::format(
        "there is no incident '{}'; creel incident list lists them", Printable(id, 32)));
  }
  return found->second;
}

absl::StatusOr<Incident> IncidentTable::Get(const std::string& id) const {
  MutexLock hold(mu_);
  return GetLocked(id);
}

absl::StatusOr<Incident> IncidentTable::GetOpened(const std::string& id) const {
  MutexLock hold(mu_);
  ASSIGN_OR_RETURN(Incident incident, GetLocked(id));
  if (opening_.contains(IncidentNumber(id))) {
    return absl::FailedPreconditionError(
        fmt::format("incident {} is still being opened; try again in a moment", incident.id));
  }
  return incident;
}

}  // namespace creel
