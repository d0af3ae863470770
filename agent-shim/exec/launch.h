#pragma once

#include <map>
#include <string>
#include <string_view>

#include "agent-shim/exec/launch_packet.h"
#include "agent-shim/exec/stdio.h"
#include "agent-shim/exec/tool_user.h"
#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/status.h"

namespace creel::shim {

// What all commands of a sandbox have in common.
struct CommandDefaults {
  ToolUser user;
  std::string workspace = "/";
  std::map<std::string, std::string> env;
  uint64_t open_files = 1024;
  int nice = 10;
  int oom_score_adj = 500;
};

// A command in the form in which a reaper takes it.
struct LaunchOrder {
  LaunchHeader header{};
  std::string body;
};

// kInvalidArgument: the command is empty, holds NUL or is larger than the kernel takes.
absl::StatusOr<LaunchOrder> MakeLaunchOrder(const v1::CommandSpec& spec,
                                            const CommandDefaults& defaults);

// Sends it, with the command's side of `stdio`. Never waits. kUnavailable: the reaper is dead.
absl::Status SendLaunch(int reaper, LaunchOrder order, const Stdio& stdio);

// Why a command did not start, in words.
v1::StartFailure DescribeStartFailure(const v1::CommandSpec& spec,
                                      const CommandDefaults& defaults, v1::StartStep step,
                                      int error);

// A command for people to read later: the same, cut where it is longer than some kilobytes.
v1::CommandSpec Summary(const v1::CommandSpec& spec);

}  // namespace creel::shim
