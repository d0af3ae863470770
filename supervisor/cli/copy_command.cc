#include "supervisor/cli/copy_command.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "supervisor/cli/host_tree.h"
#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

using gateway::v1::Gateway;
using shim::v1::FileInfo;

constexpr size_t kPiece = 256u << 10;

struct Place {
  std::string session;
  std::string path;
};

// A session key holds colons, so that `:/` is what divides it from a path.
std::optional<Place> InSandbox(const std::string& argument) {
  const size_t at = argument.find(":/");
  if (at == std::string::npos || at == 0 || argument[0] == '/' || argument[0] == '.') {
    return std::nullopt;
  }
  return Place{argument.substr(0, at), argument.substr(at + 1)};
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::StatusOr<FileInfo> Stat(Gateway::Stub& stub, const Place& place) {
  grpc::ClientContext context;
  gateway::v1::StatRequest request;
  request.mutable_context()->set_session(place.session);
  request.mutable_args()->set_path(place.path);
  gateway::v1::StatResponse response;
  RETURN_IF_ERROR(ToStatus(stub.Stat(&context, request, &response)));
  return response.info();
}

// Copies `size` bytes of a file, or fewer if it has become shorter.
absl::Status Download(Gateway::Stub& stub, const Place& place, uint64_t size, int fd) {
  if (size == 0) {
    return absl::OkStatus();  // as a length, zero means all there is
  }
  grpc::ClientContext context;
  gateway::v1::ReadFileRequest request;
  request.mutable_context()->set_session(place.session);
  request.mutable_args()->set_path(place.path);
  request.mutable_args()->set_length(size);
  const auto reader = stub.ReadFile(&context, request);
  gateway::v1::ReadFileResponse response;
  while (reader->Read(&response)) {
    if (!WriteAll(fd, response.chunk().data())) {
      const int error = errno;
      context.TryCancel();
      static_cast<void>(reader->Finish());
      return ErrnoStatus(error, "write on the host");
    }
  }
  return ToStatus(reader->Finish());
}

absl::Status TooLarge(const Place& place, uint64_t max_bytes) {
  return absl::ResourceExhaustedError(fmt::format(
      "'{}' has more than {}; raise --max-size, or copy parts of it", place.path, Size(max_bytes)));
}

absl::Status DownloadTree(Gateway::Stub& stub, const Place& place, uint32_t mode,
                          uint64_t max_bytes, NewTree& tree) {
  RETURN_IF_ERROR(tree.MakeDirectory("", mode));
  grpc::ClientContext context;
  gateway::v1::ListDirectoryRequest request;
  request.mutable_context()->set_session(place.session);
  request.mutable_args()->set_path(place.path);
  request.mutable_args()->set_recursive(true);
  request.mutable_args()->set_max_entries(1'000'000);
  const auto reader = stub.ListDirectory(&context, request);
  std::vector<FileInfo> entries;
  bool truncated = false;
  gateway::v1::ListDirectoryResponse response;
  while (reader->Read(&response)) {
    truncated = truncated || response.batch().truncated();
    for (auto& each : *response.mutable_batch()->mutable_entries()) {
      entries.push_back(std::move(each));
    }
  }
  RETURN_IF_ERROR(ToStatus(reader->Finish()));
  if (truncated) {
    return absl::ResourceExhaustedError(fmt::format(
        "'{}' holds more than 1,000,000 entries; copy its folders one by one", place.path));
  }
  uint64_t bytes = 0;
  for (const FileInfo& entry : entries) {
    bytes += std::min(entry.size(), max_bytes + 1);
    if (entry.type() == shim::v1::FILE_TYPE_REGULAR && bytes > max_bytes) {
      return TooLarge(place, max_bytes);
    }
    switch (entry.type()) {
      case shim::v1::FILE_TYPE_DIRECTORY:
        RETURN_IF_ERROR(tree.MakeDirectory(entry.path(), entry.mode()));
        break;
      case shim::v1::FILE_TYPE_REGULAR: {
        ASSIGN_OR_RETURN(const UniqueFd fd, tree.MakeFile(entry.path(), entry.mode()));
        RETURN_IF_ERROR(Download(stub, {place.session, place.path + "/" + entry.path()},
                                 entry.size(), fd.get()));
        break;
      }
      case shim::v1::FILE_TYPE_SYMLINK:
        RETURN_IF_ERROR(tree.MakeLink(entry.path(), entry.link_target()));
        break;
      default:
        Fail(fmt::format("'{}' is neither file, folder nor link, and is left out", entry.path()));
    }
  }
  return absl::OkStatus();
}

// The last part of a path, whatever slashes and dots follow it.
std::string NameOf(const std::string& path) {
  const std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  return (clean.has_filename() ? clean : clean.parent_path()).filename().string();
}

absl::Status FromSandbox(Gateway::Stub& stub, const Place& place, const CopyOptions& options) {
  ASSIGN_OR_RETURN(const FileInfo info, Stat(stub, place));
  ASSIGN_OR_RETURN(NewTree tree, NewTree::Begin(options.destination, NameOf(place.path)));
  if (info.type() == shim::v1::FILE_TYPE_DIRECTORY) {
    RETURN_IF_ERROR(DownloadTree(stub, place, info.mode(), options.max_bytes, tree));
  } else if (info.size() > options.max_bytes) {
    return TooLarge(place, options.max_bytes);
  } else {
    ASSIGN_OR_RETURN(const UniqueFd fd, tree.MakeFile("", info.mode()));
    RETURN_IF_ERROR(Download(stub, place, info.size(), fd.get()));
  }
  RETURN_IF_ERROR(tree.Finish());
  if (tree.links_left_out() > 0) {
    return absl::FailedPreconditionError(
        fmt::format("{} links lead out of '{}' and were left out, as the sandbox may have made "
                    "them; all else is copied",
                    tree.links_left_out(), place.path));
  }
  return absl::OkStatus();
}

// As a tar stream to stdout, for `tar` to make of it what it is told.
absl::Status StreamOut(Gateway::Stub& stub, const Place& place) {
  grpc::ClientContext context;
  gateway::v1::TarOutRequest request;
  request.mutable_context()->set_session(place.session);
  request.mutable_args()->set_path(place.path);
  const auto reader = stub.TarOut(&context, request);
  gateway::v1::TarOutResponse response;
  while (reader->Read(&response)) {
    if (!WriteAll(STDOUT_FILENO, response.data())) {
      return ErrnoStatus(errno, "write the tar stream");
    }
  }
  return ToStatus(reader->Finish());
}

// Sends all that `fd` gives after the first message of an upload, and returns how the call ended.
template <class Request>
absl::Status Send(grpc::ClientContext& context, grpc::ClientWriter<Request>& writer,
                  Request& request, int fd) {
  bool open = writer.Write(request);
  std::string piece(kPiece, '\0');
  while (open) {
    const ssize_t got = read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      const int error = errno;
      context.TryCancel();
      static_cast<void>(writer.Finish());
      return ErrnoStatus(error, "read on the host");
    }
    if (got == 0) {
      writer.WritesDone();
      break;
    }
    request.set_data(piece.data(), static_cast<size_t>(got));
    open = writer.Write(request);
  }
  return ToStatus(writer.Finish());
}

