#include "supervisor/daemon/daemon.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "supervisor/api/server.h"
#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/events.h"
#include "supervisor/base/escape.h"
#include "supervisor/config/load_config.h"
#include "supervisor/daemon/anchor.h"
#include "supervisor/daemon/door_check.h"
#include "supervisor/daemon/egress_wiring.h"
#include "supervisor/daemon/folders.h"
#include "supervisor/daemon/gateway_findings.h"
#include "supervisor/daemon/logging.h"
#include "supervisor/daemon/page_wiring.h"
#include "supervisor/daemon/policy_findings.h"
#include "supervisor/daemon/reload.h"
#include "supervisor/egress/proxy.h"
#include "supervisor/engine/docker_engine.h"
#include "supervisor/incident/incident_manager.h"
#include "supervisor/incident/secret_desk.h"
#include "supervisor/sandbox/grpc_threads.h"
#include "supervisor/sandbox/link_pool.h"
#include "supervisor/sandbox/shim_store.h"
#include "supervisor/session/call_gate.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/read_only_keeper.h"
#include "supervisor/session/session_manager.h"
#include "supervisor/session/warm_pool.h"
#include "supervisor/store/policy_store.h"
#include "supervisor/store/store.h"
#include "supervisor/web/metrics.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kProbeTimeout{60};
constexpr std::chrono::seconds kRecoverTimeout{60};
constexpr std::chrono::seconds kSweepTimeout{10};
// For calls under way when the doors close.
constexpr std::chrono::seconds kLastCalls{2};

