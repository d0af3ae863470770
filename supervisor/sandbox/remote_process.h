#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <variant>

#include "creel/shim/v1/process.pb.h"
#include "supervisor/base/status.h"

namespace creel {

// One command in a sandbox, as the supervisor sees it: reads all its output as it comes, keeps it in
// an OutputLog, and hands it to any number of readers. It outlives its readers and is held by the
// sandbox's ProcessTable. Thread-safe; nothing here blocks.
class RemoteProcess {
 public:
  struct Pending {};
  // What a reader at an offset gets next. After all output comes the exit, once it is known; a
  // status instead of it when the shim refused the call (bad command, id in use).
  using Next = std::variant<Pending, std::shared_ptr<const shim::v1::Output>, shim::v1::OutputGap,
                            shim::v1::Exit, absl::Status>;

  virtual ~RemoteProcess() = default;

  // Calls `done` once, from any thread or before returning, when the process has started (with its
  // info) or was refused. A command that could not be started counts as started and ended.
  virtual void WhenStarted(std::function<void(absl::StatusOr<shim::v1::ProcessInfo>)> done) = 0;

  // `wake` is called once, from any thread, if Pending is returned.
  virtual Next Read(uint64_t offset, std::function<void()> wake) = 0;

  // For OVERFLOW_BLOCK: the reader that must not lose anything stands at `offset`. Called as it
  // goes on; ReleaseReader when it goes away (the command then goes on as with DROP_OLDEST).
  virtual void ReaderAt(uint64_t offset) = 0;
  virtual void ReleaseReader() = 0;

  // Queues input. `done` is called once, when the transport to the shim has taken it, so that a
  // caller that waits for it never piles up more than one piece.
  //   kFailedPrecondition  it has ended
  //   kUnavailable         the sandbox went away
  virtual void Send(shim::v1::ProcessInput input, std::function<void(absl::Status)> done) = 0;

  // Runs the kill ladder; does not wait. The exit comes to the readers.
  virtual void Stop() = 0;

  [[nodiscard]] virtual shim::v1::ProcessInfo Info() const = 0;
};

}  // namespace creel
