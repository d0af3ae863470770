#include "supervisor/session/stop_running.h"

#include <grpcpp/client_context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxThreads = 16;
// A call that was decided just before may start its command just after the first kill.
constexpr std::chrono::milliseconds kBetween{200};

void KillAll(Sandbox& sandbox, Deadline deadline) {
  const auto stub = sandbox.shim();
  if (!stub.ok()) {
    return;  // nothing can be started through it either
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::duration_cast<std::chrono::system_clock::duration>(
                           deadline - std::chrono::steady_clock::now()));
  shim::v1::KillAllResponse response;
  if (const grpc::Status status = (*stub)->KillAll(&context, {}, &response); !status.ok()) {
    spdlog::error("sandbox {}: what runs in it was not ended: {}", sandbox.identity().id,
                  Printable(status.error_message(), 256));
  }
}

uint32_t StopIn(Sandbox& sandbox) {
  uint32_t running = 0;
  for (const shim::v1::ProcessInfo& info : sandbox.processes().List()) {
    const auto process = info.has_exit() ? nullptr : sandbox.processes().Find(info.process_id());
    if (process != nullptr) {
      process->Stop();
      ++running;
    }
  }
  return running;
}

}  // namespace

uint32_t StopRunning(SessionManager& sessions,
                     const std::function<bool(const std::string& session)>& which,
                     Deadline deadline) {
  std::vector<std::shared_ptr<Sandbox>> sandboxes;
  for (const SessionView& view : sessions.List()) {
    if (which(view.session)) {
      // A frozen one stands still as it is; its calls are refused.
      if (auto sandbox = sessions.Find(view.identity.id);
          sandbox.ok() && (*sandbox)->state() == SandboxState::kRunning) {
        sandboxes.push_back(*std::move(sandbox));
      }
    }
  }
  uint32_t stopped = 0;
  for (const auto& sandbox : sandboxes) {
    stopped += StopIn(*sandbox);
  }
  for (int round = 0; round < 2 && !sandboxes.empty(); ++round) {
    if (round > 0) {
      std::this_thread::sleep_for(kBetween);
    }
    std::atomic<size_t> next{0};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < std::min(kMaxThreads, sandboxes.size()); ++i) {
      threads.emplace_back([&] {
        for (size_t at = next++; at < sandboxes.size(); at = next++) {
          KillAll(*sandboxes[at], deadline);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
  return stopped;
}

}  // namespace creel
