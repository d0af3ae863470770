#include "supervisor/incident/secret_desk.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/events.h"
#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxRevokedFile = 1u << 20;
constexpr std::string_view kServiceRule = "service ";

std::string RevokedFile(const std::string& state_dir) { return state_dir + "/revoked-secrets"; }

absl::StatusOr<std::set<std::string>> ReadRevoked(const std::string& path) {
  std::set<std::string> names;
  const absl::StatusOr<std::string> text = ReadRecordFile(path, kMaxRevokedFile);
  if (absl::IsNotFound(text.status())) {
    return names;
  }
  if (!text.ok()) {
    return Annotate(text.status(),
                    "which credentials are revoked cannot be read, and none may be used until it "
                    "can");
  }
  std::istringstream lines(*text);
  for (std::string name; std::getline(lines, name);) {
    if (!name.empty()) {
      names.insert(name);
    }
  }
  return names;
}

}  // namespace

std::string CredentialUsedBy(std::string_view event, std::string_view kind, std::string_view rule) {
  return event == "egress.allowed" && kind == "service" && rule.starts_with(kServiceRule)
             ? std::string(rule.substr(kServiceRule.size()))
             : std::string();
}

absl::StatusOr<std::unique_ptr<SecretDesk>> SecretDesk::Create(Rooms rooms) {
  std::unique_ptr<SecretDesk> desk(new SecretDesk(std::move(rooms)));
  const Rooms& r = desk->rooms_;
  const std::string path = RevokedFile(r.state_dir);
  ASSIGN_OR_RETURN(std::set<std::string> revoked, ReadRevoked(path));
  if (!revoked.empty()) {
    spdlog::warn("credentials that stay revoked: {}",
                 Printable(fmt::format("{}", fmt::join(revoked, ", ")), 1024));
  }
  r.credentials.SetRevoked(std::move(revoked));
  r.credentials.SetListener(
      {.revoked =
           [path](const std::set<std::string>& now) {
             return WriteRecordFile(path,
                                    now.empty() ? "" : fmt::format("{}\n", fmt::join(now, "\n")));
           },
       .fetched = r.fetched});
  r.credentials.FetchAll();
  return desk;
}

SecretDesk::~SecretDesk() { rooms_.credentials.SetListener({}); }

absl::StatusOr<std::vector<SecretView>> SecretDesk::List() const {
  std::map<std::string, SecretView> views;
  for (egress::CredentialInfo& info : rooms_.credentials.List()) {
    views[info.service] = {.name = info.service,
                           .kind = std::move(info.kind),
                           .source = std::move(info.source),
                           .revoked = info.revoked};
  }
  AuditReader reader(rooms_.audit.directory(), {.event = "egress.allowed"});
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader.Next());
    if (!line) {
      break;
    }
    const std::string service = CredentialUsedBy(
        "egress.allowed", FieldOf(*line, "kind").value_or(""), FieldOf(*line, "rule").value_or(""));
    const auto view = views.find(service);
    if (view != views.end()) {
      view->second.last_session = FieldOf(*line, "session").value_or("");
      view->second.last_sandbox = FieldOf(*line, "sandbox").value_or("");
      view->second.last_used_at = FieldOf(*line, "at").value_or("");
      ++view->second.uses;
    }
  }
  std::vector<SecretView> all;
  for (auto& [name, view] : views) {
    all.push_back(std::move(view));
  }
  return all;
}

absl::Status SecretDesk::Revoke(const std::string& name) {
  const absl::Status revoked = rooms_.credentials.Revoke(name);
  if (absl::IsNotFound(revoked)) {
    return revoked;
  }
  // What goes on with it ends too.
  if (rooms_.recheck) {
    rooms_.recheck();
  }
  rooms_.audit.Keep(SecretEvent("revoked", name));
  static_cast<void>(rooms_.audit.Sync());
  spdlog::warn("the credential of service '{}' is revoked", Printable(name, 128));
  return revoked;
}

absl::Status SecretDesk::Restore(const std::string& name) {
  RETURN_IF_ERROR(rooms_.credentials.Restore(name));
  rooms_.credentials.FetchAll();
  rooms_.audit.Keep(SecretEvent("restored", name));
  static_cast<void>(rooms_.audit.Sync());
  spdlog::warn("the credential of service '{}' is used again", Printable(name, 128));
  return absl::OkStatus();
}

}  // namespace creel
