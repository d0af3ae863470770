#include "supervisor/cli/read_text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

constexpr size_t kMaxFile = 1u << 20;

}  // namespace

std::optional<std::string> ReadText(const std::string& file) {
  std::string text;
  if (file == "-") {
    std::array<char, 16384> buffer;
    for (ssize_t got = 0; text.size() <= kMaxFile;) {
      got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
      if (got <= 0) {
        break;
      }
      text.append(buffer.data(), static_cast<size_t>(got));
    }
  } else {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      Fail(fmt::format("cannot read '{}': {}", file, std::strerror(errno)));
      return {};
    }
    text.assign(std::istreambuf_iterator<char>(stream), {});
  }
  if (text.size() > kMaxFile) {
    Fail(fmt::format("'{}' is longer than 1 MiB", file));
    return {};
  }
  return text;
}

}  // namespace creel::cli
