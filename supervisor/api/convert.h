#pragma once

#include <string>

#include "creel/gateway/v1/gateway.pb.h"
#include "creel/operator/v1/operator.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/engine/engine.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// The rooms' own types as messages and back.

gateway::v1::Session ToMessage(const SessionView& view, const std::string& workdir);

// kInvalidArgument: a variable's name is none, or there are more than 64 KiB of them.
absl::StatusOr<OpenOptions> FromMessage(const gateway::v1::OpenSessionRequest& request);

// Name and value of each limit, for people.
google::protobuf::Map<std::string, std::string> Limits(const LimitsConfig& limits);

google::protobuf::Timestamp ToTimestamp(std::chrono::system_clock::time_point at);

// `before`, if there is one, is an earlier sample of the same container.
operator_::v1::Usage ToMessage(const ContainerStats& now, const ContainerStats* before);

}  // namespace creel
