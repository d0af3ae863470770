#include "supervisor/audit/audit_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <thread>

#include "supervisor/audit/line.h"
#include "supervisor/audit/mask.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/audit/record_start.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

using std::chrono::system_clock;

// Events that wait for room; what comes after is counted.
constexpr size_t kMaxKept = 20'000;

int64_t DayOf(system_clock::time_point at) {
  return std::chrono::floor<std::chrono::days>(at).time_since_epoch().count();
}

class FileAuditLog final : public AuditLog {
 public:
  FileAuditLog(Options options, std::shared_ptr<const SigningKey> key, const Clock& clock)
      : options_(std::move(options)), key_(std::move(key)), clock_(clock) {}

  ~FileAuditLog() override {
    {
      MutexLock hold(mu_);
      stopping_ = true;
      changed_.SignalAll();
      sleep_.SignalAll();
    }
    if (flusher_.joinable()) {
      flusher_.join();
    }
    std::string anchor_line;
    {
      MutexLock hold(mu_);
      if (FlushKeptLocked().ok() && unsigned_records_ > 0) {
        CheckpointLocked();
      }
      anchor_line.swap(anchor_line_);
    }
    static_cast<void>(Sync());
    if (!anchor_line.empty() && options_.anchor) {
      options_.anchor(anchor_line);
    }
  }

  // Goes on after what RecordStart found.
  absl::Status Begin(RecordStart start) {
    {
      MutexLock hold(mu_);
      head_ = {.seq = start.seq, .hash = start.hash};
      unsigned_records_ = start.seq > 0 ? 1 : 0;
      findings_ = std::move(start.findings);
      if (!start.file.empty()) {
        RETURN_IF_ERROR(OpenFileLocked(start.file));
        day_ = DayOf(clock_.Now());
        if (!start.file.ends_with(RecordFileName(clock_.Now(), start.file_first_seq))) {
          day_ = -1;  // of another day: the next record begins a new one
        }
      }
      if (start.seq == 0) {
        RETURN_IF_ERROR(WriteLocked(AuditEvent("record.began")
                                        .Text("install", options_.install_id)
                                        .Text("key", KeyId(key_->public_key()))));
      }
      for (const AuditEvent& event : start.events) {
        RETURN_IF_ERROR(WriteLocked(event));
      }
    }
    flusher_ = std::thread([this] { RunFlusher(); });
    return absl::OkStatus();
  }

  absl::Status Append(const AuditEvent& event) override {
    MutexLock hold(mu_);
    RETURN_IF_ERROR(FlushKeptLocked());
    return WriteLocked(event);
  }

  absl::Status AppendDurable(const AuditEvent& event) override {
    RETURN_IF_ERROR(Append(event));
    return Sync();
  }

  void Keep(const AuditEvent& event) override {
    MutexLock hold(mu_);
    if (FlushKeptLocked().ok() && WriteLocked(event).ok()) {
      return;
    }
    if (kept_.size() < kMaxKept) {
      kept_.push_back(event);
    } else {
      ++dropped_;
    }
  }

  void SetSecrets(const std::vector<std::pair<std::string, std::string>>& secrets) override {
    MutexLock hold(mu_);
    mask_ = SecretMask(secrets);
  }

  [[nodiscard]] std::string Masked(std::string_view text) const override {
    return mask().Apply(text);
  }

  [[nodiscard]] std::set<std::string> SecretsIn(std::string_view text) const override {
    return mask().Find(text);
  }

  [[nodiscard]] absl::Status Health() const override {
    MutexLock hold(mu_);
    return failure_;
  }

  [[nodiscard]] AuditHead head() const override {
    MutexLock hold(mu_);
    return head_;
  }

  [[nodiscard]] bool WaitBeyond(uint64_t seq, Deadline deadline) override {
    MutexLock hold(mu_);
    while (head_.seq <= seq && !stopping_) {
      if (!changed_.WaitUntil(mu_, deadline)) {
        return head_.seq > seq;
      }
    }
    return head_.seq > seq;
  }

  absl::Status Sync() override {
    // One at a time: the head that is saved never goes back.
    MutexLock turn(sync_mu_);
    AuditHead head;
    UniqueFd fd;
    {
      MutexLock hold(mu_);
      if (head_ == saved_ || !fd_.valid()) {
        return failure_;
      }
      head = head_;
      fd.reset(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
    }
    if (!fd.valid() || ::fdatasync(fd.get()) != 0) {
      return ErrnoStatus(errno, "write the record to the disk");
    }
    if (options_.save_head) {
      options_.save_head(head);
    }
    MutexLock hold(mu_);
    saved_ = head;
    return absl::OkStatus();
  }

  [[nodiscard]] const std::string& directory() const override { return options_.directory; }
  [[nodiscard]] const SigningKey& key() const override { return *key_; }
  [[nodiscard]] const std::vector<std::string>& findings() const override { return findings_; }

 private:
  [[nodiscard]] SecretMask mask() const {
    MutexLock hold(mu_);
    return mask_;
  }

  absl::Status OpenFileLocked(const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    UniqueFd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat info {};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
      return ErrnoStatus(fd.valid() && errno == 0 ? EINVAL : errno,
                         fmt::format("open the record '{}'", path));
    }
    fd_ = std::move(fd);
    path_ = path;
    inode_ = info.st_ino;
    size_ = static_cast<uint64_t>(info.st_size);
    return absl::OkStatus();
  }

