#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "creel/shim/v1/process.pb.h"
#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/sandbox/output_log.h"
#include "supervisor/sandbox/remote_process.h"

namespace creel {

// How a command ended, in a few words for the record: `exit 0`, `signal 9, timed out`, `lost: …`.
std::string ExitText(const shim::v1::Exit& exit);

// The commands of one sandbox that run or are remembered. Thread-safe.
class ProcessTable {
 public:
  struct Options {
    std::string spool_dir;  // for output that memory does not hold; files there have no name
    uint64_t spool_bytes = 16u << 20;         // per process
    uint64_t total_spool_bytes = 128u << 20;  // of ended processes; the oldest are forgotten first
    size_t remembered = 64;                   // ended processes kept
    size_t max_running = 512;
  };

  explicit ProcessTable(Options options);
  ~ProcessTable();
  ProcessTable(const ProcessTable&) = delete;
  ProcessTable& operator=(const ProcessTable&) = delete;

  // Starts a command through `stub`. An empty id is made up. Never fails here; WhenStarted tells.
  std::shared_ptr<RemoteProcess> Start(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                                       std::string process_id, shim::v1::CommandSpec spec);
  // Attaches to a command that the shim ran before this table was made.
  std::shared_ptr<RemoteProcess> Adopt(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                                       const shim::v1::ProcessInfo& info);
  // Null if there is none.
  [[nodiscard]] std::shared_ptr<RemoteProcess> Find(const std::string& process_id) const;
  [[nodiscard]] std::vector<shim::v1::ProcessInfo> List() const;
  [[nodiscard]] size_t running() const;

  // `ended` is told of every command that was begun and has ended, with what it wrote, from any
  // thread; it must not call back into the table. Replaces the one before.
  using EndListener = std::function<void(const shim::v1::ProcessInfo&, const OutputLog::Digest&)>;
  void OnEnded(EndListener ended);

  // The sandbox is gone: every running process ends for its readers with Exit.lost = `reason`.
  void LoseAll(const std::string& reason);
  // The link is back: running processes go on through `stub` from where they were. Without this a
  // process whose stream broke is given up as lost a second later.
  void Resume(std::shared_ptr<shim::v1::Shim::StubInterface> stub);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
