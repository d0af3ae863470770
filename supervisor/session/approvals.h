#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/store/policy_store.h"

namespace creel {

// What an approval is for: these, once, and nothing else.
struct ApprovalSubject {
  std::string session;
  std::string sender;
  std::string tool;
  std::string parameters_sha256;  // hex
  std::string tool_call_id;
  // Of `exec`: what the parameters ask to have run, see Granted. The hash stands for it elsewhere.
  std::string line{};
};

// A call to the sandbox that may be part of a tool call that was approved.
struct GrantedCall {
  std::string_view session;
  std::string_view sender;  // as in ApprovalSubject
  std::string_view tool_call_id;
  std::string_view tool;    // Creel's own name of it: exec, read, …
  std::string_view line{};  // of a command, if it is a line of shell
};

enum class ApprovalAnswer {
  kPending,
  kAllowed,
  kDenied,
  kExpired,
  kOther,  // there is none of that id for that subject
};

// Tool calls that wait for the operator. What nobody answers in time is denied. Thread-safe.
class Approvals {
 public:
  // Those that waited when the last supervisor ended wait on; one whose time has passed meanwhile
  // is denied. `store` and `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<Approvals>> Load(PolicyStore& store, const Clock& clock);
  // Stops.
  ~Approvals();
  Approvals(const Approvals&) = delete;
  Approvals& operator=(const Approvals&) = delete;

  // Asks the operator, or finds that the same is being asked. kResourceExhausted: 100 wait already.
  absl::StatusOr<ApprovalRecord> Ask(const ApprovalSubject& subject, const std::string& level,
                                     const std::string& rule, const std::string& summary,
                                     std::chrono::seconds timeout);
  // What became of `id`. kAllowed is told once, and is then used up: from then on calls to the
  // sandbox with the subject's tool_call_id pass for a while, see Granted; a second approval of one
  // tool_call_id brings that no more.
  absl::StatusOr<ApprovalAnswer> Use(const std::string& id, const ApprovalSubject& subject);
  // Uses up an approval of the subject that was allowed, if there is one.
  absl::StatusOr<bool> UseAny(const ApprovalSubject& subject);
  // Calls `done` once, when `id` has been answered or has expired; kAllowed uses it up. May run
  // before it returns.
  void Wait(const std::string& id, std::function<void(ApprovalAnswer)> done);
  // Whether a call to the sandbox is part of a tool call that was approved, for the same sender
  // (anybody, if the approval names none) and within two minutes. Of `exec` that is the approved
  // line, once, and looking at the folder it runs in (its variables and its folder are the
  // gateway's to choose); of other tools that run programs the verbs on running ones, once; of
  // tools that change files those that read and change files, of all others those that read, 16 in
  // all.
  bool Granted(const GrantedCall& call);

  absl::StatusOr<ApprovalRecord> Answer(const std::string& id, bool allow);
  // Ends the waiting of all calls, as if their time had passed; what is asked stays asked.
  void Stop();
  [[nodiscard]] std::vector<ApprovalRecord> List();

 private:
  struct Grant {
    ApprovalSubject subject;
    std::chrono::steady_clock::time_point until;
    int uses = 0;
  };

  Approvals(PolicyStore& store, const Clock& clock);
  void ExpireOnTime();
  // Ends those whose time has passed; returns who is to be told.
  std::vector<std::function<void(ApprovalAnswer)>> ExpireLocked()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  PolicyStore& store_;
  const Clock& clock_;
  Mutex mu_;
  CondVar changed_;
  std::map<std::string, ApprovalRecord> records_ ABSL_GUARDED_BY(mu_);
  std::multimap<std::string, std::function<void(ApprovalAnswer)>> waiting_ ABSL_GUARDED_BY(mu_);
  std::vector<Grant> grants_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread timer_;
};

}  // namespace creel