  // A new file for the next record, should the present one be full, of another day, or gone.
  absl::Status RotateLocked(system_clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const int64_t day = DayOf(now);
    if (fd_.valid() && day == day_ && size_ < options_.max_file_bytes) {
      return absl::OkStatus();
    }
    if (::mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
      return ErrnoStatus(errno, fmt::format("make the record's folder '{}'", options_.directory));
    }
    if (fd_.valid() && ::fdatasync(fd_.get()) != 0) {
      return ErrnoStatus(errno, "write the record to the disk");
    }
    RETURN_IF_ERROR(OpenFileLocked(
        fmt::format("{}/{}", options_.directory, RecordFileName(now, head_.seq + 1))));
    // Its name must be on the disk before the head is said to be.
    const UniqueFd folder(::open(options_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid() || ::fsync(folder.get()) != 0) {
      fd_.reset();
      return ErrnoStatus(errno, fmt::format("write the folder '{}'", options_.directory));
    }
    day_ = day;
    look_for_old_ = true;
    return absl::OkStatus();
  }

  absl::Status WriteLocked(const AuditEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!failure_.ok()) {
      // What the last attempt may have left of a line goes first; this needs no room.
      if (fd_.valid() && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) {
        return FailLocked(ErrnoStatus(errno, fmt::format("mend '{}'", path_)));
      }
      AuditEvent resumed("record.resumed");
      resumed.Text("why", std::string(failure_.message()))
          .Text("since", RecordTime(failed_at_))
          .Number("refused", static_cast<int64_t>(refused_))
          .Number("lost", static_cast<int64_t>(dropped_));
      RETURN_IF_ERROR(WriteLineLocked(resumed));
      failure_ = absl::OkStatus();
      refused_ = 0;
      dropped_ = 0;
    }
    return WriteLineLocked(event);
  }

  absl::Status WriteLineLocked(const AuditEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const system_clock::time_point now = clock_.Now();
    if (const absl::Status ready = RotateLocked(now); !ready.ok()) {
      return FailLocked(ready);
    }
    const LineWriter::Line line =
        LineWriter::Write(event, head_.seq + 1, head_.seq == 0 ? kNoHash : head_.hash, now, mask_);
    std::string_view rest = line.text;
    while (!rest.empty()) {
      const ssize_t wrote = ::write(fd_.get(), rest.data(), rest.size());
      if (wrote < 0 && errno == EINTR) {
        continue;
      }
      if (wrote <= 0) {
        const absl::Status why =
            ErrnoStatus(wrote < 0 ? errno : ENOSPC, fmt::format("write to '{}'", path_));
        // If half a line cannot be taken away now, it is before the next one.
        const int mended = ::ftruncate(fd_.get(), static_cast<off_t>(size_));
        static_cast<void>(mended);
        return FailLocked(why);
      }
      rest.remove_prefix(static_cast<size_t>(wrote));
    }
    size_ += line.text.size();
    head_ = {.seq = head_.seq + 1, .hash = line.hash};
    ++unsigned_records_;
    changed_.SignalAll();
    return absl::OkStatus();
  }