absl::Status Upload(Gateway::Stub& stub, const Place& place, int fd, uint32_t mode) {
  grpc::ClientContext context;
  gateway::v1::WriteFileResponse response;
  const auto writer = stub.WriteFile(&context, &response);
  gateway::v1::WriteFileRequest request;
  request.mutable_start()->mutable_context()->set_session(place.session);
  request.mutable_start()->mutable_args()->set_path(place.path);
  request.mutable_start()->mutable_args()->set_mode(mode);
  return Send(context, *writer, request, fd);
}

// Unpacks a tar stream from stdin below a folder of the sandbox.
absl::Status StreamIn(Gateway::Stub& stub, const Place& place) {
  grpc::ClientContext context;
  gateway::v1::TarInResponse response;
  const auto writer = stub.TarIn(&context, &response);
  gateway::v1::TarInRequest request;
  request.mutable_start()->mutable_context()->set_session(place.session);
  request.mutable_start()->mutable_args()->set_path(place.path);
  RETURN_IF_ERROR(Send(context, *writer, request, STDIN_FILENO));
  if (response.result().entries_refused() > 0) {
    return absl::FailedPreconditionError(
        fmt::format("{} entries were devices or led outside, and were left out; {} are unpacked",
                    response.result().entries_refused(), response.result().entries()));
  }
  return absl::OkStatus();
}

absl::Status MakeDirectory(Gateway::Stub& stub, const Place& place, uint32_t mode) {
  grpc::ClientContext context;
  gateway::v1::MakeDirectoryRequest request;
  request.mutable_context()->set_session(place.session);
  request.mutable_args()->set_path(place.path);
  request.mutable_args()->set_parents(true);
  request.mutable_args()->set_mode(mode);
  gateway::v1::MakeDirectoryResponse response;
  return ToStatus(stub.MakeDirectory(&context, request, &response));
}

absl::Status IntoSandbox(Gateway::Stub& stub, const std::string& source, Place place) {
  const absl::StatusOr<FileInfo> there = Stat(stub, place);
  if (!there.ok() && there.status().code() != absl::StatusCode::kNotFound) {
    return there.status();
  }
  if (place.path.ends_with('/') || (there.ok() && there->type() == shim::v1::FILE_TYPE_DIRECTORY)) {
    std::error_code ignored;
    place.path += "/" + NameOf(std::filesystem::absolute(source, ignored).string());
  }
  uint64_t left_out = 0;
  RETURN_IF_ERROR(WalkHost(source, [&](HostEntry entry) -> absl::Status {
    const Place target{place.session,
                       entry.path.empty() ? place.path : place.path + "/" + entry.path};
    switch (entry.kind) {
      case HostEntry::Kind::kDirectory:
        return MakeDirectory(stub, target, entry.mode | 0700);
      case HostEntry::Kind::kFile:
        return Upload(stub, target, entry.file.get(), entry.mode);
      default:
        ++left_out;
        return absl::OkStatus();
    }
  }));
  if (left_out > 0) {
    return absl::FailedPreconditionError(
        fmt::format("{} links, sockets or devices were left out; all else is copied. For links: "
                    "tar -c {} | creel cp - SESSION:/path",
                    left_out, source));
  }
  return absl::OkStatus();
}

}  // namespace

int Copy(const Globals& globals, const CopyOptions& options) {
  const std::optional<Place> from = InSandbox(options.source);
  const std::optional<Place> to = InSandbox(options.destination);
  if (from.has_value() == to.has_value()) {
    return Fail("one side of a copy is a sandbox's, written SESSION:/path, and the other is here",
                2);
  }
  signal(SIGPIPE, SIG_IGN);
  const auto stub = ConnectGateway(globals);
  if (!stub.ok()) {
    return Fail(stub.status());
  }
  absl::Status status;
  if (from.has_value()) {
    status =
        options.destination == "-" ? StreamOut(**stub, *from) : FromSandbox(**stub, *from, options);
  } else {
    status =
        options.source == "-" ? StreamIn(**stub, *to) : IntoSandbox(**stub, options.source, *to);
  }
  return status.ok() ? 0 : Fail(status);
}

}  // namespace creel::cli
