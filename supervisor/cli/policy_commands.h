#pragma once

#include <string>

#include "supervisor/cli/connection.h"

namespace creel::cli {

// Commands about who may ask for what. Each returns the exit code.

int PairingList(const Globals& globals);
// `whom` is a code, or `channel:id`.
int PairingApprove(const Globals& globals, const std::string& whom, const std::string& level);
int PairingDeny(const Globals& globals, const std::string& whom);

int ApprovalsList(const Globals& globals, bool all);
int ApprovalsAnswer(const Globals& globals, const std::string& id, bool allow);

// Whom a read-only switch is for; both empty: everyone.
struct ReadOnlyTarget {
  std::string level;
  std::string session;
  std::string reason;
};
int ReadOnlySet(const Globals& globals, const ReadOnlyTarget& target, bool on);
int ReadOnlyStatus(const Globals& globals);

int PolicyCheck(const Globals& globals, const std::string& file);
int PolicyShow(const Globals& globals, bool origin);
int PolicyReload(const Globals& globals);
int Prompt(const Globals& globals, const std::string& level);
int TrustReset(const Globals& globals, const std::string& session);

// What `creel explain` is asked; which question it is follows from what is set.
struct ExplainSettings {
  std::string session;
  std::string sender;
  std::string tool;     // a tool
  std::string place;    // host or sandbox: as Authorize; empty: a call to the sandbox
  std::string message;  // a message that has come in
  std::string group;    // the chat it came in, if that is a group
  bool mentioned = false;
  bool command = false;
  std::string reply;  // a file with a reply, `-` for stdin
  bool others_read = false;
};
int Explain(const Globals& globals, const ExplainSettings& settings);

}  // namespace creel::cli
