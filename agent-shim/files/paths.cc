#include "agent-shim/files/paths.h"

#include <fmt/format.h>
#include <linux/limits.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "supervisor/base/status.h"

namespace creel::shim {
namespace {

constexpr size_t kMaxQuoted = 300;

// The length of the UTF-8 sequence at the front of `text`, 0 if there is no valid one.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t length = lead < 0x80               ? 1
                        : (lead & 0xe0U) == 0xc0U ? 2
                        : (lead & 0xf0U) == 0xe0U ? 3
                        : (lead & 0xf8U) == 0xf0U ? 4
                                                  : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  uint32_t code = length == 1 ? lead : lead & (0x7fU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) {
      return 0;
    }
    code = code << 6U | (byte(i) & 0x3fU);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kSmallest[length] || code > 0x10ffff || surrogate ? 0 : length;
}

}  // namespace

absl::Status CheckPath(std::string_view path) {
  if (path.empty()) {
    return absl::InvalidArgumentError("the path is empty");
  }
  if (path.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("the path holds a NUL byte");
  }
  if (path.size() > kMaxPath) {
    return absl::InvalidArgumentError(fmt::format("the path is longer than {} bytes", kMaxPath));
  }
  return absl::OkStatus();
}

std::string Quoted(std::string_view path) {
  std::string text = "'";
  while (!path.empty()) {
    if (text.size() > kMaxQuoted) {
      text += "…";
      break;
    }
    const size_t length = Utf8Length(path);
    const auto lead = static_cast<unsigned char>(path[0]);
    // C1 controls (c2 80 to c2 9f) drive terminals as well.
    const bool control =
        lead < 0x20 || lead == 0x7f ||
        (lead == 0xc2 && length == 2 && static_cast<unsigned char>(path[1]) < 0xa0);
    if (length == 0 || control) {
      text += fmt::format("\\x{:02x}", lead);
      path.remove_prefix(1);
    } else {
      text += path.substr(0, length);
      path.remove_prefix(length);
    }
  }
  return text + "'";
}

std::vector<std::string> Components(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (!part.empty() && part != ".") {
      parts.emplace_back(part);
    }
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return parts;
}

std::string JoinPath(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty() && !name.empty() && path.back() != '/') {
    path += '/';
  }
  return path += name;
}

absl::Status PathError(int error, std::string_view what, std::string_view path) {
  const std::string text = fmt::format("{} {}", what, Quoted(path));
  const auto failed = [&](std::string_view why) {
    return absl::FailedPreconditionError(fmt::format("{}: {}", text, why));
  };
  switch (error) {
    case ELOOP:
      return failed("a link where none may be, or a loop of links");
    case ENOTDIR:
    case EISDIR:
    case ETXTBSY:
    case ENXIO:
    case EMLINK:
    case EFBIG:
      return failed(std::system_category().message(error));
    case EAGAIN:
      return failed("another process holds it (a lease)");
    default:
      return ErrnoStatus(error, text);
  }
}

std::string_view KindName(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "a regular file";
    case S_IFDIR:
      return "a directory";
    case S_IFLNK:
      return "a link";
    case S_IFIFO:
      return "a fifo";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
    case S_IFBLK:
      return "a device";
    default:
      return "of an unknown kind";
  }
}

v1::FileType TypeOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return v1::FILE_TYPE_REGULAR;
    case S_IFDIR:
      return v1::FILE_TYPE_DIRECTORY;
    case S_IFLNK:
      return v1::FILE_TYPE_SYMLINK;
    default:
      return v1::FILE_TYPE_OTHER;
  }
}

v1::FileInfo InfoOf(const struct stat& stat, std::string_view path) {
  v1::FileInfo info;
  info.set_path(path.data(), path.size());
  info.set_type(TypeOf(stat.st_mode));
  info.set_size(static_cast<uint64_t>(stat.st_size));
  info.set_mode(stat.st_mode & 07777U);
  info.set_uid(stat.st_uid);
  info.set_gid(stat.st_gid);
  info.mutable_modified_at()->set_seconds(stat.st_mtim.tv_sec);
  info.mutable_modified_at()->set_nanos(static_cast<int32_t>(stat.st_mtim.tv_nsec));
  return info;
}

std::string ReadLink(int dir, const std::string& name) {
  std::string target(PATH_MAX, '\0');
  const ssize_t length = readlinkat(dir, name.c_str(), target.data(), target.size());
  target.resize(length > 0 ? static_cast<size_t>(length) : 0);
  return target;
}

}  // namespace creel::shim
