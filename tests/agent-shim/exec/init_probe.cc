// Runs one scenario as PID 1 of a pid namespace and exits with 0 if all held. Started by stop_test.
// With `no-subreapers` as the third argument the kernel answers as gVisor does to a process that
// wants to be a child subreaper.

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "agent-shim/exec/process_tree.h"
#include "tests/agent-shim/exec/exec_harness.h"
#include "tests/agent-shim/exec/mark.h"

namespace {

using creel::shim::Collector;
using creel::shim::Harness;
using creel::shim::Mark;
using creel::shim::Outcome;
using creel::shim::Program;
using creel::shim::Shell;

#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (false)

// Left alone there are PID 1, the nursery and at most two reapers that wait.
void ExpectQuiet() {
  for (int i = 0; i < 100 && creel::shim::CountProcesses() > 4; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT(creel::shim::CountProcesses() <= 4);
}

void Outrun(Harness& harness, const std::string& misbehave) {
  Mark mark;
  auto bystander = *harness.Start(Program({"sleep", "100"}));
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome =
      harness.Run(creel::shim::WithTimeout(Program({misbehave, "outrun", mark.path()}), 300, 100));
  EXPECT(outcome.exit.timed_out());
  EXPECT(outcome.exit.kill_step() >= creel::shim::v1::KILL_STEP_SUBTREE);
  EXPECT(!mark.held());
  EXPECT(std::chrono::steady_clock::now() - begin < std::chrono::seconds(8));
  // Either it was caught, or everything had to end, which the bystander is told.
  if (bystander->Info().has_exit()) {
    EXPECT(bystander->Info().exit().stopped());
    EXPECT(bystander->Info().exit().kill_step() == creel::shim::v1::KILL_STEP_ALL);
    EXPECT(bystander->Info().exit().signal() == SIGKILL || bystander->Info().exit().has_lost());
  }
  EXPECT(harness.Run(Shell("exit 5")).exit.code() == 5);
}

void KillAll(Harness& harness, const std::string& misbehave) {
  Mark mark;
  auto one = *harness.Start(Program({misbehave, "double-fork", mark.path()}));
  auto two = *harness.Start(Program({misbehave, "daemon", mark.path()}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  creel::Mutex mu;
  creel::CondVar changed;
  bool done = false;
  harness.table().KillAll([&] {
    creel::MutexLock lock(mu);
    done = true;
    changed.SignalAll();
  });
  // A command that comes in between waits for the new nursery.
  auto third = *harness.Start(Shell("echo third"));
  {
    creel::MutexLock lock(mu);
    while (!done) {
      changed.Wait(mu);
    }
  }
  EXPECT(!mark.held());
  const Outcome outcome = std::make_shared<Collector>()->Read(one);
  // Lost if its reaper died between reaping it and telling; never anything else.
  EXPECT(outcome.exit.signal() == SIGKILL || outcome.exit.has_lost());
  EXPECT(outcome.exit.stopped());
  EXPECT(outcome.exit.kill_step() == creel::shim::v1::KILL_STEP_ALL);
  const Outcome third_outcome = std::make_shared<Collector>()->Read(third);
  EXPECT(third_outcome.out == "third\n");
  EXPECT(third_outcome.exit.has_code());
  ExpectQuiet();
}

void LostReaper(Harness& harness, const std::string& misbehave) {
  Mark mark;
  Mark other_mark;
  auto process = *harness.Start(Program({misbehave, "double-fork", mark.path()}));
  auto other = *harness.Start(Program({misbehave, "sleep", other_mark.path()}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  kill(process->reaper_pid(), SIGKILL);
  const Outcome outcome = std::make_shared<Collector>()->Read(process);
  EXPECT(outcome.exit.has_lost());
  EXPECT(!mark.held());
  EXPECT(other_mark.held());
  EXPECT(!other->Info().has_exit());
}

// With nothing to stop them the shim is told of their end all the same: only then is there room.
void Leftovers(Harness& harness, const std::string& misbehave) {
  Mark mark;
  Mark kept;
  auto daemon = *harness.Start(Program({misbehave, "daemon", kept.path()}));
  auto brief = *harness.Start(Program({misbehave, "brief", mark.path()}));
  EXPECT(std::make_shared<Collector>()->Read(brief).exit.code() == 0);
  EXPECT(std::make_shared<Collector>()->Read(daemon).exit.code() == 0);
  EXPECT(mark.held());
  EXPECT(!harness.Start(Shell("true")).ok());  // both count, as something is left of them
  absl::StatusOr<std::shared_ptr<creel::shim::Process>> next;
  for (int i = 0; i < 500 && !next.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    next = harness.Start(Shell("exit 3"));
  }
  EXPECT(next.ok());
  EXPECT(std::make_shared<Collector>()->Read(*next).exit.code() == 3);
  EXPECT(!mark.held());
  EXPECT(kept.held());
}

// What one command leaves behind outlives the stop of another, which leaves nothing.
void Neighbours(Harness& harness, const std::string& misbehave) {
  for (const char* mode : {"double-fork", "setsid", "new-user-ns", "subreaper"}) {
    fprintf(stderr, "%s\n", mode);
    Mark kept;
    Mark mark;
    auto daemon = *harness.Start(Program({misbehave, "daemon", kept.path()}));
    auto running = *harness.Start(Program({"sleep", "100"}));
    EXPECT(std::make_shared<Collector>()->Read(daemon).exit.code() == 0);
    const Outcome outcome =
        harness.Run(creel::shim::WithTimeout(Program({misbehave, mode, mark.path()}), 300, 100));
    EXPECT(outcome.exit.timed_out());
    EXPECT(outcome.exit.kill_step() == creel::shim::v1::KILL_STEP_SUBTREE);
    EXPECT(!mark.held());
    EXPECT(kept.held());
    EXPECT(!running->Info().has_exit());
    harness.StopAndWait(running);
    harness.StopAndWait(daemon);
    EXPECT(!kept.held());
    EXPECT(running->Info().exit().kill_step() == creel::shim::v1::KILL_STEP_TERM);
  }
  ExpectQuiet();
}

void Orphans(Harness& harness) {
  for (int i = 0; i < 50; ++i) {
    EXPECT(harness.Run(Shell("(setsid true &) ; true")).exit.has_code());
  }
  ExpectQuiet();
}

void WithoutSubreapers() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_CHILD_SUBREAPER, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{.len = sizeof filter / sizeof filter[0], .filter = filter};
  EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
  EXPECT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4 || getpid() != 1) {
    return 2;
  }
  if (argc == 4) {
    WithoutSubreapers();
  }
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  creel::shim::ProcessTable::Options options = Harness::Defaults();
  options.is_init = true;
  const std::string_view scenario = argv[1];
  if (scenario == "leftovers") {
    options.max_running = 2;
  }
  Harness harness(options);
  const std::string misbehave = argv[2];
  if (scenario == "outrun") {
    Outrun(harness, misbehave);
  } else if (scenario == "kill-all") {
    KillAll(harness, misbehave);
  } else if (scenario == "lost-reaper") {
    LostReaper(harness, misbehave);
  } else if (scenario == "leftovers") {
    Leftovers(harness, misbehave);
  } else if (scenario == "neighbours") {
    Neighbours(harness, misbehave);
  } else if (scenario == "orphans") {
    Orphans(harness);
  } else {
    return 2;
  }
  // Not by way of the destructors: children that are meant to stay would hold them up.
  _exit(0);
}
