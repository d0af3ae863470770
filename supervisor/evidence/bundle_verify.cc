#include "supervisor/evidence/bundle_verify.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "supervisor/audit/signing_key.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/evidence/bundle_format.h"

namespace creel {
namespace {

constexpr size_t kPiece = 1u << 20;
// Of a bundle that is not as it was sealed; what a sound one holds is ours.
constexpr uint64_t kMaxUnpacked = 64ull << 30;
constexpr size_t kMaxManifest = 512u << 20;

struct FreeArchive {
  void operator()(archive* a) const { static_cast<void>(archive_read_free(a)); }
};

struct Member {
  std::string name;
  std::string sha256;
};

// What is in the archive, as far as it can be read.
struct Content {
  std::vector<Member> members;
  std::string manifest;
  std::string broken;  // empty: it could be read to its end
};

Content ReadContent(const std::string& path) {
  Content content;
  const std::unique_ptr<archive, FreeArchive> a(archive_read_new());
  archive_read_support_filter_zstd(a.get());
  archive_read_support_format_tar(a.get());
  archive_read_set_format_option(a.get(), "tar", "hdrcharset", "BINARY");
  if (archive_read_open_filename(a.get(), path.c_str(), kPiece) != ARCHIVE_OK) {
    content.broken = "it is no zstd archive";
    return content;
  }
  uint64_t unpacked = 0;
  while (true) {
    archive_entry* entry = nullptr;
    const int got = archive_read_next_header(a.get(), &entry);
    if (got == ARCHIVE_EOF) {
      return content;
    }
    if (got < ARCHIVE_WARN) {
      break;
    }
    const char* const name = archive_entry_pathname(entry);
    std::string_view path_of_member = name == nullptr ? "" : name;
    // tar writes a folder's name with a slash at its end.
    if (archive_entry_filetype(entry) == AE_IFDIR && path_of_member.ends_with('/')) {
      path_of_member.remove_suffix(1);
    }
    Member member{.name = Printable(path_of_member, 4096), .sha256 = {}};
    const bool manifest = member.name == kManifestName;
    Sha256 hash;
    if (const char* const link = archive_entry_symlink(entry);
        link != nullptr && archive_entry_filetype(entry) == AE_IFLNK) {
      hash.Update(link);
    }
    while (true) {
      const void* data = nullptr;
      size_t size = 0;
      la_int64_t offset = 0;
      const int block = archive_read_data_block(a.get(), &data, &size, &offset);
      if (block == ARCHIVE_EOF) {
        break;
      }
      unpacked += size;
      if (block < ARCHIVE_WARN || unpacked > kMaxUnpacked) {
        content.broken = fmt::format("member '{}' cannot be read", member.name);
        return content;
      }
      const std::string_view piece(static_cast<const char*>(data), size);
      hash.Update(piece);
      if (manifest && content.manifest.size() + size <= kMaxManifest) {
        content.manifest += piece;
      }
    }
    member.sha256 = Hex(hash.Finish());
    content.members.push_back(std::move(member));
  }
  content.broken = fmt::format(
      "the archive breaks off after {}",
      content.members.empty() ? "its beginning" : "'" + content.members.back().name + "'");
  return content;
}

// The first member that the manifest does not vouch for; empty: it vouches for all.
std::string FirstBad(const Content& content, BundleReport& report) {
  const nlohmann::json manifest = nlohmann::json::parse(content.manifest, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("members") || !manifest["members"].is_array()) {
    return "its manifest cannot be read";
  }
  report.incident = Printable(manifest.value("incident", ""), 64);
  report.made_at = Printable(manifest.value("made_at", ""), 64);
  for (const auto& what : manifest.value("left_out", nlohmann::json::array())) {
    report.left_out.push_back(Printable(what.is_string() ? what.get<std::string>() : "", 1024));
  }
  size_t i = 0;
  for (const auto& listed : manifest["members"]) {
    const std::string name = listed.value("name", "");
    if (i >= content.members.size() || content.members[i].name != name) {
      return fmt::format("member '{}' is missing", Printable(name, 512));
    }
    if (content.members[i].sha256 != listed.value("sha256", "")) {
      return fmt::format("member '{}' was changed", Printable(name, 512));
    }
    ++i;
  }
  if (i + 1 != content.members.size()) {
    return fmt::format("it has {} members that its manifest does not list",
                       content.members.size() - i - 1);
  }
  return "";
}

absl::StatusOr<std::string> HashOfFirst(int fd, uint64_t length) {
  Sha256 hash;
  std::string buffer(kPiece, '\0');
  uint64_t at = 0;
  while (at < length) {
    const ssize_t got =
        ::pread(fd, buffer.data(), std::min<uint64_t>(kPiece, length - at), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return ErrnoStatus(got < 0 ? errno : EIO, "read the bundle");
    }
    hash.Update(std::string_view(buffer.data(), static_cast<size_t>(got)));
    at += static_cast<uint64_t>(got);
  }
  return hash.Finish();
}

}  // namespace

absl::StatusOr<BundleReport> VerifyBundle(const std::string& path, const std::string& public_key) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("open the bundle '{}'", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no file", path));
  }
  BundleReport report;
  report.bytes = static_cast<uint64_t>(info.st_size);
  if (report.bytes < kSealBytes) {
    report.problem = "it is too short to be a bundle";
    return report;
  }
  std::string frame(kSealBytes, '\0');
  if (::pread(fd.get(), frame.data(), frame.size(),
              static_cast<off_t>(report.bytes - kSealBytes)) !=
      static_cast<ssize_t>(frame.size())) {
    return ErrnoStatus(errno, "read the bundle");
  }
  const std::optional<Seal> seal = ReadSeal(frame);
  if (!seal) {
    report.problem = "it does not end in a seal: it was cut or changed there";
    return report;
  }
  report.key_id = Printable(seal->key_id, 32);
  if (seal->key_id != KeyId(public_key)) {
    report.problem = fmt::format("it names another key ({}) than the one given ({})", report.key_id,
                                 KeyId(public_key));
    return report;
  }
  if (!SignatureFits(public_key, SealMessage(*seal), seal->signature)) {
    report.problem = "its seal was not made with the key given, or was changed";
    return report;
  }
  if (seal->length != report.bytes - kSealBytes) {
    report.problem = fmt::format("it has {} bytes before its seal where {} were sealed",
                                 report.bytes - kSealBytes, seal->length);
    return report;
  }
  ASSIGN_OR_RETURN(const std::string sum, HashOfFirst(fd.get(), seal->length));
  const Content content = ReadContent(path);
  report.members = content.members.size();
  const std::string bad = content.broken.empty() ? FirstBad(content, report) : content.broken;
  if (sum != seal->sha256) {
    report.problem =
        fmt::format("it is not what was sealed: {}",
                    bad.empty() ? "bytes of the archive were changed that carry no content" : bad);
    return report;
  }
  // The seal is good, so this is what was written: only a mistake of ours could show here.
  report.problem = bad;
  report.sound = bad.empty();
  return report;
}

}  // namespace creel
