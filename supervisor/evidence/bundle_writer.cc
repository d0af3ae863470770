#include "supervisor/evidence/bundle_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "supervisor/audit/line.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/evidence/bundle_format.h"

namespace creel {
namespace {

constexpr size_t kPiece = 1u << 20;
// A file with more pieces than this between its holes is cut after them: the map of a file is held
// in memory.
constexpr size_t kMaxExtents = 4096;
constexpr size_t kMaxLeftOut = 1000;
// libarchive takes no more at once.
constexpr uint64_t kMaxHole = 1u << 30;

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* object) const {
    static_cast<void>(kFree(object));
  }
};
using Archive = std::unique_ptr<archive, FreeWith<archive_write_free>>;
using Entry = std::unique_ptr<archive_entry, FreeWith<archive_entry_free>>;

struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
};

class TarBundleWriter final : public BundleWriter {
 public:
  explicit TarBundleWriter(Options options)
      : options_(std::move(options)), fresh_(options_.path + ".new"), buffer_(kPiece, '\0') {}

  ~TarBundleWriter() override {
    archive_.reset();
    if (!finished_) {
      ::unlink(fresh_.c_str());
    }
  }

  absl::Status Begin() {
    fd_.reset(::open(fresh_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd_.valid()) {
      return ErrnoStatus(errno, fmt::format("open '{}'", fresh_));
    }
    archive_.reset(archive_write_new());
    archive* const a = archive_.get();
    const bool good =
        archive_write_add_filter_zstd(a) == ARCHIVE_OK &&
        archive_write_set_format_pax(a) == ARCHIVE_OK &&
        // Names are bytes, whatever our locale says.
        archive_write_set_format_option(a, "pax", "hdrcharset", "BINARY") == ARCHIVE_OK &&
        archive_write_set_filter_option(a, "zstd", "compression-level", "1") == ARCHIVE_OK &&
        archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
        archive_write_open2(a, this, nullptr, &TarBundleWriter::Write, nullptr, nullptr) ==
            ARCHIVE_OK;
    return good ? absl::OkStatus() : Failed("begin the bundle");
  }

  absl::Status AddText(const std::string& name, std::string_view content) override {
    if (!Open()) {
      LeftOut(name);
      return absl::OkStatus();
    }
    content = content.substr(0, Left());
    struct stat info {};
    info.st_mode = S_IFREG | 0600;
    info.st_size = static_cast<off_t>(content.size());
    info.st_mtim.tv_sec = std::chrono::system_clock::to_time_t(options_.now);
    Entry entry = MakeEntry(name, info);
    RETURN_IF_ERROR(Header(entry.get()));
    Sha256 hash;
    hash.Update(content);
    RETURN_IF_ERROR(Data(content.data(), content.size()));
    taken_ += content.size();
    return EndMember(name, "file", content.size(), content.size(), hash);
  }

  absl::Status AddFile(const std::string& name, const struct stat& info, int fd) override {
    if (!Open()) {
      LeftOut(fmt::format("{}: no room is left", Printable(name, 512)));
      return absl::OkStatus();
    }
    struct stat shown = info;
    std::vector<Extent> extents = MapOf(fd, static_cast<uint64_t>(info.st_size));
    uint64_t stored = 0;
    const uint64_t left = Left();
    for (size_t i = 0; i < extents.size(); ++i) {
      const bool many = i >= kMaxExtents;
      if (!many && stored + (extents[i].end - extents[i].begin) <= left) {
        stored += extents[i].end - extents[i].begin;
        continue;
      }
      // Cut here, and the file ends here.
      extents[i].end = many ? extents[i].begin : extents[i].begin + (left - stored);
      stored += extents[i].end - extents[i].begin;
      shown.st_size = static_cast<off_t>(extents[i].end);
      extents.resize(i + (extents[i].end > extents[i].begin ? 1 : 0));
      LeftOut(fmt::format("{}: cut at byte {} of {} ({})", Printable(name, 512), shown.st_size,
                          info.st_size, many ? "it has too many holes" : "no room is left"));
      break;
    }
    Entry entry = MakeEntry(name, shown);
    const auto size = static_cast<uint64_t>(shown.st_size);
    const bool sparse = stored < size;
    if (sparse) {
      if (extents.empty()) {
        archive_entry_sparse_add_entry(entry.get(), shown.st_size, 0);
      }
      for (const Extent& extent : extents) {
        archive_entry_sparse_add_entry(entry.get(), static_cast<int64_t>(extent.begin),
                                       static_cast<int64_t>(extent.end - extent.begin));
      }
    }
    RETURN_IF_ERROR(Header(entry.get()));
    Sha256 hash;
    uint64_t at = 0;
    for (const Extent& extent : extents) {
      RETURN_IF_ERROR(Hole(extent.begin - at));
      RETURN_IF_ERROR(Copy(fd, extent, hash));
      at = extent.end;
    }
    RETURN_IF_ERROR(Hole(size - at));
    taken_ += stored;
    return EndMember(name, "file", size, stored, hash);
  }

  absl::Status AddOther(const std::string& name, const struct stat& info,
                        const std::string& link) override {
    struct stat shown = info;
    shown.st_size = 0;
    Entry entry = MakeEntry(name, shown);
    const char* kind = "other";
    switch (info.st_mode & S_IFMT) {
      case S_IFLNK:
        archive_entry_copy_symlink(entry.get(), link.c_str());
        kind = "link";
        break;
      case S_IFDIR:
        kind = "folder";
        break;
      case S_IFIFO:
        kind = "fifo";
        break;
      case S_IFCHR:
      case S_IFBLK:
        kind = "device";
        break;
      default:
        // tar has no word for a socket.
        return absl::OkStatus();
    }
    RETURN_IF_ERROR(Header(entry.get()));
    Sha256 hash;
    hash.Update(link);
    return EndMember(name, kind, 0, link.size(), hash);
  }

  void LeftOut(const std::string& what) override {
    if (left_out_.size() < kMaxLeftOut) {
      left_out_.push_back(Printable(what, 1024));
    } else {
      ++more_left_out_;
    }
  }

  bool Open() override {
    std::string why;
    if (taken_ >= options_.max_bytes) {
      why = fmt::format("it holds {} bytes, which is as much as it may (incident.max_bundle)",
                        taken_);
    } else if (std::chrono::steady_clock::now() >= options_.deadline) {
      why = "its time was up";
    } else if (options_.room && options_.room() == 0) {
      why = "the disk has no more room than sandbox.limits.free_space_floor";
    }
    if (why.empty() && closed_.empty()) {
      return true;
    }
    if (closed_.empty()) {
      closed_ = why;
      LeftOut(fmt::format("everything from here on: {}", why));
    }
    return false;
  }

  absl::StatusOr<Finished> Finish() override {
    if (more_left_out_ > 0) {
      left_out_.push_back(fmt::format("and {} more", more_left_out_));
    }
    nlohmann::ordered_json manifest;
    manifest["format"] = 1;
    manifest["incident"] = options_.incident;
    manifest["install"] = options_.install_id;
    manifest["made_at"] = RecordTime(options_.now);
    manifest["key"] = KeyId(options_.key->public_key());
    manifest["left_out"] = left_out_;
    manifest["members"] = std::move(members_);
    const std::string text =
        manifest.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    // The manifest always has room.
    options_.max_bytes = UINT64_MAX;
    options_.deadline = Deadline::max();
    options_.room = nullptr;
    closed_.clear();
    RETURN_IF_ERROR(AddText(kManifestName, text));
    if (archive_write_close(archive_.get()) != ARCHIVE_OK) {
      return Failed("end the bundle");
    }
    Sha256 file = all_;
    Seal seal{.length = written_,
              .sha256 = all_.Finish(),
              .key_id = KeyId(options_.key->public_key()),
              .signature = {}};
    seal.signature = options_.key->Sign(SealMessage(seal));
    const std::string frame = WriteSeal(seal);
    file.Update(frame);
    if (::write(fd_.get(), frame.data(), frame.size()) != static_cast<ssize_t>(frame.size()) ||
        ::fsync(fd_.get()) != 0 || ::rename(fresh_.c_str(), options_.path.c_str()) != 0) {
      return ErrnoStatus(errno, fmt::format("write the bundle '{}'", options_.path));
    }
    finished_ = true;
    return Finished{.bytes = written_ + frame.size(),
                    .sha256 = Hex(file.Finish()),
                    .members = count_,
                    .left_out = left_out_};
  }

 private:
  static la_ssize_t Write(archive* a, void* self, const void* data, size_t size) {
    auto& writer = *static_cast<TarBundleWriter*>(self);
    const std::string_view all(static_cast<const char*>(data), size);
    std::string_view rest = all;
    while (!rest.empty()) {
      const ssize_t wrote = ::write(writer.fd_.get(), rest.data(), rest.size());
      if (wrote < 0 && errno == EINTR) {
        continue;
      }
      if (wrote <= 0) {
        archive_set_error(a, errno, "write the bundle");
        return -1;
      }
      rest.remove_prefix(static_cast<size_t>(wrote));
    }
    writer.all_.Update(all);
    writer.written_ += size;
    return static_cast<la_ssize_t>(size);
  }

  // libarchive says more than its return values: a warning is what it had to leave out of a header,
  // such as a name that is no UTF-8 beside the one it has written.
  absl::Status Failed(const char* what) {
    const int error = archive_errno(archive_.get());
    const char* const text = archive_error_string(archive_.get());
    return absl::Status(error == ENOSPC || error == EDQUOT ? absl::StatusCode::kResourceExhausted
                                                           : absl::StatusCode::kInternal,
                        fmt::format("{}: {}", what, text == nullptr ? "unknown" : text));
  }

  static Entry MakeEntry(const std::string& name, const struct stat& info) {
    Entry entry(archive_entry_new());
    archive_entry_copy_pathname(entry.get(), name.c_str());
    archive_entry_copy_stat(entry.get(), &info);
    // Each stands for itself; two names of one file are stored twice.
    archive_entry_set_nlink(entry.get(), 1);
    return entry;
  }

  absl::Status Header(archive_entry* entry) {
    return archive_write_header(archive_.get(), entry) >= ARCHIVE_WARN
               ? absl::OkStatus()
               : Failed("add to the bundle");
  }

  absl::Status Data(const char* data, size_t size) {
    while (size > 0) {
      const la_ssize_t wrote = archive_write_data(archive_.get(), data, size);
      if (wrote <= 0) {
        return Failed("add to the bundle");
      }
      data += wrote;
      size -= static_cast<size_t>(wrote);
    }
    return absl::OkStatus();
  }

  // libarchive wants to be told of holes, and does not look at what is handed over for them.
  absl::Status Hole(uint64_t size) {
    while (size > 0) {
      const la_ssize_t wrote = archive_write_data(archive_.get(), buffer_.data(),
                                                  static_cast<size_t>(std::min(size, kMaxHole)));
      if (wrote <= 0) {
        return Failed("add to the bundle");
      }
      size -= static_cast<uint64_t>(wrote);
    }
    return absl::OkStatus();
  }

  absl::Status Copy(int fd, const Extent& extent, Sha256& hash) {
    uint64_t at = extent.begin;
    while (at < extent.end) {
      const size_t want = static_cast<size_t>(std::min<uint64_t>(kPiece, extent.end - at));
      ssize_t got = ::pread(fd, buffer_.data(), want, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        // It has become shorter, or cannot be read: the rest is zeros, as its size was promised.
        std::fill(buffer_.begin(), buffer_.begin() + static_cast<long>(want), '\0');
        got = static_cast<ssize_t>(want);
      }
      hash.Update(std::string_view(buffer_.data(), static_cast<size_t>(got)));
      RETURN_IF_ERROR(Data(buffer_.data(), static_cast<size_t>(got)));
      at += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  absl::Status EndMember(const std::string& name, const char* kind, uint64_t size, uint64_t stored,
                         Sha256& hash) {
    if (archive_write_finish_entry(archive_.get()) < ARCHIVE_WARN) {
      return Failed("add to the bundle");
    }
    ++count_;
    members_.push_back({{"name", Printable(name, 4096)},
                        {"kind", kind},
                        {"size", size},
                        {"stored", stored},
                        {"sha256", Hex(hash.Finish())}});
    return absl::OkStatus();
  }

  // Where the data of a file is.
  static std::vector<Extent> MapOf(int fd, uint64_t size) {
    std::vector<Extent> extents;
    uint64_t at = 0;
    while (at < size && extents.size() <= kMaxExtents) {
      const off_t data = ::lseek(fd, static_cast<off_t>(at), SEEK_DATA);
      if (data < 0) {
        if (errno != ENXIO) {  // a file system that knows no holes
          extents.push_back({.begin = at, .end = size});
        }
        break;
      }
      off_t hole = ::lseek(fd, data, SEEK_HOLE);
      if (hole < 0) {
        hole = static_cast<off_t>(size);
      }
      const uint64_t end = std::min(static_cast<uint64_t>(hole), size);
      if (static_cast<uint64_t>(data) >= end) {
        break;
      }
      extents.push_back({.begin = static_cast<uint64_t>(data), .end = end});
      at = end;
    }
    return extents;
  }

  [[nodiscard]] uint64_t Left() const {
    const uint64_t left = options_.max_bytes > taken_ ? options_.max_bytes - taken_ : 0;
    return options_.room ? std::min(left, options_.room()) : left;
  }

  Options options_;
  const std::string fresh_;
  UniqueFd fd_;
  std::string buffer_;
  Archive archive_;
  Sha256 all_;  // of what was written
  uint64_t written_ = 0;
  uint64_t taken_ = 0;
  uint64_t count_ = 0;
  nlohmann::ordered_json members_ = nlohmann::ordered_json::array();
  std::vector<std::string> left_out_;
  uint64_t more_left_out_ = 0;
  std::string closed_;  // why it takes no more; empty: it does
  bool finished_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BundleWriter>> BundleWriter::Create(Options options) {
  auto writer = std::make_unique<TarBundleWriter>(std::move(options));
  RETURN_IF_ERROR(writer->Begin());
  return writer;
}

}  // namespace creel
