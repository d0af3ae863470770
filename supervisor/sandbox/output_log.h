#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/status.h"

namespace creel {

// All output of one process as far as it is kept: the newest in memory, older in a ring file of
// bounded size, addressed by offset (see creel.shim.v1.Output). Any number of readers, each at its
// own pace; none holds up another. Thread-safe.
class OutputLog {
 public:
  struct Options {
    // Where the ring file is made, without a name (O_TMPFILE), so that it cannot outlive the
    // process that holds it. Empty, or no place on the disk: memory only.
    std::string directory;
    uint64_t file_bytes = 16u << 20;
    uint64_t memory_bytes = 512u << 10;
  };

  // Nothing yet: `wake` will be called once, from any thread, when there is more or the end.
  struct Pending {};
  // The end; nothing more will come at or after this offset.
  struct End {};
  using Next =
      std::variant<Pending, End, std::shared_ptr<const shim::v1::Output>, shim::v1::OutputGap>;

  explicit OutputLog(Options options);
  ~OutputLog();
  OutputLog(const OutputLog&) = delete;
  OutputLog& operator=(const OutputLog&) = delete;

  // Adds output. A higher offset than the present end leaves a gap, a lower part is cut off. Never
  // waits for a reader; the oldest output makes room. kInvalidArgument: an offset that cannot be.
  absl::Status Append(shim::v1::Output output);
  // Sums what was added and moves to the disk what memory shall not keep: apart from Append, so that
  // neither readers nor whoever brings the next wait for it. Called after each Append, in any
  // thread.
  void Settle();
  // Output from the present end up to `to` was lost before it got here.
  absl::Status AppendGap(uint64_t to);
  // No more will come. Moves what memory holds to the ring file, but for a small rest.
  void Close();

  // What comes next for a reader at `offset`. `wake` is kept only when Pending is returned.
  Next Read(uint64_t offset, std::function<void()> wake);

  // Output from begin() up to end() may still be there.
  [[nodiscard]] uint64_t begin() const;
  [[nodiscard]] uint64_t end() const;
  // What came in all, as it is written down when the process has ended.
  struct Digest {
    uint64_t bytes = 0;
    uint64_t missed = 0;  // of these, bytes that never got here
    std::string sha256;   // over the others in their order, hex
    std::string head;     // the first bytes
  };
  // After Close, once.
  [[nodiscard]] Digest TakeDigest();
  // True when a reader at `reader_offset` would lose bytes if `more` came.
  [[nodiscard]] bool WouldLose(uint64_t reader_offset, uint64_t more) const;
  // Bytes of disk the ring file takes.
  [[nodiscard]] uint64_t disk_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
