#include "supervisor/api/output_stream.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "supervisor/api/status_map.h"
#include "supervisor/api/stream_writer.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/mutex.h"

namespace creel {
namespace {

using shim::v1::Exit;
using shim::v1::Output;
using shim::v1::OutputGap;
using Response = operator_::v1::ReadOutputResponse;

constexpr size_t kMaxPiece = 64u << 10;
constexpr size_t kMaxText = 1024;

// One reader of a process's output, one message after the other was taken. The process wakes it
// from any thread; what may call back is called without the lock.
class OutputStream final : public StreamWriter<Response> {
 public:
  OutputStream(std::shared_ptr<RemoteProcess> process,
               const operator_::v1::ReadOutputRequest& request)
      : process_(std::move(process)), follow_(request.follow()) {
    shim::v1::ProcessInfo info = process_->Info();
    offset_ = request.offset();
    if (request.last_bytes() > 0) {
      const uint64_t end = info.output_end();
      offset_ = std::max(offset_, end - std::min(end, request.last_bytes()));
    }
    // Whoever reads the output knows the command; its variables may hold what is nobody's business.
    info.mutable_spec()->clear_env();
    *started_.emplace().mutable_event()->mutable_started() = std::move(info);
  }

  void Begin() override { Pump(); }
  void OnTaken() override { Pump(); }

 private:
  // Writes what comes next, if there is something and nothing is being written.
  void Pump() {
    bool more = true;
    while (more) {
      uint64_t offset = 0;
      {
        MutexLock lock(mu_);
        if (Busy()) {
          return;
        }
        if (pumping_) {
          again_ = true;
          return;
        }
        if (started_.has_value()) {
          Write(*started_);
          started_.reset();
          return;
        }
        if (piece_ != nullptr) {
          WritePieceLocked();
          return;
        }
        pumping_ = true;
        again_ = false;
        offset = offset_;
      }
      more = Take(process_->Read(offset, [weak = weak_from_this(), this] {
        if (const auto self = weak.lock()) {
          Pump();
        }
      }));
    }
  }

  // Returns whether to look for more at once.
  bool Take(RemoteProcess::Next next) {
    std::optional<grpc::Status> over;
    bool again = false;
    {
      MutexLock lock(mu_);
      pumping_ = false;
      if (std::holds_alternative<RemoteProcess::Pending>(next)) {
        if (follow_) {
          again = again_;
        } else {
          over = grpc::Status::OK;
        }
      } else if (const auto* failure = std::get_if<absl::Status>(&next)) {
        over = ToGrpc(*failure);
      } else if (auto* exit = std::get_if<Exit>(&next)) {
        if (exit->has_start_failure()) {
          auto& message = *exit->mutable_start_failure()->mutable_message();
          message = Printable(message, kMaxText);
        } else if (exit->how_case() == Exit::kLost) {
          exit->set_lost(Printable(exit->lost(), kMaxText));
        }
        Response response;
        *response.mutable_event()->mutable_exit() = std::move(*exit);
        WriteLast(response);
      } else if (auto* gap = std::get_if<OutputGap>(&next)) {
        Response response;
        *response.mutable_event()->mutable_gap() = *gap;
        offset_ = gap->to();
        Write(response);
      } else {
        piece_ = std::get<std::shared_ptr<const Output>>(std::move(next));
        WritePieceLocked();
      }
    }
    if (over.has_value()) {
      End(*over);
    }
    return again;
  }

  // The next 64 KiB of what was read.
  void WritePieceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint64_t at = offset_ - std::min(offset_, piece_->offset());
    const std::string_view data = piece_->data();
    const std::string_view rest = data.substr(std::min<uint64_t>(at, data.size()));
    const std::string_view now = rest.substr(0, kMaxPiece);
    Response response;
    Output& output = *response.mutable_event()->mutable_output();
    output.set_stream(piece_->stream());
    output.set_offset(offset_);
    output.set_data(std::string(now));
    offset_ += now.size();
    if (now.size() == rest.size()) {
      piece_ = nullptr;
    }
    Write(response);
  }

  const std::shared_ptr<RemoteProcess> process_;
  const bool follow_;

  Mutex mu_;
  std::optional<Response> started_ ABSL_GUARDED_BY(mu_);  // to be written first
  std::shared_ptr<const Output> piece_ ABSL_GUARDED_BY(mu_);
  uint64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  bool pumping_ ABSL_GUARDED_BY(mu_) = false;
  bool again_ ABSL_GUARDED_BY(mu_) = false;  // woken while pumping
};

class Refusal final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit Refusal(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerWriteReactor<Response>* ServeOutput(std::shared_ptr<RemoteProcess> process,
                                                const operator_::v1::ReadOutputRequest& request) {
  auto stream = std::make_shared<OutputStream>(std::move(process), request);
  stream->Run();
  return stream.get();
}

grpc::ServerWriteReactor<Response>* RefuseOutput(const grpc::Status& status) {
  return new Refusal(status);
}

}  // namespace creel
