#include "supervisor/sandbox/process_table.h"

#include <fmt/format.h>

#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/mutex.h"
#include "supervisor/sandbox/grpc_threads.h"
#include "supervisor/sandbox/output_log.h"
#include "supervisor/sandbox/shim_process.h"

namespace creel {

using shim::v1::ProcessInfo;
using StubPtr = std::shared_ptr<shim::v1::Shim::StubInterface>;

std::string ExitText(const shim::v1::Exit& exit) {
  switch (exit.how_case()) {
    case shim::v1::Exit::kCode:
      return fmt::format("exit {}{}", exit.code(), exit.timed_out() ? ", timed out" : "");
    case shim::v1::Exit::kSignal:
      return fmt::format("signal {}{}", exit.signal(), exit.timed_out() ? ", timed out" : "");
    case shim::v1::Exit::kStartFailure:
      return "not started: " + exit.start_failure().message();
    case shim::v1::Exit::kLost:
      return "lost: " + exit.lost();
    case shim::v1::Exit::HOW_NOT_SET:
      break;
  }
  return "unknown";
}

namespace {

struct EndedProcess {
  std::string id;
  uint64_t disk;  // that its output takes, which does not change any more
};

}  // namespace

struct ProcessTable::Impl {
  explicit Impl(Options given) : options(std::move(given)) {}

  const Options options;
  mutable Mutex mu;
  std::map<std::string, std::shared_ptr<ShimProcess>> processes ABSL_GUARDED_BY(mu);
  std::deque<EndedProcess> ended ABSL_GUARDED_BY(mu);  // oldest first
  uint64_t ended_disk ABSL_GUARDED_BY(mu) = 0;         // of all of these
  EndListener on_ended ABSL_GUARDED_BY(mu);

  std::shared_ptr<ShimProcess> AddLocked(const ProcessInfo& info, const std::weak_ptr<Impl*>& table)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const std::string id = info.process_id();
    auto process = std::make_shared<ShimProcess>(
        info, OutputLog::Options{.directory = options.spool_dir, .file_bytes = options.spool_bytes},
        [table, id](const ProcessInfo& how, const OutputLog::Digest& output) {
          if (const auto alive = table.lock()) {
            (*alive)->Tell(how, output);
            (*alive)->Ended(id);
          }
        });
    processes[id] = process;
    return process;
  }

  void Tell(const ProcessInfo& how, const OutputLog::Digest& output) {
    EndListener listener;
    {
      MutexLock lock(mu);
      listener = on_ended;
    }
    // What never began has no end.
    if (listener && how.exit().how_case() != shim::v1::Exit::HOW_NOT_SET) {
      listener(how, output);
    }
  }

  void Ended(const std::string& id) {
    std::vector<std::shared_ptr<ShimProcess>> forgotten;  // freed outside the lock
    MutexLock lock(mu);
    const auto found = processes.find(id);
    ended.push_back({id, found == processes.end() ? 0 : found->second->disk_bytes()});
    ended_disk += ended.back().disk;
    while (!ended.empty() && (ended.size() > options.remembered ||
                              (ended_disk > options.total_spool_bytes && ended.size() > 1))) {
      const auto it = processes.find(ended.front().id);
      if (it != processes.end() && it->second->ended()) {
        forgotten.push_back(std::move(it->second));
        processes.erase(it);
      }
      ended_disk -= ended.front().disk;
      ended.pop_front();
    }
  }

  [[nodiscard]] std::vector<std::shared_ptr<ShimProcess>> RunningLocked() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    std::vector<std::shared_ptr<ShimProcess>> running;
    for (const auto& [id, process] : processes) {
      if (!process->ended()) {
        running.push_back(process);
      }
    }
    return running;
  }

  // ShimProcesses may outlive the table; they find it through this and notice when it is gone.
  std::shared_ptr<Impl*> self = std::make_shared<Impl*>(this);
};

