#pragma once

#include <string>

#include "creel/gateway/v1/gateway.pb.h"
#include "creel/operator/v1/operator.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// The policy's own types as messages and back. What comes from a message is checked for its bounds:
// kInvalidArgument names the field.

absl::StatusOr<AdmitQuestion> FromMessage(const gateway::v1::AdmitRequest& request);
absl::StatusOr<CallQuestion> FromMessage(const gateway::v1::AuthorizeRequest& request);
// The text stays the request's.
absl::StatusOr<ReplyQuestion> FromMessage(const gateway::v1::CheckReplyRequest& request);
absl::StatusOr<CallQuestion> FromMessage(const operator_::v1::ExplainCall& request);

gateway::v1::AdmitResponse ToMessage(const AdmitAnswer& answer);
gateway::v1::AuthorizeResponse ToMessage(const AuthorizeAnswer& answer);
gateway::v1::CheckReplyResponse ToMessage(ReplyAnswerWithLevel answer);
gateway::v1::ReadOnlySwitch ToMessage(const ReadOnlyState& state);
gateway::v1::State StateMessage(const PolicyDesk& desk, const SessionManager& sessions);
operator_::v1::Pairing ToMessage(const PairingRequestRecord& record);
operator_::v1::Pairing ToMessage(const PairingRecord& record);
operator_::v1::Approval ToMessage(const ApprovalRecord& record);

operator_::v1::ExplainResponse Explained(const AdmitAnswer& answer);
operator_::v1::ExplainResponse Explained(const CallAnswer& answer);
operator_::v1::ExplainResponse Explained(const ReplyAnswerWithLevel& answer);

}  // namespace creel
