#include "supervisor/daemon/egress_wiring.h"

#include <spdlog/spdlog.h>

#include <string>

#include "supervisor/audit/events.h"

namespace creel {
namespace {

// The record of what sandboxes reached is written here and nowhere else.
absl::Status Write(AuditLog& audit, const egress::Record& record) {
  const EgressFacts facts{.number = record.number,
                          .sandbox = record.sandbox,
                          .session = record.session,
                          .level = record.level,
                          .allowed = record.allowed,
                          .rule = record.rule,
                          .kind = record.kind,
                          .method = record.method,
                          .target = record.target,
                          .path = record.path,
                          .reason = record.reason};
  if (record.phase == egress::Record::Phase::kEnded) {
    audit.Keep(EgressEnded(facts, record.status, record.bytes_up, record.bytes_down, record.took));
    return absl::OkStatus();
  }
  if (record.allowed) {
    return audit.Append(EgressDecided(facts));
  }
  audit.Keep(EgressDecided(facts));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<egress::Proxy>> StartEgress(const EgressConfig& config,
                                                           AuditLog& audit) {
  return egress::Proxy::Start({
      .config = config,
      .recorder =
          [&audit](const egress::Record& record) {
            spdlog::log(record.allowed ? spdlog::level::info : spdlog::level::warn, "{}",
                        egress::LogLine(record));
            return Write(audit, record);
          },
      .problem = [](const std::string& text) { spdlog::error("egress: {}", text); },
  });
}

std::shared_ptr<void> ConnectEgress(egress::Proxy& proxy, SessionManager& sessions,
                                    PolicyDesk& desk) {
  proxy.SetFacts([&sessions, &desk](const std::string& sandbox) {
    egress::Asker asker{.sandbox = sandbox, .session = {}, .level = sessions.LevelOf(sandbox)};
    if (const absl::StatusOr<SessionView> view = sessions.Get(sandbox); view.ok()) {
      asker.session = view->session;
    }
    asker.read_only = desk.IsReadOnlyAt(asker.session, asker.level);
    return asker;
  });
  sessions.OnLevelChange([&proxy](const std::string& sandbox, const std::string& /*level*/) {
    proxy.Recheck(sandbox);
  });
  // A read-only switch, another configuration, a level that was taken away.
  std::shared_ptr<void> changes = desk.OnChange([&proxy] { proxy.Recheck(""); });
  return {nullptr, [&proxy, changes](void*) mutable {
            changes.reset();
            proxy.SetFacts(nullptr);
          }};
}

}  // namespace creel
