#include "supervisor/sandbox/output_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

using shim::v1::Output;
using shim::v1::OutputGap;
using shim::v1::OutputStream;

// What a chunk costs besides its bytes, so that a command that writes byte by byte is bounded too.
constexpr uint64_t kChunkOverhead = 160;
// Pieces of one stream that the ring file remembers; bounds a command that alternates its streams.
constexpr size_t kMaxPieces = 1u << 14;
// Read back from the ring file at once.
constexpr uint64_t kReadBack = 256u << 10;
// Kept in memory after the end.
constexpr uint64_t kRestInMemory = 16u << 10;
// Bytes that may wait to be summed and spilled before whoever brings more has to wait for that.
constexpr uint64_t kMaxUnsettled = 2u << 20;
// Of the beginning, for the record: what it shows and as much as a secret at its end may take.
constexpr size_t kHead = 4096;
// No process makes more than this; an offset that jumps further is a lie.
constexpr uint64_t kMaxOffset = 1ull << 56;

// A run of bytes of one stream in the ring file, at `offset` modulo the file's size.
struct Piece {
  uint64_t offset;
  uint64_t length;
  OutputStream stream;
  [[nodiscard]] uint64_t end() const { return offset + length; }
};

bool PwriteAll(int fd, const char* data, size_t size, off_t at) {
  while (size > 0) {
    const ssize_t written = pwrite(fd, data, size, at);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return false;
    }
    data += written;
    size -= static_cast<size_t>(written);
    at += written;
  }
  return true;
}

}  // namespace

struct OutputLog::Impl {
  explicit Impl(Options given) : options(std::move(given)) {}

  Options options;
  mutable Mutex mu;
  std::deque<std::shared_ptr<const Output>> chunks ABSL_GUARDED_BY(mu);
  uint64_t memory_used ABSL_GUARDED_BY(mu) = 0;
  UniqueFd ring ABSL_GUARDED_BY(mu);
  bool ring_failed ABSL_GUARDED_BY(mu) = false;
  std::deque<Piece> pieces ABSL_GUARDED_BY(mu);
  uint64_t end ABSL_GUARDED_BY(mu) = 0;
  uint64_t disk ABSL_GUARDED_BY(mu) = 0;
  bool closed ABSL_GUARDED_BY(mu) = false;
  // What Settle has to look at yet, in its order.
  std::deque<std::shared_ptr<const Output>> unsettled ABSL_GUARDED_BY(mu);
  uint64_t unsettled_bytes ABSL_GUARDED_BY(mu) = 0;
  bool settling ABSL_GUARDED_BY(mu) = false;
  // A lock of its own, so that readers do not wait for the sums.
  Mutex digest_mu;
  bool digest_taken ABSL_GUARDED_BY(digest_mu) = false;
  Sha256 sum ABSL_GUARDED_BY(digest_mu);
  std::string head ABSL_GUARDED_BY(digest_mu);
  uint64_t summed ABSL_GUARDED_BY(digest_mu) = 0;
  std::vector<std::function<void()>> waiting ABSL_GUARDED_BY(mu);

