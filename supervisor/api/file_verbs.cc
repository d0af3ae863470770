// The file calls of GatewayService: each names the shim's verb it is carried on to, what a person
// wants to see of it, and how an answer is passed on.

#include <cstdint>
#include <string>
#include <utility>

#include "supervisor/api/forward_download.h"
#include "supervisor/api/forward_unary.h"
#include "supervisor/api/forward_upload.h"
#include "supervisor/api/gateway_service.h"
#include "supervisor/api/tool_call.h"

namespace creel {
namespace {

namespace g = gateway::v1;
namespace s = shim::v1;
using Async = ForwardedCall::Async;

constexpr size_t kMaxPiece = 1u << 20;
constexpr int kMaxEmptyPieces = 1000;

std::string FromTo(const std::string& source, const std::string& destination) {
  return source + " -> " + destination;
}

// Bounds what a shim may send in answer to one request. A shim of ours keeps within it; another
// would send for ever.
class Budget {
 public:
  // `most` things in all; zero means any number.
  explicit Budget(uint64_t most) : most_(most) {}

  absl::Status Take(uint64_t things) {
    taken_ += things;
    empty_ = things == 0 ? empty_ + 1 : 0;
    if ((most_ != 0 && taken_ > most_) || empty_ > kMaxEmptyPieces) {
      return absl::InternalError("the sandbox's shim sent more than it was asked for");
    }
    return absl::OkStatus();
  }

