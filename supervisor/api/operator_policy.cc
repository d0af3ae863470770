// The calls of OperatorService about who may ask for what.
#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "supervisor/api/on_worker.h"
#include "supervisor/api/operator_service.h"
#include "supervisor/api/policy_convert.h"
#include "supervisor/base/escape.h"
#include "supervisor/config/load_config.h"
#include "supervisor/policy/placement.h"
#include "supervisor/session/stop_running.h"

namespace creel {
namespace {

namespace o = operator_::v1;

constexpr std::chrono::seconds kAnswerWithin{10};
constexpr std::chrono::seconds kStopWithin{15};
constexpr size_t kMaxReason = 256;
constexpr size_t kMaxPolicyText = 1u << 20;

absl::Status NoDesk() { return absl::UnimplementedError("no policy is served here"); }

template <typename Request>
ReadOnlyScope ScopeOf(const Request& request) {
  if (request.has_level()) {
    return {.kind = ReadOnlyScope::Kind::kLevel, .name = request.level()};
  }
  if (request.has_session()) {
    return {.kind = ReadOnlyScope::Kind::kSession, .name = request.session()};
  }
  return {};
}

}  // namespace

absl::Status OperatorService::ExplainQuestion(const o::ExplainRequest& request,
                                              o::ExplainResponse& response) const {
  switch (request.question_case()) {
    case o::ExplainRequest::kAdmit: {
      ASSIGN_OR_RETURN(const AdmitQuestion question, FromMessage(request.admit()));
      response = Explained(desk_->Judge(question));
      return absl::OkStatus();
    }
    case o::ExplainRequest::kAuthorize: {
      ASSIGN_OR_RETURN(const CallQuestion question, FromMessage(request.authorize()));
      response = Explained(desk_->Judge(question));
      return absl::OkStatus();
    }
    case o::ExplainRequest::kCheckReply: {
      ASSIGN_OR_RETURN(const ReplyQuestion question, FromMessage(request.check_reply()));
      response = Explained(desk_->Judge(question));
      return absl::OkStatus();
    }
    case o::ExplainRequest::kCall: {
      ASSIGN_OR_RETURN(const CallQuestion question, FromMessage(request.call()));
      response = Explained(desk_->Judge(question));
      return absl::OkStatus();
    }
    case o::ExplainRequest::QUESTION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "nothing is asked: set one of admit, authorize, check_reply "
      "and call");
}

grpc::ServerUnaryReactor* OperatorService::Explain(grpc::CallbackServerContext* context,
                                                   const o::ExplainRequest* request,
                                                   o::ExplainResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, request, response](Deadline) {
    return desk_ == nullptr ? NoDesk() : ExplainQuestion(*request, *response);
  });
}

