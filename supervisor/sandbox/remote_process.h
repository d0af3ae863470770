#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "creel/shim/v1/process.pb.h"
#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/output_log.h"

namespace creel {

// One command in a sandbox, as the supervisor sees it: reads all its output as it comes, keeps it in
// an OutputLog, and hands it to any number of readers. It outlives its readers and is held by the
// sandbox's ProcessTable. Thread-safe; nothing here blocks.
class RemoteProcess : public std::enable_shared_from_this<RemoteProcess> {
 public:
  virtual ~RemoteProcess() = default;

  struct Pending {};
  // What a reader at an offset gets next. After all output comes the exit, once it is known; a
  // status instead of it when the call to the shim itself failed (bad command, id in use).
  using Next = std::variant<Pending, std::shared_ptr<const shim::v1::Output>, shim::v1::OutputGap,
                            shim::v1::Exit, absl::Status>;

  // Calls `done` once, from any thread or before returning, when the process has started (with its
  // info) or was refused.
  virtual void WhenStarted(std::function<void(absl::StatusOr<shim::v1::ProcessInfo>)> done) = 0;

  // `wake` is called once, from any thread, if Pending is returned.
  virtual Next Read(uint64_t offset, std::function<void()> wake) = 0;

  // For OVERFLOW_BLOCK: the reader that must not lose anything stands at `offset`. Called as it
  // goes on; ReleaseReader when it goes away (the command then goes on as with DROP_OLDEST).
  virtual void ReaderAt(uint64_t offset) = 0;
  virtual void ReleaseReader() = 0;

  // Queues input. `done` is called once, when the shim's transport has taken it, so that a caller
  // that waits for it never piles up more than one piece.
  virtual void Send(shim::v1::ProcessInput input, std::function<void(absl::Status)> done) = 0;

  // Runs the kill ladder; does not wait. The exit comes to the readers.
  virtual void Stop() = 0;

  [[nodiscard]] virtual shim::v1::ProcessInfo Info() const = 0;
};

// The commands of one sandbox that run or are remembered. Thread-safe.
class ProcessTable {
 public:
  struct Options {
    std::string spool_dir;  // must exist; one file per process with much output
    uint64_t spool_bytes = 16u << 20;
    size_t remembered = 64;  // ended processes kept
    size_t max_running = 512;
  };

  explicit ProcessTable(Options options);
  ~ProcessTable();

  // Starts a command through `stub`. An empty id is made up. Never fails here; WhenStarted tells.
  std::shared_ptr<RemoteProcess> Start(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                                       std::string process_id, shim::v1::CommandSpec spec);
  // Attaches to a command that runs in the shim since before a restart.
  std::shared_ptr<RemoteProcess> Adopt(std::shared_ptr<shim::v1::Shim::StubInterface> stub,
                                       const shim::v1::ProcessInfo& info);
  std::shared_ptr<RemoteProcess> Find(const std::string& process_id) const;
  [[nodiscard]] std::vector<shim::v1::ProcessInfo> List() const;
  [[nodiscard]] size_t running() const;

  // The link broke: every running process ends for its readers with Exit.lost = `reason`.
  void LoseAll(const std::string& reason);
  // The link broke but the shim lives and will be back: processes stay as they are, and go on
  // through `stub` from where they were.
  void Resume(std::shared_ptr<shim::v1::Shim::StubInterface> stub);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace creel