 private:
  uint64_t most_;
  uint64_t taken_ = 0;
  int empty_ = 0;
};

// `a` or, if that is zero, `b`.
uint64_t Or(uint64_t a, uint64_t b) { return a != 0 ? a : b; }

absl::Status PieceTooLarge() {
  return absl::InternalError("the sandbox's shim sent a piece of more than 1 MiB");
}

}  // namespace

grpc::ServerUnaryReactor* GatewayService::Stat(grpc::CallbackServerContext* context,
                                               const g::StatRequest* request,
                                               g::StatResponse* response) {
  return ForwardUnary(*context, *request, response, gate_,
                      MakeToolCall(request->context(), "stat", request->args().path()),
                      &Async::Stat, [](s::StatResponse& from, g::StatResponse& to) {
                        to.mutable_info()->Swap(from.mutable_info());
                      });
}

grpc::ServerWriteReactor<g::ReadFileResponse>* GatewayService::ReadFile(
    grpc::CallbackServerContext* context, const g::ReadFileRequest* request) {
  return ForwardDownload<g::ReadFileResponse>(
      *context, *request, gate_, MakeToolCall(request->context(), "read", request->args().path()),
      &Async::ReadFile,
      [budget = Budget(request->args().length())](s::ReadFileResponse& from,
                                                  g::ReadFileResponse& to) mutable {
        if (from.chunk().data().size() > kMaxPiece) {
          return PieceTooLarge();
        }
        to.mutable_chunk()->Swap(from.mutable_chunk());
        return budget.Take(to.chunk().data().size());
      });
}

grpc::ServerReadReactor<g::WriteFileRequest>* GatewayService::WriteFile(
    grpc::CallbackServerContext* context, g::WriteFileResponse* response) {
  return ForwardUpload<g::WriteFileRequest>(
      *context, response, gate_,
      [](const g::WriteFileRequest& first) {
        return MakeToolCall(first.start().context(), "write", first.start().args().path());
      },
      &Async::WriteFile,
      [](s::WriteFileResponse& from, g::WriteFileResponse& to) {
        to.mutable_result()->Swap(from.mutable_result());
      });
}

grpc::ServerUnaryReactor* GatewayService::EditFile(grpc::CallbackServerContext* context,
                                                   const g::EditFileRequest* request,
                                                   g::EditFileResponse* response) {
  return ForwardUnary(*context, *request, response, gate_,
                      MakeToolCall(request->context(), "edit", request->args().path()),
                      &Async::EditFile, [](s::EditFileResponse& from, g::EditFileResponse& to) {
                        to.mutable_result()->Swap(from.mutable_result());
                      });
}

grpc::ServerWriteReactor<g::ListDirectoryResponse>* GatewayService::ListDirectory(
    grpc::CallbackServerContext* context, const g::ListDirectoryRequest* request) {
  return ForwardDownload<g::ListDirectoryResponse>(
      *context, *request, gate_, MakeToolCall(request->context(), "list", request->args().path()),
      &Async::ListDirectory,
      [budget = Budget(Or(request->args().max_entries(), 100'000))](
          s::ListDirectoryResponse& from, g::ListDirectoryResponse& to) mutable {
        to.mutable_batch()->Swap(from.mutable_batch());
        return budget.Take(to.batch().entries_size());
      });
}

grpc::ServerUnaryReactor* GatewayService::MakeDirectory(grpc::CallbackServerContext* context,
                                                        const g::MakeDirectoryRequest* request,
                                                        g::MakeDirectoryResponse* response) {
  return ForwardUnary(*context, *request, response, gate_,
                      MakeToolCall(request->context(), "mkdir", request->args().path()),
                      &Async::MakeDirectory,
                      [](s::MakeDirectoryResponse& from, g::MakeDirectoryResponse& to) {
                        to.set_created(from.created());
                      });
}

grpc::ServerUnaryReactor* GatewayService::Move(grpc::CallbackServerContext* context,
                                               const g::MoveRequest* request,
                                               g::MoveResponse* response) {
  return ForwardUnary(*context, *request, response, gate_,
                      MakeToolCall(request->context(), "move",
                                   FromTo(request->args().source(), request->args().destination())),
                      &Async::Move, [](s::MoveResponse& /*from*/, g::MoveResponse& /*to*/) {});
}

grpc::ServerUnaryReactor* GatewayService::Copy(grpc::CallbackServerContext* context,
                                               const g::CopyRequest* request,
                                               g::CopyResponse* response) {
  return ForwardUnary(*context, *request, response, gate_,
                      MakeToolCall(request->context(), "copy",
                                   FromTo(request->args().source(), request->args().destination())),
                      &Async::Copy, [](s::CopyResponse& from, g::CopyResponse& to) {
                        to.set_entries(from.entries());
                        to.set_bytes(from.bytes());
                      });
}

grpc::ServerUnaryReactor* GatewayService::Remove(grpc::CallbackServerContext* context,
                                                 const g::RemoveRequest* request,
                                                 g::RemoveResponse* response) {
  return ForwardUnary(
      *context, *request, response, gate_,
      MakeToolCall(request->context(), "remove", request->args().path()), &Async::Remove,
      [](s::RemoveResponse& from, g::RemoveResponse& to) { to.set_entries(from.entries()); });
}

grpc::ServerWriteReactor<g::GlobResponse>* GatewayService::Glob(
    grpc::CallbackServerContext* context, const g::GlobRequest* request) {
  return ForwardDownload<g::GlobResponse>(
      *context, *request, gate_,
      MakeToolCall(request->context(), "glob", request->args().pattern()), &Async::Glob,
      [budget = Budget(Or(request->args().max_entries(), 10'000))](s::GlobResponse& from,
                                                                   g::GlobResponse& to) mutable {
        to.mutable_batch()->Swap(from.mutable_batch());
        return budget.Take(to.batch().entries_size());
      });
}

grpc::ServerWriteReactor<g::GrepResponse>* GatewayService::Grep(
    grpc::CallbackServerContext* context, const g::GrepRequest* request) {
  // Every match brings at most its context before and after.
  const uint64_t lines =
      Or(request->args().max_matches(), 1000) * (1 + 2 * uint64_t{request->args().context()});
  return ForwardDownload<g::GrepResponse>(
      *context, *request, gate_,
      MakeToolCall(request->context(), "grep", request->args().pattern()), &Async::Grep,
      [budget = Budget(lines)](s::GrepResponse& from, g::GrepResponse& to) mutable {
        to.mutable_batch()->Swap(from.mutable_batch());
        return budget.Take(to.batch().matches_size());
      });
}

grpc::ServerWriteReactor<g::WatchResponse>* GatewayService::Watch(
    grpc::CallbackServerContext* context, const g::WatchRequest* request) {
  return ForwardDownload<g::WatchResponse>(
      *context, *request, gate_, MakeToolCall(request->context(), "watch", request->args().path()),
      &Async::Watch, [](s::WatchResponse& from, g::WatchResponse& to) {
        to.mutable_event()->Swap(from.mutable_event());
        return absl::OkStatus();
      });
}

grpc::ServerWriteReactor<g::TarOutResponse>* GatewayService::TarOut(
    grpc::CallbackServerContext* context, const g::TarOutRequest* request) {
  return ForwardDownload<g::TarOutResponse>(
      *context, *request, gate_,
      MakeToolCall(request->context(), "tar-out", request->args().path()), &Async::TarOut,
      [budget = Budget(0)](s::TarOutResponse& from, g::TarOutResponse& to) mutable {
        if (from.data().size() > kMaxPiece) {
          return PieceTooLarge();
        }
        to.mutable_data()->swap(*from.mutable_data());
        return budget.Take(to.data().size());
      });
}

grpc::ServerReadReactor<g::TarInRequest>* GatewayService::TarIn(
    grpc::CallbackServerContext* context, g::TarInResponse* response) {
  return ForwardUpload<g::TarInRequest>(
      *context, response, gate_,
      [](const g::TarInRequest& first) {
        return MakeToolCall(first.start().context(), "tar-in", first.start().args().path());
      },
      &Async::TarIn,
      [](s::TarInResponse& from, g::TarInResponse& to) {
        to.mutable_result()->Swap(from.mutable_result());
      });
}

}  // namespace creel
