#include "supervisor/web/live_hub.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/client_context.h>
#include <sys/prctl.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "creel/operator/v1/incident.grpc.pb.h"
#include "creel/operator/v1/operator.grpc.pb.h"
#include "creel/operator/v1/page.grpc.pb.h"
#include "supervisor/audit/line.h"
#include "supervisor/base/escape.h"

namespace creel::web {
namespace {

namespace o = operator_::v1;
using nlohmann::json;
using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kEvery{1000};
// Between two looks, however many pages come.
constexpr std::chrono::milliseconds kAtLeast{150};
constexpr std::chrono::milliseconds kFresh{1000};
constexpr std::chrono::seconds kPatience{5};
constexpr size_t kMaxLines = 500;
constexpr size_t kMaxTaken = 200;

std::string Dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

double Seconds(const google::protobuf::Timestamp& at) {
  return static_cast<double>(at.seconds()) + std::round(static_cast<double>(at.nanos()) / 1e8) / 10;
}

// What a page shows of a session in its list. Measures are rounded, so that what stands still does
// not change.
std::string RowOf(const gateway::v1::Session& session, const o::Usage* usage) {
  json row{{"session", session.session()},
           {"sandbox", session.sandbox_id()},
           {"state", session.state()},
           {"sender", session.sender()},
           {"level", session.trust_level()},
           {"image", session.image()},
           {"opened", Seconds(session.opened_at())},
           {"last", std::floor(Seconds(session.last_call_at()))},
           {"commands", session.processes()},
           {"reason", session.reason()}};
  if (usage != nullptr) {
    constexpr uint64_t kStep = 64u << 10;
    row["cpu"] = std::round(usage->cpu_percent() * 10) / 10;
    row["memory"] = usage->memory_bytes() / kStep * kStep;
    row["memoryLimit"] = usage->memory_limit_bytes();
    row["pids"] = usage->processes();
    row["pidsLimit"] = usage->processes_limit();
    row["disk"] = usage->disk_bytes() / kStep * kStep;
    row["diskLimit"] = usage->disk_limit_bytes();
  }
  return Dump(row);
}

// An answer as JSON, made anew only when it has changed.
struct Topic {
  std::string bytes;
  std::string text = "null";

  // Whether it has changed.
  bool Take(const google::protobuf::Message& message) {
    std::string now = message.SerializeAsString();
    if (now == bytes && text != "null") {
      return false;
    }
    bytes = std::move(now);
    google::protobuf::util::JsonPrintOptions options;
    options.always_print_primitive_fields = true;
    text.clear();
    if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
      text = "{}";
    }
    return true;
  }
};

}  // namespace

struct LiveHub::Sources {
  explicit Sources(const std::shared_ptr<grpc::Channel>& channel)
      : operators(o::Operator::NewStub(channel)),
        incidents(o::Incidents::NewStub(channel)),
        pages(o::Page::NewStub(channel)) {}

  template <class Stub, class Request, class Response>
  static bool Ask(Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    return (stub.*method)(&context, request, response).ok();
  }

  const std::unique_ptr<o::Operator::Stub> operators;
  const std::unique_ptr<o::Incidents::Stub> incidents;
  const std::unique_ptr<o::Page::Stub> pages;
  // Of the hub's thread alone.
  uint64_t number = 0;
  bool with_usage = false;
  std::map<std::string, o::Usage> usage;
  std::map<std::string, std::string> rows;  // by sandbox, or session while it has none
  std::map<std::string, Topic> topics;
  Metrics::Present present;
};

LiveHub::LiveHub(std::shared_ptr<grpc::Channel> channel, Metrics& metrics, const AuditLog* audit)
    : sources_(std::make_unique<Sources>(channel)), metrics_(metrics), audit_(audit) {
  thread_ = std::thread([this] { Work(); });
}

LiveHub::~LiveHub() { Stop(); }

void LiveHub::Stop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

uint64_t LiveHub::Join(std::weak_ptr<Viewer> viewer, const std::string& session) {
  constexpr size_t kMaxKey = 512;
  MutexLock lock(mu_);
  const uint64_t id = next_++;
  Member& member = members_[id];
  member.viewer = std::move(viewer);
  if (!session.empty()) {
    member.pattern = FieldPattern("session", Printable(session, kMaxKey));
    ++watching_;
  }
  hurry_ = true;
  changed_.SignalAll();
  return id;
}

