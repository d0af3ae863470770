#include "supervisor/audit/line.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <ctime>
#include <iterator>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr std::string_view kSeqKey = "{\"seq\":";
constexpr std::string_view kPrevKey = ",\"prev\":\"";
constexpr std::string_view kAtKey = "\",\"at\":\"";
constexpr std::string_view kEventKey = "\",\"event\":\"";
constexpr std::string_view kHashKey = ",\"hash\":\"";
constexpr std::string_view kEnd = "\"}";
constexpr size_t kHashChars = 64;
constexpr size_t kTimeChars = 27;

bool IsHash(std::string_view text) {
  return text.size() == kHashChars &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool Eat(std::string_view& rest, std::string_view token) {
  if (!rest.starts_with(token)) {
    return false;
  }
  rest.remove_prefix(token.size());
  return true;
}

// `text` is printable, so that only these two need an escape.
void AppendEscaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
}

// Reads a string of JSON, `rest` standing after its first quote; nothing if it does not end.
std::optional<std::string> TakeString(std::string_view& rest) {
  std::string text;
  while (!rest.empty()) {
    const char c = rest[0];
    rest.remove_prefix(1);
    if (c == '"') {
      return text;
    }
    if (c == '\\') {
      if (rest.empty()) {
        return {};
      }
      text += rest[0];
      rest.remove_prefix(1);
    } else {
      text += c;
    }
  }
  return {};
}

// The value at the start of `rest`.
std::optional<std::string> TakeValue(std::string_view& rest) {
  if (Eat(rest, "\"")) {
    return TakeString(rest);
  }
  if (Eat(rest, "[")) {
    std::string all;
    while (Eat(rest, "\"")) {
      const std::optional<std::string> item = TakeString(rest);
      if (!item) {
        return {};
      }
      all += all.empty() ? "" : ", ";
      all += *item;
      Eat(rest, ",");
    }
    return Eat(rest, "]") ? std::optional(all) : std::nullopt;
  }
  const size_t end = rest.find_first_of(",}");
  if (end == std::string_view::npos || end == 0) {
    return {};
  }
  std::string number(rest.substr(0, end));
  rest.remove_prefix(end);
  return number;
}

}  // namespace

const std::string kNoHash(kHashChars, '0');

std::optional<LineFrame> ParseFrame(std::string_view line) {
  LineFrame frame;
  std::string_view rest = line;
  if (!Eat(rest, kSeqKey)) {
    return {};
  }
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), frame.seq);
  const auto digits = static_cast<size_t>(end - rest.data());
  if (error != std::errc() || frame.seq == 0 || rest[0] == '0') {
    return {};
  }
  rest.remove_prefix(digits);
  if (!Eat(rest, kPrevKey)) {
    return {};
  }
  frame.prev = rest.substr(0, kHashChars);
  rest.remove_prefix(frame.prev.size());
  if (!IsHash(frame.prev) || !Eat(rest, kAtKey)) {
    return {};
  }
  frame.at = rest.substr(0, kTimeChars);
  rest.remove_prefix(frame.at.size());
  if (!Eat(rest, kEventKey)) {
    return {};
  }
  const size_t quote = rest.find('"');
  constexpr size_t kTail = kHashKey.size() + kHashChars + kEnd.size();
  if (quote == std::string_view::npos || rest.size() < quote + 1 + kTail) {
    return {};
  }
  frame.event = rest.substr(0, quote);
  std::string_view tail = line.substr(line.size() - kTail);
  if (!Eat(tail, kHashKey)) {
    return {};
  }
  frame.hash = tail.substr(0, kHashChars);
  tail.remove_prefix(kHashChars);
  if (!IsHash(frame.hash) || tail != kEnd) {
    return {};
  }
  return frame;
}

bool HashFits(std::string_view line, const LineFrame& frame) {
  Sha256 hash;
  hash.Update(line.substr(0, line.size() - kHashKey.size() - kHashChars - kEnd.size()));
  return Hex(hash.Finish()) == frame.hash;
}

std::optional<std::string> FieldOf(std::string_view line, std::string_view key) {
  for (auto& [name, value] : FieldsOf(line)) {
    if (name == key) {
      return std::move(value);
    }
  }
  return {};
}

std::vector<std::pair<std::string, std::string>> FieldsOf(std::string_view line) {
  std::vector<std::pair<std::string, std::string>> fields;
  std::string_view rest = line;
  if (!Eat(rest, "{")) {
    return fields;
  }
  while (Eat(rest, "\"")) {
    std::optional<std::string> key = TakeString(rest);
    if (!key || !Eat(rest, ":")) {
      break;
    }
    std::optional<std::string> value = TakeValue(rest);
    if (!value) {
      break;
    }
    fields.emplace_back(*std::move(key), *std::move(value));
    if (!Eat(rest, ",")) {
      break;
    }
  }
  return fields;
}

std::string FieldPattern(std::string_view key, std::string_view value) {
  std::string pattern = fmt::format(",\"{}\":\"", key);
  AppendEscaped(pattern, value);
  pattern += '"';
  return pattern;
}

std::string RecordTime(std::chrono::system_clock::time_point at) {
  const int64_t micros =
      std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count();
  const time_t seconds = micros / 1'000'000;
  struct tm utc {};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     micros % 1'000'000);
}

LineWriter::Line LineWriter::Write(const AuditEvent& event, uint64_t seq, std::string_view prev,
                                   std::chrono::system_clock::time_point at,
                                   const SecretMask& mask) {
  const auto text = [&mask](const std::string& value, size_t max_bytes) {
    return Printable(mask.Apply(value), max_bytes);
  };
  Line line;
  std::string& out = line.text;
  out.reserve(768);
  fmt::format_to(std::back_inserter(out), "{}{}{}{}{}{}{}{}\"", kSeqKey, seq, kPrevKey, prev,
                 kAtKey, RecordTime(at), kEventKey, event.kind());
  for (const AuditEvent::Field& field : event.fields_) {
    fmt::format_to(std::back_inserter(out), ",\"{}\":", field.key);
    switch (field.type) {
      case AuditEvent::Field::Type::kText:
        out += '"';
        AppendEscaped(out, text(field.text, field.max_bytes));
        out += '"';
        break;
      case AuditEvent::Field::Type::kNumber:
        fmt::format_to(std::back_inserter(out), "{}", field.number);
        break;
      case AuditEvent::Field::Type::kList:
        out += '[';
        for (size_t i = 0; i < field.list.size(); ++i) {
          out += i == 0 ? "\"" : ",\"";
          AppendEscaped(out, text(field.list[i], field.max_bytes));
          out += '"';
        }
        out += ']';
        break;
    }
  }
  Sha256 hash;
  hash.Update(out);
  line.hash = Hex(hash.Finish());
  out += kHashKey;
  out += line.hash;
  out += kEnd;
  out += '\n';
  return line;
}

}  // namespace creel
