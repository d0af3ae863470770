#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"

namespace creel {

// All output of one process as far as it is kept: the newest in memory, older in a ring file of
// bounded size, addressed by offset (see creel.shim.v1.Output). Any number of readers, each at its
// own pace; none holds up another. Thread-safe.
class OutputLog {
 public:
  struct Options {
    std::string file;                  // made when memory no longer holds the output; removed with
                                       // the log. Empty: memory only
    uint64_t file_bytes = 16u << 20;   // what the ring file keeps
    uint64_t memory_bytes = 1u << 20;  // what memory keeps
  };

  // Nothing yet: `wake` will be called once, from any thread, when there is more or the end.
  struct Pending {};
  // The end; nothing more will come at or after this offset.
  struct End {};
  using Next = std::variant<Pending, End, std::shared_ptr<const shim::v1::Output>,
                            shim::v1::OutputGap>;

  explicit OutputLog(Options options);
  ~OutputLog();
  OutputLog(const OutputLog&) = delete;
  OutputLog& operator=(const OutputLog&) = delete;

  // Adds output whose offset must be the present end; a higher offset leaves a gap, a lower part is
  // cut off. Never blocks on a reader. Disk trouble (kResourceExhausted) drops the oldest instead.
  absl::Status Append(shim::v1::Output output);
  // What was lost before it got here.
  void AppendGap(uint64_t from, uint64_t to);
  void Close();

  // What comes next for a reader at `offset`. `wake` is kept only when Pending is returned.
  Next Read(uint64_t offset, std::function<void()> wake);

  [[nodiscard]] uint64_t begin() const;
  [[nodiscard]] uint64_t end() const;

  // For Overflow BLOCK: true when a reader at `reader_offset` would lose bytes if `more` came.
  [[nodiscard]] bool WouldLose(uint64_t reader_offset, uint64_t more) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