grpc::ServerUnaryReactor* OperatorService::ListPairings(grpc::CallbackServerContext* context,
                                                        const o::ListPairingsRequest* /*request*/,
                                                        o::ListPairingsResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, response](Deadline) {
    if (desk_ == nullptr) {
      return NoDesk();
    }
    const Pairings::Lists lists = desk_->pairings().List();
    for (const PairingRequestRecord& record : lists.waiting) {
      *response->add_pairings() = ToMessage(record);
    }
    for (const PairingRecord& record : lists.approved) {
      *response->add_pairings() = ToMessage(record);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::ApprovePairing(grpc::CallbackServerContext* context,
                                                          const o::ApprovePairingRequest* request,
                                                          o::ApprovePairingResponse* response) {
  return OnWorker(
      *context, workers_, kAnswerWithin, [this, request, response](Deadline) -> absl::Status {
        if (desk_ == nullptr) {
          return NoDesk();
        }
        if (request->code().empty() == request->sender().empty()) {
          return absl::InvalidArgumentError("name either the code or the sender");
        }
        const std::string level = request->level().empty() ? kFriend : request->level();
        const Levels& levels = desk_->policy()->levels();
        if (!levels.Has(level) || levels.Of(level) == levels.highest() ||
            levels.Of(level) == Levels::lowest()) {
          return absl::InvalidArgumentError(fmt::format(
              "'{}' cannot be given by a pairing: name a level between stranger and owner (owners "
              "stand in levels.owner.members)",
              Printable(level, 80)));
        }
        ASSIGN_OR_RETURN(
            const PairingRecord record,
            desk_->pairings().Approve(request->code(), ParseSender(request->sender()), level));
        *response->mutable_pairing() = ToMessage(record);
        desk_->FollowStandings();  // it may have been paired before, with a higher level
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OperatorService::DenyPairing(grpc::CallbackServerContext* context,
                                                       const o::DenyPairingRequest* request,
                                                       o::DenyPairingResponse* response) {
  return OnWorker(
      *context, workers_, kAnswerWithin, [this, request, response](Deadline) -> absl::Status {
        if (desk_ == nullptr) {
          return NoDesk();
        }
        if (request->code().empty() == request->sender().empty()) {
          return absl::InvalidArgumentError("name either the code or the sender");
        }
        ASSIGN_OR_RETURN(const uint32_t removed,
                         desk_->pairings().Deny(request->code(), ParseSender(request->sender())));
        response->set_removed(removed);
        desk_->FollowStandings();
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OperatorService::ListApprovals(grpc::CallbackServerContext* context,
                                                         const o::ListApprovalsRequest* /*request*/,
                                                         o::ListApprovalsResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, response](Deadline) {
    if (desk_ == nullptr) {
      return NoDesk();
    }
    for (const ApprovalRecord& record : desk_->approvals().List()) {
      *response->add_approvals() = ToMessage(record);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::AnswerApproval(grpc::CallbackServerContext* context,
                                                          const o::AnswerApprovalRequest* request,
                                                          o::AnswerApprovalResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin,
                  [this, request, response](Deadline) -> absl::Status {
                    if (desk_ == nullptr) {
                      return NoDesk();
                    }
                    ASSIGN_OR_RETURN(const ApprovalRecord record,
                                     desk_->approvals().Answer(request->id(), request->allow()));
                    *response->mutable_approval() = ToMessage(record);
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* OperatorService::SetReadOnly(grpc::CallbackServerContext* context,
                                                       const o::SetReadOnlyRequest* request,
                                                       o::SetReadOnlyResponse* response) {
  // Among the freezes, which are as urgent.
  return OnWorker(*context, freezers_, kStopWithin,
                  [this, request, response](Deadline deadline) -> absl::Status {
                    if (desk_ == nullptr) {
                      return NoDesk();
                    }
                    const ReadOnlyScope scope = ScopeOf(*request);
                    if (scope.kind == ReadOnlyScope::Kind::kSession) {
                      RETURN_IF_ERROR(CheckSessionKey(scope.name));
                    }
                    const absl::Status set = desk_->SetReadOnly(
                        scope, request->on(), Printable(request->reason(), kMaxReason));
                    // One that could not be written down counts all the same.
                    if (!set.ok() && (!request->on() || absl::IsNotFound(set))) {
                      return set;
                    }
                    if (request->on()) {
                      const SandboxConfig sandbox = desk_->config()->sandbox;
                      const std::string shared = scope.kind == ReadOnlyScope::Kind::kSession
                                                     ? Place(sandbox, scope.name).sandbox_name
                                                     : std::string();
                      response->set_stopped(StopRunning(
                          sessions_,
                          [&](const std::string& session) {
                            return session == shared || desk_->IsReadOnly(session);
                          },
                          deadline));
                    }
                    for (const ReadOnlyState& state : desk_->ReadOnly()) {
                      *response->add_switches() = ToMessage(state);
                    }
                    return set.ok() ? set : absl::UnavailableError(set.message());
                  });
}

grpc::ServerUnaryReactor* OperatorService::GetReadOnly(grpc::CallbackServerContext* context,
                                                       const o::GetReadOnlyRequest* /*request*/,
                                                       o::GetReadOnlyResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, response](Deadline) {
    if (desk_ == nullptr) {
      return NoDesk();
    }
    for (const ReadOnlyState& state : desk_->ReadOnly()) {
      *response->add_switches() = ToMessage(state);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::CheckPolicy(grpc::CallbackServerContext* context,
                                                       const o::CheckPolicyRequest* request,
                                                       o::CheckPolicyResponse* response) {
  return OnWorker(
      *context, workers_, kAnswerWithin, [this, request, response](Deadline) -> absl::Status {
        if (request->text().size() > kMaxPolicyText) {
          return absl::InvalidArgumentError("`text` is longer than 1 MiB");
        }
        const std::string name = request->name().empty() ? "the file" : request->name();
        const absl::StatusOr<Config> config =
            ParseConfig(request->text(), Printable(name, kMaxReason));
        const absl::Status good = config.ok() ? Policy::Compile(*config).status() : config.status();
        response->set_good(good.ok());
        response->set_errors(std::string(good.message()));
        if (good.ok() && desk_ != nullptr) {
          for (std::string& section : ChangedSections(*desk_->config(), *config)) {
            response->add_changed(std::move(section));
          }
        }
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OperatorService::ShowPolicy(grpc::CallbackServerContext* context,
                                                      const o::ShowPolicyRequest* /*request*/,
                                                      o::ShowPolicyResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, response](Deadline) {
    if (desk_ == nullptr) {
      return NoDesk();
    }
    const std::shared_ptr<const Config> config = desk_->config();
    for (const auto& [key, origin] : config->provenance.origins) {
      o::PolicyValue& value = *response->add_values();
      value.set_key(Printable(key, 512));
      value.set_value(origin.value);
      value.set_file(origin.file);
      value.set_line(static_cast<uint32_t>(origin.line));
      value.set_source_key(Printable(origin.source_key, 512));
    }
    response->set_import_file(config->gateway_import);
    for (const IgnoredKey& ignored : config->provenance.ignored) {
      o::IgnoredKey& line = *response->add_ignored();
      line.set_key(ignored.key);
      line.set_line(static_cast<uint32_t>(ignored.line));
      line.set_why(ignored.why);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::ReloadPolicy(grpc::CallbackServerContext* context,
                                                        const o::ReloadPolicyRequest* /*request*/,
                                                        o::ReloadPolicyResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, response](Deadline) -> absl::Status {
    if (!reload_) {
      return NoDesk();
    }
    ASSIGN_OR_RETURN(const ReloadReport report, reload_());
    for (const std::string& section : report.changed) {
      response->add_changed(section);
    }
    for (const std::string& section : report.need_restart) {
      response->add_need_restart(section);
    }
    for (const std::string& session : report.other_limits) {
      response->add_other_limits(session);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperatorService::GetPrompt(grpc::CallbackServerContext* context,
                                                     const o::GetPromptRequest* request,
                                                     o::GetPromptResponse* response) {
  return OnWorker(*context, workers_, kAnswerWithin,
                  [this, request, response](Deadline) -> absl::Status {
                    if (desk_ == nullptr) {
                      return NoDesk();
                    }
                    ASSIGN_OR_RETURN(auto prompt, desk_->Prompt(request->level(), ""));
                    response->set_text(std::move(prompt.first));
                    response->set_level(std::move(prompt.second));
                    return absl::OkStatus();
                  });
}

grpc::ServerUnaryReactor* OperatorService::ResetTrust(grpc::CallbackServerContext* context,
                                                      const o::ResetTrustRequest* request,
                                                      o::ResetTrustResponse* /*response*/) {
  return OnWorker(*context, workers_, kAnswerWithin, [this, request](Deadline) -> absl::Status {
    if (desk_ == nullptr) {
      return NoDesk();
    }
    RETURN_IF_ERROR(CheckSessionKey(request->session()));
    if (sessions_.Get(request->session()).ok()) {
      return absl::FailedPreconditionError(
          fmt::format("session '{}' has a sandbox, which keeps its level until it is closed; close "
                      "it with: creel close",
                      Printable(request->session(), 120)));
    }
    return desk_->trust().Forget(Place(desk_->config()->sandbox, request->session()).sandbox_name);
  });
}

}  // namespace creel
