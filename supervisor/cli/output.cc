#include "supervisor/cli/output.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "supervisor/base/escape.h"

namespace creel::cli {

int Fail(std::string_view message, int code) {
  WriteAll(STDERR_FILENO, fmt::format("creel: {}\n", Printable(message, 2000)));
  return code;
}

int Fail(const absl::Status& status, int code) {
  return Fail(std::string_view(status.message().data(), status.message().size()), code);
}

int Fail(const grpc::Status& status, int code) {
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_message().empty()) {
    return Fail("the supervisor went away; see its log, and try again", code);
  }
  return Fail(status.error_message().empty() ? "the supervisor refused without a reason"
                                             : std::string_view(status.error_message()),
              code);
}

int PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    return Fail("the answer cannot be written as JSON");
  }
  text += "\n";
  return WriteAll(STDOUT_FILENO, text) ? 0 : 1;
}

void PrintTable(const std::vector<std::string>& heading,
                const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> lines{heading};
  for (const auto& row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const std::string& cell : row) {
      // The last one moves no other.
      line.push_back(Printable(cell, &cell == &row.back() ? 400 : 80));
    }
  }
  std::vector<size_t> widths(heading.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], line[i].size());
    }
  }
  std::string text;
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      text += i + 1 == line.size() ? line[i] : fmt::format("{:<{}}  ", line[i], widths[i]);
    }
    text += "\n";
  }
  WriteAll(STDOUT_FILENO, text);
}

std::string Ago(const google::protobuf::Timestamp& then) {
  if (then.seconds() == 0) {
    return "-";
  }
  const int64_t now = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  const int64_t seconds = std::max<int64_t>(0, now - then.seconds());
  if (seconds < 120) {
    return fmt::format("{}s", seconds);
  }
  if (seconds < 2 * 3600) {
    return fmt::format("{}m", seconds / 60);
  }
  if (seconds < 48 * 3600) {
    return fmt::format("{}h", seconds / 3600);
  }
  return fmt::format("{}d", seconds / 86400);
}

std::string Size(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

bool WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0 && errno == EAGAIN) {
      pollfd waiting{fd, POLLOUT, 0};
      poll(&waiting, 1, -1);
      continue;
    }
    if (written < 0 && errno != EINTR) {
      return false;
    }
    data.remove_prefix(written > 0 ? static_cast<size_t>(written) : 0);
  }
  return true;
}

}  // namespace creel::cli