absl::StatusOr<std::unique_ptr<DockerEngine>> ConnectEngine(const EngineConfig& config,
                                                            std::chrono::seconds wait) {
  const EngineOptions options{.host = config.host,
                              .tls_ca = config.tls_ca,
                              .tls_cert = config.tls_cert,
                              .tls_key = config.tls_key};
  const Deadline until = After(wait);
  bool told = false;
  while (true) {
    absl::StatusOr<std::unique_ptr<DockerEngine>> engine =
        DockerEngine::Connect(options, After(config.timeout));
    // An engine that says no is not asked again; one that is not there may be starting.
    if (engine.ok() || !absl::IsUnavailable(engine.status()) ||
        std::chrono::steady_clock::now() >= until) {
      if (absl::IsUnavailable(engine.status())) {
        return Annotate(engine.status(),
                        "no engine: start Docker, or say where it is (engine.host in the "
                        "configuration, or $DOCKER_HOST)");
      }
      return engine;
    }
    if (!told) {
      spdlog::warn("{}; trying again for {} s",
                   Printable(std::string(engine.status().message()), 512), wait.count());
      told = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
}

absl::Status CheckRuntime(const HostAbilities& abilities, const std::string& runtime) {
  if (runtime.empty() || std::find(abilities.runtimes.begin(), abilities.runtimes.end(), runtime) !=
                             abilities.runtimes.end()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      fmt::format("the engine does not offer the runtime '{}' (sandbox.runtime); it offers {}. "
                  "Install it there, or choose one of these",
                  Printable(runtime, 80), fmt::join(abilities.runtimes, ", ")));
}

Finding CheckImage(Engine& engine, const Config& config) {
  Finding finding{
      .id = "image",
      .severity = Severity::kOk,
      .title = fmt::format("the image '{}' is on this host", Printable(config.sandbox.image, 200))};
  const absl::StatusOr<ImageInfo> image =
      engine.InspectImage(config.sandbox.image, After(config.engine.timeout));
  if (!image.ok()) {
    finding.severity = Severity::kError;
    finding.title =
        fmt::format("the image '{}' cannot be used", Printable(config.sandbox.image, 200));
    finding.why = Printable(std::string(image.status().message()), 512);
    finding.fix = config.sandbox.image == SandboxConfig().image
                      ? "build it: docker build -t creel-sandbox:latest docker/sandbox"
                      : "pull or build it on this host, or name another one (sandbox.image)";
  }
  return finding;
}

// The record in the state folder; its head is kept in the store too.
absl::StatusOr<std::unique_ptr<AuditLog>> OpenRecord(const Config& config, Store& store,
                                                     Anchor& anchor, const Clock& clock) {
  ASSIGN_OR_RETURN(const auto head, store.GetRecordHead());
  AuditLog::Options options{.directory = config.paths.state_dir + "/record",
                            .install_id = store.install_id(),
                            .keep = config.audit.keep};
  if (head.first != 0) {
    options.known_head = AuditHead{.seq = head.first, .hash = head.second};
  }
  options.save_head = [&store, told = std::make_shared<bool>(false)](const AuditHead& newest) {
    const absl::Status kept = store.PutRecordHead(newest.seq, newest.hash);
    // Comes every half second: told once.
    if (!kept.ok() && !*told) {
      spdlog::error("keep the head of the record in the store: {}", std::string(kept.message()));
    }
    *told = !kept.ok();
  };
  options.anchor = [&anchor](const std::string& line) { anchor.Send(line); };
  ASSIGN_OR_RETURN(std::unique_ptr<AuditLog> audit, AuditLog::Open(std::move(options), clock));
  for (const std::string& found : audit->findings()) {
    spdlog::error("the record: {}", found);
  }
  return audit;
}

// Open sessions whose sandbox has other limits than it would get now.
std::vector<std::string> OtherLimits(const SessionManager& sessions, const Config& fresh) {
  std::vector<std::string> other;
  for (const SessionView& view : sessions.List()) {
    if (WouldGetOtherLimits(view.identity.limits, view.trust_level, fresh)) {
      other.push_back(view.session);
    }
  }
  return other;
}

// Does what findings can have done.
void PutRight(std::vector<Finding>& findings, AuditLog& audit) {
  for (Finding& finding : findings) {
    if (!finding.put_right) {
      continue;
    }
    const absl::Status done = finding.put_right();
    finding.fixed = done.ok();
    if (done.ok()) {
      audit.Keep(SupervisorEvent("fixed", fmt::format("{}: {}", finding.id, finding.fix)));
    } else {
      finding.why += fmt::format("; it could not be put right: {}",
                                 Printable(std::string(done.message()), 256));
    }
  }
}

// Known secrets appear neither in the record nor in replies.
void TellSecrets(egress::Credentials& credentials, AuditLog& audit, PolicyDesk& desk) {
  std::vector<std::pair<std::string, std::string>> known = credentials.NamedForms();
  desk.SetSecrets(credentials.Forms());
  for (std::pair<std::string, std::string>& each : desk.NamedSecrets()) {
    known.push_back(std::move(each));
  }
  audit.SetSecrets(known);
}

// What only this process knows, as lines of `creel doctor`.
std::vector<Finding> OwnFindings(const SessionManager& sessions, const Store& store,
                                 const AuditLog& audit, const Anchor& anchor) {
  std::vector<Finding> findings;
  if (const std::string problem = anchor.problem(); !problem.empty()) {
    findings.push_back({.id = "record-anchor",
                        .severity = Severity::kWarning,
                        .title = "the newest checkpoint of the record was not kept elsewhere",
                        .why = Printable(problem, 512),
                        .fix = "see why the program of audit.anchor_command fails"});
  }
  if (const absl::Status health = audit.Health(); !health.ok()) {
    findings.push_back({.id = "record",
                        .severity = Severity::kError,
                        .title = "no tool call is carried out",
                        .why = Printable(std::string(health.message()), 512),
                        .fix = "make room, or mend the file system that holds paths.state_dir"});
  }
  for (const std::string& found : audit.findings()) {
    findings.push_back({.id = "record-start",
                        .severity = Severity::kWarning,
                        .title = "the record was not as it was left at the last start",
                        .why = Printable(found, 512),
                        .fix = "look at it: creel audit verify"});
  }
  for (const UnknownContainer& unknown : sessions.Unknown()) {
    findings.push_back({.id = "unknown-container",
                        .severity = Severity::kWarning,
                        .title = fmt::format("container {} is ours by its label, and not in the "
                                             "store",
                                             Printable(unknown.name, 80)),
                        .why = unknown.paused ? "it was paused and is kept as evidence"
                                              : "it does not run, and is kept as evidence",
                        .fix = fmt::format("look at it, then: docker rm -f {}",
                                           Printable(unknown.container_id, 64))});
  }
  for (const SessionView& view : sessions.List()) {
    if (!view.limits_problem.empty()) {
      findings.push_back({.id = "sandbox.limits",
                          .severity = Severity::kError,
                          .title = fmt::format("session \"{}\" is not held to its level's limits",
                                               Printable(view.session, 120)),
                          .why = view.limits_problem,
                          .fix = "it is tried again by itself; close the session to have its "
                                 "sandbox made anew"});
    }
  }
  if (const auto pool = sessions.Pool(); pool != nullptr) {
    const bool short_of = pool->ready < pool->wanted && !pool->why.empty();
    findings.push_back({.id = "warm-pool",
                        .severity = short_of ? Severity::kWarning : Severity::kOk,
                        .title = fmt::format("{} of {} sandboxes are ready for sessions to come",
                                             pool->ready, pool->wanted),
                        .why = pool->why,
                        .fix = short_of
                                   ? "until then sessions open cold; see sessions.warm_pool in "
                                     "docs/configuration.md"
                                   : ""});
  }
  if (!store.set_aside().empty()) {
    findings.push_back({.id = "store-damaged",
                        .severity = Severity::kWarning,
                        .title = "the database was damaged and set aside",
                        .why = fmt::format("it is at {}", store.set_aside()),
                        .fix = "restore it from a backup while creeld is stopped, or remove it"});
  }
  return findings;
}

}  // namespace

// In the order in which they are made; the last is the first to go.
struct Daemon::Rooms {
  std::unique_ptr<Store> store;
  std::unique_ptr<Anchor> anchor;
  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<DockerEngine> engine;
  HostAbilities abilities;
  Finding doors;
  std::unique_ptr<LinkPool> links;
  std::unique_ptr<egress::Proxy> egress;
  std::unique_ptr<Sandbox::Host> host;
  SystemClock clock;
  std::unique_ptr<PolicyStore> policy_store;
  std::unique_ptr<PolicyDesk> desk;
  std::unique_ptr<SecretDesk> secrets;
  std::unique_ptr<SessionManager> sessions;
  std::shared_ptr<void> egress_facts;
  std::unique_ptr<ReadOnlyKeeper> read_only_keeper;
  std::unique_ptr<CallGate> gate;
  std::unique_ptr<IncidentManager> incidents;
  web::Metrics metrics;
  // Takes no calls before the doors are open, and none once they close.
  MaybePage page = absl::UnavailableError("the supervisor is starting");
  std::unique_ptr<ApiServer> api;
};

Daemon::Daemon(Config config, std::unique_ptr<Rooms> rooms)
    : config_(std::make_unique<Config>(std::move(config))), rooms_(std::move(rooms)) {}

Daemon::~Daemon() { Stop(); }

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(Config given,
                                                      std::chrono::seconds engine_wait) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(given), std::make_unique<Rooms>()));
  const Config& config = *daemon->config_;
  Rooms& rooms = *daemon->rooms_;

  RETURN_IF_ERROR(MakeOwnFolder(config.paths.state_dir, 0700));
  RETURN_IF_ERROR(MakeOwnFolder(config.paths.run_dir, 0755));
  // A gateway in a container of its own is given this folder, and not the rest of the run folder.
  if (const std::string door = config.gateway.path.substr(0, config.gateway.path.rfind('/'));
      door.starts_with(config.paths.run_dir + "/")) {
    RETURN_IF_ERROR(MakeOwnFolder(door, 0755));
  }
  ASSIGN_OR_RETURN(rooms.store, Store::Open(config.paths.state_dir));
  if (!rooms.store->set_aside().empty()) {
    spdlog::error("the database was damaged; it is now at {}, and a new one was made",
                  rooms.store->set_aside());
  }

  rooms.anchor = std::make_unique<Anchor>(config.audit);
  ASSIGN_OR_RETURN(rooms.audit, OpenRecord(config, *rooms.store, *rooms.anchor, rooms.clock));
  rooms.anchor->OnFailure([&audit = *rooms.audit](const std::string& why) {
    audit.Keep(AuditEvent("record.anchor_failed").Text("reason", why));
  });

  rooms.doors = CheckDoors(config, HostUsers::OfThisHost(), ::geteuid(), ::getegid());
  if (rooms.doors.severity == Severity::kError) {
    return absl::FailedPreconditionError(
        fmt::format("{}: {}; {}", rooms.doors.title, rooms.doors.why, rooms.doors.fix));
  }

  ASSIGN_OR_RETURN(rooms.engine, ConnectEngine(config.engine, engine_wait));
  ASSIGN_OR_RETURN(rooms.abilities, ProbeHost(*rooms.engine, config, After(kProbeTimeout)));
  RETURN_IF_ERROR(CheckRuntime(rooms.abilities, config.sandbox.runtime));
  RETURN_IF_ERROR(CheckConcessions(rooms.abilities, config));
  const Finding image = CheckImage(*rooms.engine, config);
  if (image.severity != Severity::kOk) {
    spdlog::warn("{}: {}; {}", image.title, image.why, image.fix);
  }

  ASSIGN_OR_RETURN(const std::string shim, FindShim(config.paths.shim));
  ASSIGN_OR_RETURN(const StoredShim stored, StoreShim(shim, config.paths.state_dir));

  HoldGrpcThreads();
  ASSIGN_OR_RETURN(rooms.links, LinkPool::Start());
  ASSIGN_OR_RETURN(rooms.egress, StartEgress(config.egress, *rooms.audit));
  rooms.host =
      std::make_unique<Sandbox::Host>(Sandbox::Host{.engine = *rooms.engine,
                                                    .links = *rooms.links,
                                                    .config = config,
                                                    .abilities = rooms.abilities,
                                                    .install_id = rooms.store->install_id(),
                                                    .shim_path = stored.path,
                                                    .shim_sha256 = stored.sha256,
                                                    .audit = rooms.audit.get()});
  ASSIGN_OR_RETURN(rooms.policy_store, PolicyStore::Open(config.paths.state_dir));
  ASSIGN_OR_RETURN(rooms.desk, PolicyDesk::Create(config, *rooms.policy_store, rooms.clock));
  ASSIGN_OR_RETURN(
      rooms.secrets,
      SecretDesk::Create(
          {.credentials = rooms.egress->credentials(),
           .audit = *rooms.audit,
           .state_dir = config.paths.state_dir,
           .recheck = [&proxy = *rooms.egress] { proxy.Recheck(""); },
           .fetched =
               [&rooms] { TellSecrets(rooms.egress->credentials(), *rooms.audit, *rooms.desk); }}));
  TellSecrets(rooms.egress->credentials(), *rooms.audit, *rooms.desk);
  rooms.host->cut_egress = [&proxy = *rooms.egress](const std::string& sandbox,
                                                    const std::string& reason) {
    proxy.Cut(sandbox, reason);
  };
  rooms.host->restore_egress = [&proxy = *rooms.egress](const std::string& sandbox) {
    proxy.Restore(sandbox);
  };
  if (config.egress.configured()) {
    rooms.host->open_egress = [&proxy = *rooms.egress](const EgressDoor& door) {
      return proxy.Open({.directory = door.directory,
                         .sandbox = door.sandbox_id,
                         .socket_mode = door.socket_mode,
                         .socket_owner = std::nullopt,
                         .peer_uid = door.peer_uid,
                         .peer_pid = door.peer_pid});
    };
  }
  ASSIGN_OR_RETURN(rooms.sessions, SessionManager::Create(*rooms.host, *rooms.store, rooms.clock));
  rooms.sessions->UseLevels(*rooms.desk);
  rooms.egress_facts = ConnectEgress(*rooms.egress, *rooms.sessions, *rooms.desk);
  rooms.read_only_keeper = std::make_unique<ReadOnlyKeeper>(*rooms.sessions, *rooms.desk);
  ASSIGN_OR_RETURN(rooms.incidents,
                   IncidentManager::Create({.evidence = {.sessions = *rooms.sessions,
                                                         .audit = *rooms.audit,
                                                         .engine = *rooms.engine,
                                                         .config = config,
                                                         .abilities = rooms.abilities,
                                                         .clock = rooms.clock,
                                                         .install_id = rooms.store->install_id()},
                                            .store = *rooms.store,
                                            .host = *rooms.host,
                                            .cut = rooms.host->cut_egress,
                                            .restore = rooms.host->restore_egress}));
  RETURN_IF_ERROR(rooms.sessions->Recover(After(kRecoverTimeout)));
  // The configuration may have become another one meanwhile.
  rooms.read_only_keeper->Sweep(After(kSweepTimeout));
  rooms.incidents->Resume();
  rooms.gate = CallGate::Create(*rooms.sessions, *rooms.desk, *rooms.audit);
  rooms.page = ListenForPage(config, rooms.clock, rooms.metrics, *rooms.audit);
  ASSIGN_OR_RETURN(
      rooms.api,
      ApiServer::Start({.sessions = *rooms.sessions,
                        .gate = *rooms.gate,
                        .engine = *rooms.engine,
                        .links = *rooms.links,
                        .config = config,
                        .egress = rooms.egress.get(),
                        .diagnose =
                            [&rooms, &config, raw = daemon.get()](bool fix) {
                              std::vector<Finding> all = FindingsOf(rooms.abilities, config);
                              std::erase_if(all, [&](const Finding& finding) {
                                return finding.id == rooms.doors.id;
                              });
                              all.push_back(rooms.doors);
                              all.push_back(CheckImage(*rooms.engine, config));
                              for (Finding& found : PolicyFindings(*rooms.desk->config())) {
                                all.push_back(std::move(found));
                              }
                              for (Finding& own : OwnFindings(*rooms.sessions, *rooms.store,
                                                              *rooms.audit, *rooms.anchor)) {
                                all.push_back(std::move(own));
                              }
                              if (auto limits = raw->CheckLimits()) {
                                all.push_back(*std::move(limits));
                              }
                              all.push_back(PageFinding(rooms.page, config));
                              if (fix) {
                                PutRight(all, *rooms.audit);
                              }
                              return all;
                            },
                        .diagnose_gateway = CheckGatewayConfig,
                        .audit = rooms.audit.get(),
                        .incidents = rooms.incidents.get(),
                        .secrets = rooms.secrets.get(),
                        .desk = rooms.desk.get(),
                        .reload = [raw = daemon.get()] { return raw->Reload(); },
                        .page = DoorOf(rooms.page)}));
  ServePage(rooms.page, *rooms.api);
  rooms.audit->Keep(SupervisorEvent("started", CREEL_VERSION));
  spdlog::info("creeld {} serves at {} and {}", CREEL_VERSION, config.gateway.path,
               config.operator_door.path);
  return daemon;
}