void LiveHub::Leave(uint64_t id) {
  MutexLock lock(mu_);
  const auto found = members_.find(id);
  if (found != members_.end()) {
    watching_ -= found->second.pattern.empty() ? 0 : 1;
    members_.erase(found);
  }
}

std::vector<std::string> LiveHub::TakeLines(uint64_t id, uint64_t& left_out) {
  MutexLock lock(mu_);
  std::vector<std::string> taken;
  const auto found = members_.find(id);
  if (found == members_.end()) {
    return taken;
  }
  Member& member = found->second;
  while (!member.lines.empty() && taken.size() < kMaxTaken) {
    taken.push_back(std::move(member.lines.front()));
    member.lines.pop_front();
  }
  left_out = std::exchange(member.left_out, 0);
  member.told = !member.lines.empty();
  return taken;
}

void LiveHub::OnRecord(std::string_view line) {
  if (watching_.load(std::memory_order_relaxed) == 0) {
    return;
  }
  MutexLock lock(mu_);
  for (auto& [id, member] : members_) {
    if (member.pattern.empty() || line.find(member.pattern) == std::string_view::npos) {
      continue;
    }
    if (member.lines.size() >= kMaxLines) {
      member.lines.pop_front();
      ++member.left_out;
    }
    member.lines.emplace_back(line);
    if (!member.told) {
      member.told = true;
      if (const auto viewer = member.viewer.lock()) {
        viewer->OnLines();
      }
    }
  }
}

void LiveHub::WhenMeasured(std::function<void()> done) {
  MutexLock lock(mu_);
  measured_.push_back(std::move(done));
  changed_.SignalAll();
}

void LiveHub::Work() {
  prctl(PR_SET_NAME, "creel-web-live");
  steady_clock::time_point looked_at{};
  while (true) {
    std::vector<std::function<void()>> measured;
    bool stale = true;
    {
      MutexLock lock(mu_);
      while (!stop_) {
        const auto age = steady_clock::now() - looked_at;
        stale = age >= kFresh;
        if (!measured_.empty() && !stale) {
          break;
        }
        const bool wanted = !measured_.empty() || !members_.empty();
        const auto due = looked_at + (hurry_ || !measured_.empty() ? kAtLeast : kEvery);
        if (wanted && steady_clock::now() >= due) {
          stale = true;
          break;
        }
        if (wanted) {
          changed_.WaitUntil(mu_, due);
        } else {
          changed_.Wait(mu_);
        }
      }
      if (stop_) {
        measured_.clear();
        return;
      }
      measured.swap(measured_);
      if (stale) {
        hurry_ = false;
      }
    }
    if (stale) {
      const std::shared_ptr<const Frame> frame = Look();
      looked_at = steady_clock::now();
      std::vector<std::shared_ptr<Viewer>> viewers;
      {
        MutexLock lock(mu_);
        for (const auto& [id, member] : members_) {
          if (auto viewer = member.viewer.lock()) {
            viewers.push_back(std::move(viewer));
          }
        }
      }
      for (const auto& viewer : viewers) {
        viewer->OnFrame(frame);
      }
    }
    for (const auto& done : measured) {
      done();
    }
  }
}

