#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace creel {

// The record; see docs/audit.md.
struct RecordConfig {
  std::chrono::hours keep{90 * 24};
  bool anchor_syslog = false;
  // Program and arguments that keep a checkpoint's line, which is added as the last; empty: none.
  std::vector<std::string> anchor_command;
  std::chrono::seconds anchor_timeout{10};
  bool operator==(const RecordConfig&) const = default;
};

// Incidents; see docs/incident-response.md.
struct IncidentConfig {
  // Program and arguments that end the gateway; empty: nothing does.
  std::vector<std::string> stop_gateway;
  std::chrono::seconds stop_timeout{20};
  // Files and folders of the gateway, such as logs and transcripts, that a bundle holds too.
  std::vector<std::string> gateway_files;
  // Of what a bundle takes in, before it is compressed.
  uint64_t max_bundle_bytes = 4ull << 30;
  uint32_t max_files = 100'000;  // of one sandbox
  bool operator==(const IncidentConfig&) const = default;
};

}  // namespace creel