  absl::Status FailLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (failure_.ok()) {
      failed_at_ = clock_.Now();
    }
    ++refused_;
    failure_ = absl::Status(
        absl::IsResourceExhausted(why) ? why.code() : absl::StatusCode::kUnavailable,
        fmt::format("the record cannot be written ({}), and nothing is done that it does not tell; "
                    "it goes on by itself once that is mended",
                    std::string(why.message())));
    return failure_;
  }

  absl::Status FlushKeptLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (!kept_.empty()) {
      RETURN_IF_ERROR(WriteLocked(kept_.front()));
      kept_.pop_front();
    }
    return absl::OkStatus();
  }

  void CheckpointLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    // The place is that of the checkpoint itself, so nothing else may be written in between.
    if (!failure_.ok() || !RotateLocked(clock_.Now()).ok()) {
      return;
    }
    const uint64_t seq = head_.seq + 1;
    AuditEvent event("checkpoint");
    const std::string signature =
        Hex(key_->Sign(CheckpointMessage(seq, head_.seq == 0 ? kNoHash : head_.hash)));
    event.Text("key", KeyId(key_->public_key())).Text("signature", signature);
    if (WriteLineLocked(event).ok()) {
      unsigned_records_ = 0;
      anchor_line_ = fmt::format("creel record {} checkpoint {} {} signature {}",
                                 options_.install_id, seq, head_.hash, signature);
    }
  }

  void RunFlusher() {
    Deadline checkpoint_at = After(options_.checkpoint_every);
    while (true) {
      std::string anchor_line;
      {
        MutexLock hold(mu_);
        const Deadline until = After(options_.sync_every);
        while (!stopping_ && std::chrono::steady_clock::now() < until) {
          sleep_.WaitUntil(mu_, until);
        }
        if (stopping_) {
          return;
        }
        NoticeLossLocked();
        if (!failure_.ok() || !kept_.empty()) {
          // Goes on as soon as there is room, not only when somebody asks.
          if (FlushKeptLocked().ok() && !failure_.ok()) {
            static_cast<void>(WriteLocked(AuditEvent("record.tried")));
          }
        }
        const bool due = std::chrono::steady_clock::now() >= checkpoint_at;
        if (unsigned_records_ >= options_.checkpoint_records || (due && unsigned_records_ > 0)) {
          CheckpointLocked();
          checkpoint_at = After(options_.checkpoint_every);
        } else if (due) {
          checkpoint_at = After(options_.checkpoint_every);
        }
        anchor_line.swap(anchor_line_);
        if (look_for_old_) {
          look_for_old_ = false;
          RemoveOldLocked();
        }
      }
      static_cast<void>(Sync());
      if (!anchor_line.empty() && options_.anchor) {
        options_.anchor(anchor_line);
      }
    }
  }

  // Somebody removed or replaced the file that is being written: a new one is begun, and the gap
  // shows in the chain.
  void NoticeLossLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    struct stat info {};
    if (!fd_.valid() || (::lstat(path_.c_str(), &info) == 0 && info.st_ino == inode_)) {
      return;
    }
    const std::string gone = path_;
    fd_.reset();
    static_cast<void>(WriteLocked(AuditEvent("record.file_gone").Text("file", gone)));
  }

  void RemoveOldLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    absl::StatusOr<std::vector<RecordFile>> files = ListRecordFiles(options_.directory);
    if (!files.ok()) {
      return;
    }
    const auto oldest_kept = clock_.Now() - options_.keep;
    // A file's records are older than the name of the next one.
    for (size_t i = 0; i + 1 < files->size(); ++i) {
      struct stat info {};
      const std::string& path = (*files)[i].path;
      if (path == path_ || ::lstat(path.c_str(), &info) != 0 ||
          system_clock::from_time_t(info.st_mtime) >= oldest_kept) {
        return;
      }
      const absl::StatusOr<LastLine> last = FindLastLine(path);
      if (!last.ok()) {
        return;
      }
      const absl::Status told =
          WriteLocked(AuditEvent("record.removed")
                          .Text("file", (*files)[i].name)
                          .Text("why", "older than audit.keep")
                          .Number("first", static_cast<int64_t>((*files)[i].first_seq))
                          .Number("last", static_cast<int64_t>(last->seq))
                          .Text("last_hash", last->hash));
      if (!told.ok() || ::unlink(path.c_str()) != 0) {
        return;
      }
    }
  }

  const Options options_;
  const std::shared_ptr<const SigningKey> key_;
  const Clock& clock_;
  std::vector<std::string> findings_;  // set before others see it

  Mutex sync_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  mutable Mutex mu_;
  CondVar changed_;  // a record was written
  CondVar sleep_;    // of the flusher
  SecretMask mask_ ABSL_GUARDED_BY(mu_);
  UniqueFd fd_ ABSL_GUARDED_BY(mu_);
  std::string path_ ABSL_GUARDED_BY(mu_);
  uint64_t inode_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t size_ ABSL_GUARDED_BY(mu_) = 0;  // of whole lines
  int64_t day_ ABSL_GUARDED_BY(mu_) = -1;
  AuditHead head_ ABSL_GUARDED_BY(mu_);
  AuditHead saved_ ABSL_GUARDED_BY(mu_);
  uint64_t unsigned_records_ ABSL_GUARDED_BY(mu_) = 0;
  std::string anchor_line_ ABSL_GUARDED_BY(mu_);
  bool look_for_old_ ABSL_GUARDED_BY(mu_) = true;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  system_clock::time_point failed_at_ ABSL_GUARDED_BY(mu_);
  uint64_t refused_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t dropped_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<AuditEvent> kept_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread flusher_;
};

}  // namespace

std::string CheckpointMessage(uint64_t seq, std::string_view prev) {
  return fmt::format("creel record checkpoint 1\n{}\n{}\n", seq, prev);
}

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(Options options, const Clock& clock) {
  if (::mkdir(options.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("make the record's folder '{}'", options.directory));
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const SigningKey> key,
                   SigningKey::LoadOrMake(options.directory));
  ASSIGN_OR_RETURN(RecordStart start, FindStart(options.directory, options.known_head));
  auto log = std::make_unique<FileAuditLog>(std::move(options), std::move(key), clock);
  RETURN_IF_ERROR(log->Begin(std::move(start)));
  return log;
}

}  // namespace creel