std::optional<Finding> Daemon::CheckLimits() {
  std::vector<std::string> other;
  {
    MutexLock hold(reload_mu_);
    if (last_read_) {
      other = OtherLimits(*rooms_->sessions, *last_read_);
    }
  }
  if (other.empty()) {
    return {};
  }
  for (std::string& session : other) {
    session = Printable(session, 120);
  }
  return Finding{.id = "sandbox.other-limits",
                 .severity = Severity::kWarning,
                 .title = "open sandboxes have other limits than they would get now",
                 .why = fmt::format("the configuration was read again since they were made: {}",
                                    fmt::join(other, ", ")),
                 .fix =
                     "close them to have them made anew (creel close SESSION), after a restart "
                     "of creeld where sandbox.limits was changed"};
}

absl::StatusOr<ReloadReport> Daemon::Reload() {
  MutexLock hold(reload_mu_);
  if (config_->file.empty()) {
    return absl::FailedPreconditionError(
        "no configuration file is in use, so there is none to read again");
  }
  ASSIGN_OR_RETURN(const Config fresh, LoadConfig(config_->file));
  ReloadReport report;
  report.need_restart = NeedRestart(*config_, fresh);
  // What counts at once; the rest stays as it runs.
  Config next = *config_;
  next.policy = fresh.policy;
  next.egress = fresh.egress;
  next.provenance = fresh.provenance;
  next.gateway_import = fresh.gateway_import;
  next.sessions = fresh.sessions;
  next.log.level = fresh.log.level;
  report.changed = ChangedSections(*rooms_->desk->config(), next);
  // All of it counts, or nothing: the way out can refuse what it gets, and goes first.
  RETURN_IF_ERROR(rooms_->egress->Reload(fresh.egress));
  if (const absl::Status taken = rooms_->desk->Reload(next); !taken.ok()) {
    if (const absl::Status back =
            rooms_->egress->Reload((last_read_ ? *last_read_ : *config_).egress);
        !back.ok()) {
      spdlog::error("the way out has the new rules, though the configuration was refused: {}",
                    std::string(back.message()));
    }
    return taken;
  }
  rooms_->egress->credentials().FetchAll();
  TellSecrets(rooms_->egress->credentials(), *rooms_->audit, *rooms_->desk);
  rooms_->read_only_keeper->Sweep(After(kSweepTimeout));
  rooms_->sessions->SetLimits(fresh.sessions);
  SetLogLevel(fresh.log.level);
  rooms_->audit->Keep(SupervisorEvent("reloaded", config_->file));
  last_read_ = fresh;
  // Seen before those that follow their level have done so.
  report.other_limits = OtherLimits(*rooms_->sessions, *last_read_);
  rooms_->sessions->FollowLimits();
  spdlog::info(
      "the configuration was read again; changed: {}",
      report.changed.empty() ? "nothing" : fmt::format("{}", fmt::join(report.changed, ", ")));
  if (!report.need_restart.empty()) {
    spdlog::warn("what changed in {} counts after a restart (systemctl restart creeld)",
                 fmt::join(report.need_restart, ", "));
  }
  for (const std::string& session : report.other_limits) {
    spdlog::warn(
        "session \"{}\" has a sandbox with other limits than it would get now; those of its level "
        "follow at once, the rest when it is closed and made anew",
        Printable(session, 120));
  }
  return report;
}

