#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "supervisor/base/status.h"

namespace creel::egress {

// One request or tunnel, as it is recorded: once when it was decided, before anything goes out, and
// once when it ended. What came from the sandbox has been made printable.
struct Record {
  enum class Phase { kDecided, kEnded };
  Phase phase = Phase::kDecided;
  uint64_t number = 0;  // the same in both phases
  std::chrono::system_clock::time_point at;
  std::string sandbox;
  std::string session;
  std::string level;
  bool allowed = false;
  std::string rule;
  std::string kind;    // tunnel, http, service, or request where it was not understood
  std::string method;  // CONNECT for tunnels
  std::string target;  // host:port
  std::string path;    // of http and service; a query is `?***`
  // From here on of kEnded only.
  int status = 0;         // of the reply to the sandbox; 0: none
  uint64_t bytes_up = 0;  // content from the sandbox
  uint64_t bytes_down = 0;
  std::chrono::microseconds took{0};
  std::string reason;  // of a refusal, or why it ended; empty: as it should
};

// Writes a record down. What is not OK of a decision keeps the request from being carried out; of
// an end it changes nothing.
using Recorder = std::function<absl::Status(const Record&)>;

// The record as a line of the log.
std::string LogLine(const Record& record);

}  // namespace creel::egress
