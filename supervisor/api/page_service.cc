#include "supervisor/api/page_service.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "supervisor/api/convert.h"
#include "supervisor/api/on_worker.h"
#include "supervisor/api/output_stream.h"
#include "supervisor/api/status_map.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kWithin{5};
constexpr size_t kMaxCommands = 600;
constexpr size_t kMaxWord = 1024;
constexpr int kMaxWords = 64;

// For recognising it: variables stay out, long words are cut.
void Trim(shim::v1::CommandSpec& spec) {
  spec.clear_env();
  if (spec.shell().size() > kMaxWord) {
    spec.set_shell(Printable(spec.shell(), kMaxWord));
  }
  if (spec.argv_size() > kMaxWords) {
    spec.mutable_argv()->DeleteSubrange(kMaxWords, spec.argv_size() - kMaxWords);
  }
  for (std::string& word : *spec.mutable_argv()) {
    if (word.size() > kMaxWord) {
      word = Printable(word, kMaxWord);
    }
  }
}

}  // namespace

PageService::PageService(SessionManager& sessions, Engine& engine, const std::string& workdir,
                         IncidentManager* incidents, const std::string& incidents_dir,
                         PageDoor door)
    : sessions_(sessions),
      incidents_(incidents),
      incidents_dir_(incidents_dir),
      door_(std::move(door)),
      meter_(engine, sessions, workdir) {}

grpc::ServerUnaryReactor* PageService::OpenPage(grpc::CallbackServerContext* context,
                                                const operator_::v1::OpenPageRequest* /*request*/,
                                                operator_::v1::OpenPageResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  absl::StatusOr<PageDoor::Address> address =
      absl::FailedPreconditionError("this supervisor serves no page");
  if (door_.open) {
    address = door_.open();
  }
  if (address.ok()) {
    response->set_url(address->url);
    *response->mutable_expires_at() = ToTimestamp(address->expires_at);
  }
  reactor->Finish(ToGrpc(address.status()));
  return reactor;
}

grpc::ServerUnaryReactor* PageService::ClosePage(grpc::CallbackServerContext* context,
                                                 const operator_::v1::ClosePageRequest* /*request*/,
                                                 operator_::v1::ClosePageResponse* /*response*/) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(door_.close
                             ? door_.close()
                             : absl::FailedPreconditionError("this supervisor serves no page")));
  return reactor;
}

grpc::ServerUnaryReactor* PageService::ListUsage(grpc::CallbackServerContext* context,
                                                 const operator_::v1::ListUsageRequest* /*request*/,
                                                 operator_::v1::ListUsageResponse* response) {
  return OnWorker(*context, measurers_, kWithin, [this, response](Deadline deadline) {
    *response = meter_.Measure(deadline);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* PageService::ListCommands(
    grpc::CallbackServerContext* context, const operator_::v1::ListCommandsRequest* request,
    operator_::v1::ListCommandsResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto sandbox = sessions_.Find(request->session());
  if (sandbox.ok()) {
    std::vector<shim::v1::ProcessInfo> commands = (*sandbox)->processes().List();
    std::stable_sort(commands.begin(), commands.end(), [](const auto& a, const auto& b) {
      return std::pair(a.started_at().seconds(), a.started_at().nanos()) <
             std::pair(b.started_at().seconds(), b.started_at().nanos());
    });
    const size_t skip = commands.size() - std::min(commands.size(), kMaxCommands);
    for (size_t i = skip; i < commands.size(); ++i) {
      Trim(*commands[i].mutable_spec());
      *response->add_commands() = std::move(commands[i]);
    }
  }
  reactor->Finish(ToGrpc(sandbox.status()));
  return reactor;
}

grpc::ServerWriteReactor<operator_::v1::ReadOutputResponse>* PageService::ReadOutput(
    grpc::CallbackServerContext* /*context*/, const operator_::v1::ReadOutputRequest* request) {
  const auto sandbox = sessions_.Find(request->session());
  if (!sandbox.ok()) {
    return RefuseOutput(ToGrpc(sandbox.status()));
  }
  auto process = (*sandbox)->processes().Find(request->process_id());
  if (process == nullptr) {
    return RefuseOutput(ToGrpc(absl::NotFoundError(
        "no command '" + Printable(request->process_id(), 64) +
        "' runs or is remembered in that session; creel logs SESSION lists those that do")));
  }
  return ServeOutput(std::move(process), *request);
}

grpc::ServerUnaryReactor* PageService::OpenBundle(grpc::CallbackServerContext* context,
                                                  const operator_::v1::OpenBundleRequest* request,
                                                  operator_::v1::OpenBundleResponse* response) {
  return OnWorker(*context, workers_, kWithin, [this, request, response](Deadline /*deadline*/) {
    if (incidents_ == nullptr) {
      return absl::NotFoundError("there are no incidents here");
    }
    const absl::StatusOr<Incident> incident = incidents_->Get(request->id());
    if (!incident.ok()) {
      return incident.status();
    }
    for (auto bundle = incident->bundles.rbegin(); bundle != incident->bundles.rend(); ++bundle) {
      if (request->sha256().empty() || bundle->sha256 == request->sha256()) {
        response->set_path(bundle->path);
        response->set_bytes(bundle->bytes);
        response->set_sha256(bundle->sha256);
        return absl::OkStatus();
      }
    }
    return absl::NotFoundError("the incident has no such bundle; creel incident show lists them");
  });
}

grpc::ServerUnaryReactor* PageService::GetCapture(grpc::CallbackServerContext* context,
                                                  const operator_::v1::GetCaptureRequest* request,
                                                  operator_::v1::GetCaptureResponse* response) {
  return OnWorker(*context, workers_, kWithin, [this, request, response](Deadline /*deadline*/) {
    if (incidents_ == nullptr) {
      return absl::NotFoundError("there are no incidents here");
    }
    // By the manager first, so that no name leads out of the folder.
    if (const auto incident = incidents_->Get(request->id()); !incident.ok()) {
      return incident.status();
    }
    // A bundle has another name until it is finished.
    std::error_code error;
    const std::filesystem::path folder = incidents_dir_ + "/" + request->id();
    for (auto file = std::filesystem::directory_iterator(folder, error);
         !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
      if (file->path().extension() == ".new") {
        std::error_code gone;
        const auto size = file->file_size(gone);
        response->set_running(true);
        response->set_bytes_written(gone ? 0 : size);
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace creel