  [[nodiscard]] uint64_t RingBytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return ring_failed || options.directory.empty() ? 0 : options.file_bytes;
  }

  [[nodiscard]] uint64_t BeginLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    if (!pieces.empty()) {
      return pieces.front().offset;
    }
    return chunks.empty() ? end : chunks.front()->offset();
  }

  // Moves the oldest chunk to the ring file, or drops it where there is none.
  void SpillOldestLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const std::shared_ptr<const Output> chunk = chunks.front();
    chunks.pop_front();
    memory_used -= chunk->data().size() + kChunkOverhead;
    if (RingBytesLocked() == 0 || chunk->data().size() > options.file_bytes) {
      pieces.clear();  // what is older than a hole is not kept: readers see one gap
      return;
    }
    if (!ring.valid()) {
      ring.reset(open(options.directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    }
    if (!ring.valid() || !WriteRingLocked(*chunk)) {
      ring_failed = true;
      ring.reset();
      pieces.clear();
      disk = 0;
    }
  }

  bool WriteRingLocked(const Output& chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const uint64_t size = chunk.data().size();
    const uint64_t keep_from =
        chunk.offset() + size > options.file_bytes ? chunk.offset() + size - options.file_bytes : 0;
    while (!pieces.empty() && pieces.front().offset < keep_from) {
      Piece& oldest = pieces.front();
      if (oldest.end() <= keep_from) {
        pieces.pop_front();
        continue;
      }
      oldest.length = oldest.end() - keep_from;
      oldest.offset = keep_from;
    }
    uint64_t done = 0;
    while (done < size) {
      const uint64_t at = (chunk.offset() + done) % options.file_bytes;
      const uint64_t part = std::min(size - done, options.file_bytes - at);
      if (!PwriteAll(ring.get(), chunk.data().data() + done, part, static_cast<off_t>(at))) {
        return false;
      }
      disk = std::max(disk, at + part);
      done += part;
    }
    if (!pieces.empty() && pieces.back().stream == chunk.stream() &&
        pieces.back().end() == chunk.offset()) {
      pieces.back().length += size;
    } else {
      pieces.push_back({chunk.offset(), size, chunk.stream()});
    }
    while (pieces.size() > kMaxPieces) {
      pieces.pop_front();
    }
    return true;
  }

  // Waits for whoever is at it.
  void SettleAll() {
    MutexLock digest(digest_mu);
    for (;;) {
      std::shared_ptr<const Output> next;
      {
        MutexLock lock(mu);
        while (memory_used > options.memory_bytes && chunks.size() > 1) {
          SpillOldestLocked();
        }
        if (unsettled.empty()) {
          break;
        }
        next = std::move(unsettled.front());
        unsettled.pop_front();
        unsettled_bytes -= next->data().size();
      }
      if (digest_taken) {
        continue;
      }
      sum.Update(next->data());
      summed += next->data().size();
      if (head.size() < kHead) {
        head.append(next->data(), 0, kHead - head.size());
      }
    }
  }

  // The piece or chunk that holds `offset` or the first one after it.
  Next FindLocked(uint64_t offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const auto piece =
        std::lower_bound(pieces.begin(), pieces.end(), offset,
                         [](const Piece& p, uint64_t wanted) { return p.end() <= wanted; });
    if (piece != pieces.end()) {
      if (piece->offset > offset) {
        return Gap(offset, piece->offset);
      }
      return ReadBackLocked(*piece, offset);
    }
    const auto chunk = std::lower_bound(
        chunks.begin(), chunks.end(), offset,
        [](const auto& c, uint64_t wanted) { return c->offset() + c->data().size() <= wanted; });
    if (chunk == chunks.end()) {
      return Gap(offset, end);
    }
    if ((*chunk)->offset() > offset) {
      return Gap(offset, (*chunk)->offset());
    }
    if ((*chunk)->offset() == offset) {
      return *chunk;
    }
    auto rest = std::make_shared<Output>();
    rest->set_stream((*chunk)->stream());
    rest->set_offset(offset);
    rest->set_data((*chunk)->data().substr(offset - (*chunk)->offset()));
    return std::shared_ptr<const Output>(std::move(rest));
  }

  Next ReadBackLocked(const Piece& piece, uint64_t offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const uint64_t at = offset % options.file_bytes;
    const uint64_t size = std::min({piece.end() - offset, kReadBack, options.file_bytes - at});
    std::string data(size, '\0');
    uint64_t done = 0;
    while (done < size) {
      const ssize_t got =
          pread(ring.get(), data.data() + done, size - done, static_cast<off_t>(at + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        return Gap(offset, piece.end());
      }
      done += static_cast<uint64_t>(got);
    }
    auto output = std::make_shared<Output>();
    output->set_stream(piece.stream);
    output->set_offset(offset);
    output->set_data(std::move(data));
    return std::shared_ptr<const Output>(std::move(output));
  }

  static OutputGap Gap(uint64_t from, uint64_t to) {
    OutputGap gap;
    gap.set_from(from);
    gap.set_to(to);
    return gap;
  }
};

OutputLog::OutputLog(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}

OutputLog::~OutputLog() = default;

absl::Status OutputLog::Append(Output output) {
  std::vector<std::function<void()>> wake;
  bool behind = false;
  {
    MutexLock lock(impl_->mu);
    const uint64_t size = output.data().size();
    if (output.offset() > kMaxOffset || size > kMaxOffset) {
      return absl::InvalidArgumentError(
          fmt::format("output at offset {} is impossible", output.offset()));
    }
    const uint64_t output_end = output.offset() + size;
    if (impl_->closed || output_end <= impl_->end) {
      return absl::OkStatus();
    }
    if (output.offset() < impl_->end) {
      output.mutable_data()->erase(0, impl_->end - output.offset());
      output.set_offset(impl_->end);
    }
    impl_->end = output_end;
    impl_->memory_used += output.data().size() + kChunkOverhead;
    impl_->chunks.push_back(std::make_shared<const Output>(std::move(output)));
    impl_->unsettled.push_back(impl_->chunks.back());
    impl_->unsettled_bytes += size;
    behind = impl_->unsettled_bytes > kMaxUnsettled;
    wake.swap(impl_->waiting);
  }
  for (const auto& call : wake) {
    call();
  }
  if (behind) {
    impl_->SettleAll();
  }
  return absl::OkStatus();
}

void OutputLog::Settle() {
  {
    MutexLock lock(impl_->mu);
    if (std::exchange(impl_->settling, true)) {
      return;  // whoever is at it takes this too
    }
  }
  for (;;) {
    impl_->SettleAll();
    MutexLock lock(impl_->mu);
    if (impl_->unsettled.empty()) {
      impl_->settling = false;
      return;
    }
  }
}

absl::Status OutputLog::AppendGap(uint64_t to) {
  std::vector<std::function<void()>> wake;
  {
    MutexLock lock(impl_->mu);
    if (to > kMaxOffset) {
      return absl::InvalidArgumentError(fmt::format("a gap up to offset {} is impossible", to));
    }
    if (impl_->closed || to <= impl_->end) {
      return absl::OkStatus();
    }
    impl_->end = to;
    wake.swap(impl_->waiting);
  }
  for (const auto& call : wake) {
    call();
  }
  return absl::OkStatus();
}

void OutputLog::Close() {
  std::vector<std::function<void()>> wake;
  {
    MutexLock lock(impl_->mu);
    impl_->closed = true;
    while (impl_->memory_used > kRestInMemory && impl_->RingBytesLocked() > 0 &&
           !impl_->chunks.empty()) {
      impl_->SpillOldestLocked();
    }
    wake.swap(impl_->waiting);
  }
  for (const auto& call : wake) {
    call();
  }
}

OutputLog::Next OutputLog::Read(uint64_t offset, std::function<void()> wake) {
  MutexLock lock(impl_->mu);
  if (offset < impl_->end) {
    return impl_->FindLocked(offset);
  }
  if (impl_->closed) {
    return End{};
  }
  impl_->waiting.push_back(std::move(wake));
  return Pending{};
}

uint64_t OutputLog::begin() const {
  MutexLock lock(impl_->mu);
  return impl_->BeginLocked();
}

uint64_t OutputLog::end() const {
  MutexLock lock(impl_->mu);
  return impl_->end;
}

OutputLog::Digest OutputLog::TakeDigest() {
  impl_->SettleAll();
  const uint64_t bytes = end();
  MutexLock digest(impl_->digest_mu);
  if (std::exchange(impl_->digest_taken, true)) {
    return {};
  }
  return {.bytes = bytes,
          .missed = bytes - impl_->summed,
          .sha256 = Hex(impl_->sum.Finish()),
          .head = std::move(impl_->head)};
}

bool OutputLog::WouldLose(uint64_t reader_offset, uint64_t more) const {
  MutexLock lock(impl_->mu);
  const uint64_t kept = std::max(impl_->RingBytesLocked(), impl_->options.memory_bytes / 2);
  return reader_offset < impl_->end && impl_->end - reader_offset + more > kept;
}

uint64_t OutputLog::disk_bytes() const {
  MutexLock lock(impl_->mu);
  return impl_->disk;
}

}  // namespace creel
