#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <variant>

#include "agent-shim/exec/event_loop.h"
#include "agent-shim/exec/nursery.h"
#include "agent-shim/exec/process.h"
#include "agent-shim/exec/process_table.h"
#include "supervisor/base/mutex.h"

namespace creel::shim {

// What one command did, as a reader saw it.
struct Outcome {
  v1::ProcessInfo started;
  std::string out;
  std::string err;
  uint64_t missed = 0;  // bytes in gaps
  v1::Exit exit;
  absl::Status status;  // instead of an exit
};

// Reads a process to its end, on the caller's thread.
class Collector final : public ProcessReader, public std::enable_shared_from_this<Collector> {
 public:
  void Wake() override {
    MutexLock lock(mu_);
    woken_ = true;
    changed_.SignalAll();
  }

  // Reads until the exit, or for `most` at most (status kDeadlineExceeded then).
  Outcome Read(const std::shared_ptr<Process>& process, uint64_t offset = 0,
               std::chrono::milliseconds most = std::chrono::seconds(30)) {
    Outcome outcome;
    const Deadline deadline = After_(most);
    process->Attach(shared_from_this(), offset);
    bool has_info = false;
    for (;;) {
      Process::Next next = process->Read(this, offset, has_info);
      if (std::holds_alternative<Process::Pending>(next)) {
        MutexLock lock(mu_);
        while (!woken_) {
          if (!changed_.WaitUntil(mu_, deadline) && !woken_) {
            outcome.status = absl::DeadlineExceededError("the process has not ended");
            return outcome;
          }
        }
        woken_ = false;
      } else if (auto* info = std::get_if<v1::ProcessInfo>(&next)) {
        outcome.started = *info;
        has_info = true;
      } else if (auto* piece = std::get_if<OutputRing::Piece>(&next)) {
        const v1::Output& output = (*piece)->event().output();
        (output.stream() == v1::OUTPUT_STREAM_STDERR ? outcome.err : outcome.out) += output.data();
        offset += output.data().size();
      } else if (auto* gap = std::get_if<v1::OutputGap>(&next)) {
        outcome.missed += gap->to() - gap->from();
        offset = gap->to();
      } else if (auto* exit = std::get_if<v1::Exit>(&next)) {
        outcome.exit = *exit;
        return outcome;
      } else {
        outcome.status = std::get<absl::Status>(next);
        return outcome;
      }
    }
  }

 private:
  static Deadline After_(std::chrono::milliseconds most) {
    return std::chrono::steady_clock::now() + most;
  }
  Mutex mu_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
};

// A process table with what it needs.
class Harness {
 public:
  explicit Harness(ProcessTable::Options options = Defaults()) {
    nursery_ = *Nursery::Start();
    loop_ = *EventLoop::Start();
    table_ = *ProcessTable::Start(*loop_, *nursery_, std::move(options));
  }
  ~Harness() {
    loop_->Stop();
    table_.reset();
  }

  static ProcessTable::Options Defaults() {
    ProcessTable::Options options;
    options.defaults.user = {.uid = getuid(), .gid = getgid()};
    options.defaults.workspace = "/tmp";
    options.defaults.env = {{"PATH", "/usr/local/bin:/usr/bin:/bin"}, {"HOME", "/tmp"}};
    return options;
  }

  ProcessTable& table() { return *table_; }

  absl::StatusOr<std::shared_ptr<Process>> Start(v1::CommandSpec spec, std::string id = "") {
    v1::StartProcess start;
    start.set_process_id(id.empty() ? "p" + std::to_string(next_id_++) : std::move(id));
    *start.mutable_spec() = std::move(spec);
    return table_->Run(start);
  }

  // Stops it and waits until nothing is left of it.
  static void StopAndWait(const std::shared_ptr<Process>& process) {
    v1::ProcessInput stop;
    stop.mutable_stop();
    auto left = std::make_shared<std::promise<void>>();
    process->Send(stop, true, [left](const absl::Status&) { left->set_value(); });
    left->get_future().wait();
  }

  Outcome Run(v1::CommandSpec spec) {
    auto process = Start(std::move(spec));
    if (!process.ok()) {
      Outcome outcome;
      outcome.status = process.status();
      return outcome;
    }
    return std::make_shared<Collector>()->Read(*process);
  }

 private:
  std::unique_ptr<Nursery> nursery_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<ProcessTable> table_;
  int next_id_ = 1;
};

inline v1::CommandSpec Shell(const std::string& line) {
  v1::CommandSpec spec;
  spec.set_shell(line);
  return spec;
}

inline v1::CommandSpec Program(std::initializer_list<std::string> argv) {
  v1::CommandSpec spec;
  for (const std::string& argument : argv) {
    spec.add_argv(argument);
  }
  return spec;
}

inline v1::CommandSpec WithTimeout(v1::CommandSpec spec, int milliseconds, int grace_ms) {
  spec.mutable_timeout()->set_seconds(milliseconds / 1000);
  spec.mutable_timeout()->set_nanos(milliseconds % 1000 * 1'000'000);
  spec.mutable_grace()->set_seconds(grace_ms / 1000);
  spec.mutable_grace()->set_nanos(grace_ms % 1000 * 1'000'000);
  return spec;
}

}  // namespace creel::shim
