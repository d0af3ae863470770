#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/sandbox/output_log.h"
#include "supervisor/sandbox/remote_process.h"

namespace creel {

class RunStream;

// A RemoteProcess on the shim's Run call. What the shim says is checked, as it may be hostile.
class ShimProcess final : public RemoteProcess, public std::enable_shared_from_this<ShimProcess> {
 public:
  using StubPtr = std::shared_ptr<shim::v1::Shim::StubInterface>;

  // `on_end` is called once, from any thread, when the process has ended or was refused, with what
  // became of it.
  using OnEnd = std::function<void(const shim::v1::ProcessInfo&, const OutputLog::Digest&)>;
  ShimProcess(shim::v1::ProcessInfo info, OutputLog::Options log, OnEnd on_end);
  // One that never reaches the shim.
  static std::shared_ptr<ShimProcess> Refused(shim::v1::ProcessInfo info, const absl::Status& why);

  void Start(StubPtr stub);
  void Attach(StubPtr stub, uint64_t offset);
  // Goes on through `stub` from where it was.
  void Resume(StubPtr stub);
  // Ends with Exit.lost.
  void Lose(const std::string& reason);

  [[nodiscard]] bool ended() const;
  [[nodiscard]] uint64_t disk_bytes() const { return log_.disk_bytes(); }

  void WhenStarted(std::function<void(absl::StatusOr<shim::v1::ProcessInfo>)> done) override;
  Next Read(uint64_t offset, std::function<void()> wake) override;
  void ReaderAt(uint64_t offset) override;
  void ReleaseReader() override;
  void Send(shim::v1::ProcessInput input, std::function<void(absl::Status)> done) override;
  void Stop() override;
  [[nodiscard]] shim::v1::ProcessInfo Info() const override;

 private:
  friend class RunStream;

  struct QueuedInput {
    shim::v1::ProcessInput input;
    std::function<void(absl::Status)> done;
  };

  // For the stream.

  // False: the event is not what a shim of ours sends; the stream is to be cancelled.
  [[nodiscard]] bool OnEvent(shim::v1::RunResponse& response);
  // Whether to read on now; else ReadOnIfPaused does it later.
  [[nodiscard]] bool MayReadOn();
  // What does not have to be done before the next read.
  void PutAway() { log_.Settle(); }
  void ReadOnIfPaused();
  void OnWritten(bool ok);
  void OnStreamDone(const grpc::Status& status);

  void Open(StubPtr stub, shim::v1::RunRequest first);
  // The stream to write the next input to, which is then reserved, and the input as a request; null
  // if there is nothing to write or a write is under way.
  RunStream* NextWriteLocked(shim::v1::RunRequest* request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CancelStream();
  void OnStarted(const shim::v1::ProcessInfo& told);
  void End(shim::v1::Exit exit, const absl::Status& failure);
  void WaitForResume();

  OutputLog log_;
  const OnEnd on_end_;
  mutable Mutex mu_;
  shim::v1::ProcessInfo info_ ABSL_GUARDED_BY(mu_);
  // Whether there is a reader of OVERFLOW_BLOCK, and where it stands.
  bool blocks_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t reader_offset_ ABSL_GUARDED_BY(mu_) = 0;
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_sent_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  std::vector<std::function<void(absl::StatusOr<shim::v1::ProcessInfo>)>> start_waiters_
      ABSL_GUARDED_BY(mu_);
  // Set until the stream's OnDone; it cannot be deleted while mu_ is held and this is set.
  RunStream* stream_ ABSL_GUARDED_BY(mu_) = nullptr;
  StubPtr resume_stub_ ABSL_GUARDED_BY(mu_);
  // Nothing is being read, as the reader of OVERFLOW_BLOCK is behind.
  bool paused_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<QueuedInput> inputs_ ABSL_GUARDED_BY(mu_);
  // Of the input that is being written.
  std::function<void(absl::Status)> written_done_ ABSL_GUARDED_BY(mu_);
  int empty_events_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace creel
