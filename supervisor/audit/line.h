#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "supervisor/audit/event.h"
#include "supervisor/audit/mask.h"

namespace creel {

// A line of the record is one JSON object in one spelling: keys in the order in which they were
// written, no space between tokens, `"` and `\` escaped and nothing else, as no other character
// that JSON escapes gets this far:
//
//   {"seq":7,"prev":"…","at":"2026-11-27T02:42:02.123456Z","event":"call.allowed",…,"hash":"…"}
//
// `prev` is the hash of the line before, `hash` the SHA-256 of all bytes before `,"hash":"`. So
// lines are checked and searched as bytes, without parsing.
struct LineFrame {
  uint64_t seq = 0;
  std::string_view prev;
  std::string_view at;
  std::string_view event;
  std::string_view hash;
};

// `prev` of the first record.
extern const std::string kNoHash;

// The frame of a line (without its end of line); nothing if the line has not that shape. The hash
// is not checked.
std::optional<LineFrame> ParseFrame(std::string_view line);
// Whether the line's own hash is the one it says.
bool HashFits(std::string_view line, const LineFrame& frame);

// The text or number of a key at the top level, unescaped; nothing if it is not there.
std::optional<std::string> FieldOf(std::string_view line, std::string_view key);
// All of them in their order, frame included; a list comes as its items joined by ", ".
std::vector<std::pair<std::string, std::string>> FieldsOf(std::string_view line);
// `,"key":"value"` as it stands in a line that has it.
std::string FieldPattern(std::string_view key, std::string_view value);

// `2026-11-27T02:42:02.123456Z`: sorts as time does.
std::string RecordTime(std::chrono::system_clock::time_point at);

// Writes lines. Not thread-safe.
class LineWriter {
 public:
  struct Line {
    std::string text;  // with its end of line
    std::string hash;
  };
  static Line Write(const AuditEvent& event, uint64_t seq, std::string_view prev,
                    std::chrono::system_clock::time_point at, const SecretMask& mask);
};

}  // namespace creel