void Daemon::Stop() {
  if (rooms_ == nullptr) {
    return;
  }
  if (rooms_->desk != nullptr) {
    // Calls that wait for the operator would hold the doors open.
    rooms_->desk->approvals().Stop();
  }
  if (rooms_->audit != nullptr) {
    rooms_->audit->Keep(SupervisorEvent("stopping", ""));
  }
  if (rooms_->page.ok()) {
    (*rooms_->page)->Stop();
  }
  if (rooms_->api != nullptr) {
    rooms_->api->Stop(After(kLastCalls));
  }
  if (rooms_->sessions != nullptr) {
    rooms_->sessions->Stop();
  }
  // Its calls have ended with the doors; its channel goes before the door.
  rooms_->page = absl::UnavailableError("the supervisor is stopping");
  rooms_->api.reset();
  rooms_->gate.reset();
  rooms_->incidents.reset();
  rooms_->egress_facts.reset();
  rooms_->read_only_keeper.reset();
  rooms_->sessions.reset();
  rooms_->secrets.reset();
  rooms_->desk.reset();
  rooms_->policy_store.reset();
  rooms_->host.reset();
  rooms_->egress.reset();
  rooms_->links.reset();
  rooms_->engine.reset();
  if (rooms_->anchor != nullptr) {
    rooms_->anchor->OnFailure(nullptr);
  }
  rooms_->audit.reset();  // hands its last checkpoint over
  rooms_->anchor.reset();
  rooms_->store.reset();
  rooms_.reset();
}

}  // namespace creel