std::shared_ptr<const LiveHub::Frame> LiveHub::Look() {
  Sources& from = *sources_;
  auto frame = std::make_shared<Frame>();
  frame->number = ++from.number;
  Metrics::Present present = from.present;
  std::string changed_rows;
  std::string gone;
  std::string changed;

  // Measuring is the dearer part, and every other time is often enough for a graph.
  from.with_usage = !from.with_usage || from.usage.empty();
  if (o::ListUsageResponse usage;
      from.with_usage && Sources::Ask(*from.pages, &o::Page::Stub::ListUsage, {}, &usage)) {
    from.usage.clear();
    present.cpu_cores = 0;
    present.memory_bytes = present.disk_bytes = 0;
    for (o::SandboxUsage& each : *usage.mutable_sandboxes()) {
      present.cpu_cores += each.usage().cpu_percent() / 100;
      present.memory_bytes += each.usage().memory_bytes();
      present.disk_bytes += each.usage().disk_bytes();
      from.usage[each.sandbox_id()] = std::move(*each.mutable_usage());
    }
  }
  if (o::ListSessionsResponse sessions;
      Sources::Ask(*from.operators, &o::Operator::Stub::ListSessions, {}, &sessions)) {
    present.opening = present.running = present.frozen = present.lost = present.closing = 0;
    present.commands = 0;
    std::map<std::string, std::string> rows;
    for (const o::SessionDetails& details : sessions.sessions()) {
      const gateway::v1::Session& session = details.session();
      switch (session.state()) {
        case gateway::v1::SESSION_STATE_OPENING:
          ++present.opening;
          break;
        case gateway::v1::SESSION_STATE_RUNNING:
          ++present.running;
          break;
        case gateway::v1::SESSION_STATE_FROZEN:
          ++present.frozen;
          break;
        case gateway::v1::SESSION_STATE_LOST:
          ++present.lost;
          break;
        default:
          ++present.closing;
          break;
      }
      present.commands += session.processes();
      const std::string key =
          session.sandbox_id().empty() ? "opening " + session.session() : session.sandbox_id();
      const auto usage = from.usage.find(session.sandbox_id());
      std::string row = RowOf(session, usage == from.usage.end() ? nullptr : &usage->second);
      const auto before = from.rows.find(key);
      if (before == from.rows.end() || before->second != row) {
        changed_rows += (changed_rows.empty() ? "" : ",") + Dump(json(key)) + ":" + row;
      }
      rows[key] = std::move(row);
    }
    for (const auto& [key, row] : from.rows) {
      if (!rows.contains(key)) {
        gone += (gone.empty() ? "" : ",") + Dump(json(key));
      }
    }
    from.rows = std::move(rows);
  }

  const auto topic = [&](const char* name, const google::protobuf::Message& message) {
    if (from.topics[name].Take(message)) {
      changed += std::string(",\"") + name + "\":" + from.topics[name].text;
    }
  };
  if (o::ListApprovalsResponse approvals;
      Sources::Ask(*from.operators, &o::Operator::Stub::ListApprovals, {}, &approvals)) {
    present.approvals_waiting = 0;
    for (const o::Approval& each : approvals.approvals()) {
      present.approvals_waiting += each.state() == o::APPROVAL_STATE_PENDING ? 1 : 0;
    }
    topic("approvals", approvals);
  }
  if (o::ListPairingsResponse pairings;
      Sources::Ask(*from.operators, &o::Operator::Stub::ListPairings, {}, &pairings)) {
    present.pairings_waiting = 0;
    for (const o::Pairing& each : pairings.pairings()) {
      present.pairings_waiting += each.code().empty() ? 0 : 1;
    }
    topic("pairings", pairings);
  }
  if (o::GetReadOnlyResponse read_only;
      Sources::Ask(*from.operators, &o::Operator::Stub::GetReadOnly, {}, &read_only)) {
    present.read_only_switches = static_cast<uint64_t>(read_only.switches_size());
    topic("readOnly", read_only);
  }
  if (o::ListIncidentsResponse incidents;
      Sources::Ask(*from.incidents, &o::Incidents::Stub::ListIncidents, {}, &incidents)) {
    present.incidents_open = 0;
    for (const o::Incident& each : incidents.incidents()) {
      present.incidents_open += each.state() == "open" ? 1 : 0;
    }
    topic("incidents", incidents);
  }
  present.record_writable = audit_ == nullptr || audit_->Health().ok();
  from.present = present;
  metrics_.SetPresent(present);

  const std::string number = std::to_string(frame->number);
  if (!changed_rows.empty() || !gone.empty() || !changed.empty()) {
    frame->changes = "{\"n\":" + number + ",\"full\":false,\"rows\":{" + changed_rows +
                     "},\"gone\":[" + gone + "]" + changed + "}";
  }
  std::string all;
  for (const auto& [key, row] : from.rows) {
    all += (all.empty() ? "" : ",") + Dump(json(key)) + ":" + row;
  }
  frame->full = "{\"n\":" + number + ",\"full\":true,\"rows\":{" + all + "},\"gone\":[]";
  for (const auto& [name, each] : from.topics) {
    frame->full += ",\"" + name + "\":" + each.text;
  }
  frame->full += "}";
  return frame;
}

}  // namespace creel::web