ProcessTable::ProcessTable(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {
  HoldGrpcThreads();
}

ProcessTable::~ProcessTable() {
  LoseAll("the supervisor let go of the sandbox");
  // Whoever is inside Ended() right now holds a reference; wait until it has left.
  const std::weak_ptr<Impl*> watch = impl_->self;
  impl_->self.reset();
  while (!watch.expired()) {
    std::this_thread::yield();
  }
}

std::shared_ptr<RemoteProcess> ProcessTable::Start(StubPtr stub, std::string process_id,
                                                   shim::v1::CommandSpec spec) {
  ProcessInfo info;
  info.set_process_id(process_id.empty() ? Hex(RandomBytes(6)) : std::move(process_id));
  *info.mutable_spec() = std::move(spec);
  std::shared_ptr<ShimProcess> process;
  {
    MutexLock lock(impl_->mu);
    const auto it = impl_->processes.find(info.process_id());
    absl::Status refusal;
    if (it != impl_->processes.end()) {
      refusal = absl::AlreadyExistsError(
          fmt::format("process id '{}' is in use in this sandbox; choose another or leave it out",
                      info.process_id()));
    } else if (impl_->processes.size() - impl_->ended.size() >= impl_->options.max_running) {
      refusal = absl::ResourceExhaustedError(fmt::format(
          "the sandbox already runs {} commands; stop some first", impl_->options.max_running));
    }
    if (!refusal.ok()) {
      return ShimProcess::Refused(info, refusal);
    }
    process = impl_->AddLocked(info, impl_->self);
  }
  process->Start(std::move(stub));
  return process;
}

std::shared_ptr<RemoteProcess> ProcessTable::Adopt(StubPtr stub, const ProcessInfo& info) {
  std::shared_ptr<ShimProcess> process;
  {
    MutexLock lock(impl_->mu);
    const auto it = impl_->processes.find(info.process_id());
    if (it != impl_->processes.end() && !it->second->ended()) {
      return it->second;
    }
    std::erase_if(impl_->ended, [&](const EndedProcess& each) {
      if (each.id != info.process_id()) {
        return false;
      }
      impl_->ended_disk -= each.disk;
      return true;
    });
    ProcessInfo clean = info;
    clean.clear_exit();
    process = impl_->AddLocked(clean, impl_->self);
  }
  process->Attach(std::move(stub), 0);
  return process;
}

std::shared_ptr<RemoteProcess> ProcessTable::Find(const std::string& process_id) const {
  MutexLock lock(impl_->mu);
  const auto it = impl_->processes.find(process_id);
  return it == impl_->processes.end() ? nullptr : it->second;
}

std::vector<ProcessInfo> ProcessTable::List() const {
  std::vector<std::shared_ptr<ShimProcess>> all;
  {
    MutexLock lock(impl_->mu);
    for (const auto& [id, process] : impl_->processes) {
      all.push_back(process);
    }
  }
  std::vector<ProcessInfo> infos;
  infos.reserve(all.size());
  for (const auto& process : all) {
    infos.push_back(process->Info());
  }
  return infos;
}

size_t ProcessTable::running() const {
  MutexLock lock(impl_->mu);
  return impl_->RunningLocked().size();
}

void ProcessTable::OnEnded(EndListener ended) {
  MutexLock lock(impl_->mu);
  impl_->on_ended = std::move(ended);
}

void ProcessTable::LoseAll(const std::string& reason) {
  std::vector<std::shared_ptr<ShimProcess>> running;
  {
    MutexLock lock(impl_->mu);
    running = impl_->RunningLocked();
  }
  for (const auto& process : running) {
    process->Lose(reason);
  }
}

void ProcessTable::Resume(StubPtr stub) {
  std::vector<std::shared_ptr<ShimProcess>> running;
  {
    MutexLock lock(impl_->mu);
    running = impl_->RunningLocked();
  }
  for (const auto& process : running) {
    process->Resume(stub);
  }
}

}  // namespace creel
