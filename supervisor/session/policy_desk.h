#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/mutex.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/policy/policy.h"
#include "supervisor/policy/reply_guard.h"
#include "supervisor/session/approvals.h"
#include "supervisor/session/pairings.h"
#include "supervisor/session/read_only.h"
#include "supervisor/session/trust_levels.h"
#include "supervisor/store/policy_store.h"

namespace creel {

// May this message reach the model?
struct AdmitQuestion {
  SenderId sender{};
  std::string account{};
  std::string name{};  // as the sender calls themselves
  std::string chat_id{};
  std::string session{};  // where it would go; empty: not known
  std::string text{};
  bool is_group = false;
  bool native_mention = false;
  bool is_command = false;
};

struct AdmitAnswer {
  AdmitDecision decision{};
  std::string level{};
  std::string level_reason{};
  std::string reply{};  // with a pairing code; empty: nothing to send
};

// May this tool run for this sender, and where?
struct CallQuestion {
  std::string session{};
  SenderId sender{};  // may be unknown
  std::string tool{};
  std::string claimed_group{};
  ToolPlace place = ToolPlace::kUnknown;
  // Others whose words the model may be following; all known.
  std::vector<SenderId> also_heard{};
};

struct CallAnswer {
  ToolDecision decision{};
  std::string level{};
  std::string level_reason{};
};

struct AuthorizeAnswer {
  CallAnswer call{};
  // For kAsk.
  std::string approval_id{};
  std::chrono::system_clock::time_point expires_at{};
};

// May this text leave toward these people?
struct ReplyQuestion {
  std::string session{};
  std::vector<SenderId> recipients{};
  bool others_read = false;
  bool unasked = false;
  std::string_view text{};
};

struct ReplyAnswerWithLevel {
  ReplyAnswer answer{};
  std::string level{};
};

// A read-only switch, set by the operator or by the configuration.
struct ReadOnlyState {
  ReadOnlyScope scope{};
  std::string reason{};
  std::chrono::system_clock::time_point since{};
  bool configured = false;
};

// The policy in force together with what it rests on: who was paired, which level has reached which
// sandbox, what the operator answered, which switches are on. Each question has one function,
// Judge, that answers it without any effect; the live calls are Judge and its effects, and
// `creel explain` is Judge alone. Thread-safe.
class PolicyDesk {
 public:
  // `store` and `clock` must outlive it. kInvalidArgument: the policy is bad. kNotFound and others:
  // a file of replies.secret_files cannot be read, or the store.
  static absl::StatusOr<std::unique_ptr<PolicyDesk>> Create(const Config& config,
                                                            PolicyStore& store, const Clock& clock);
  PolicyDesk(const PolicyDesk&) = delete;
  PolicyDesk& operator=(const PolicyDesk&) = delete;

  // Another configuration from now on. On an error nothing changes.
  absl::Status Reload(const Config& fresh);
  // More values that must not leave in a reply, besides those of the configuration.
  void SetSecrets(std::vector<std::string> secrets);
  // Those of the configuration, each with the name of the file that it stands in.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> NamedSecrets() const;

  [[nodiscard]] AdmitAnswer Judge(const AdmitQuestion& question) const;
  [[nodiscard]] CallAnswer Judge(const CallQuestion& question) const;
  [[nodiscard]] ReplyAnswerWithLevel Judge(const ReplyQuestion& question) const;

  // Judge; makes a pairing code, and takes note of who reaches the session. An error: it could not
  // be written down, and the message is to be dropped.
  absl::StatusOr<AdmitAnswer> Admit(const AdmitQuestion& question);
  // Judge; takes note of who reaches the session, and asks the operator. An error: as Admit.
  // `approval_id`: from an earlier answer, or empty.
  absl::StatusOr<AuthorizeAnswer> Authorize(const CallQuestion& question,
                                            const std::string& parameters,
                                            const std::string& tool_call_id,
                                            const std::string& approval_id);
  // Judge; takes note of who reaches the session. For calls to the sandbox.
  absl::StatusOr<CallAnswer> BeginCall(const CallQuestion& question);

  // May a sandbox be opened for this session, for the sender? Whoever may use any tool in it may
  // have it; where each of these wants the operator asked, so does the opening. The question's tool
  // is not looked at.
  [[nodiscard]] CallAnswer JudgeOpening(CallQuestion question) const;
  // JudgeOpening; takes note of who reaches the session, and asks the operator (approval_id), or
  // finds that they have allowed it. Errors as Admit.
  absl::StatusOr<AuthorizeAnswer> BeginOpening(const CallQuestion& question);
  // A sender reaches the session by the operator's own act.
  absl::Status Reached(const std::string& session, const SenderId& sender);

  // By level, else by session, else the lowest. kNotFound: no such level; lists those there are.
  absl::StatusOr<std::pair<std::string, std::string>> Prompt(const std::string& level,
                                                             const std::string& session) const;

  // The level of the sandbox or host session that is kept under `name`, as it counts now.
  [[nodiscard]] std::string LevelOfName(const std::string& name) const;

  // What the sandbox that is kept under `name` may use, by its level as it counts now.
  [[nodiscard]] LimitsConfig LimitsOfName(const std::string& name) const;

  // kNotFound: no such level. kFailedPrecondition: it is on by configuration.
  absl::Status SetReadOnly(const ReadOnlyScope& scope, bool on, const std::string& reason);
  [[nodiscard]] std::vector<ReadOnlyState> ReadOnly() const;
  // Whether the session, with the level it has now, is read-only.
  [[nodiscard]] bool IsReadOnly(const std::string& session) const;
  // The same for the sandbox that is kept under `name`, if its level were `level`: a session's own
  // switch is for the sandbox that it shares, too.
  [[nodiscard]] bool IsReadOnlyAt(const std::string& name, const std::string& level) const;

  [[nodiscard]] std::shared_ptr<const Policy> policy() const;
  // What is in force, as far as it may change while running.
  [[nodiscard]] std::shared_ptr<const Config> config() const;
  Pairings& pairings() { return *pairings_; }
  Approvals& approvals() { return *approvals_; }
  TrustLevels& trust() { return *trust_; }

  // Grows with every change that a gateway should be told of. Listeners run on the changing thread,
  // must not block, and are removed by destroying what is returned.
  [[nodiscard]] uint64_t version() const;
  std::shared_ptr<void> OnChange(std::function<void()> changed);
  // Sandboxes fall to what the least of those who reached them is worth now: after a pairing was
  // revoked, or a sender was taken out of the configuration, or blocked.
  void FollowStandings();
  // Something else that a gateway is told of has changed, such as which sessions are frozen.
  void Changed();

 private:
  // What one configuration amounts to.
  struct InForce {
    std::shared_ptr<const Config> config;
    std::shared_ptr<const Policy> policy;
    std::shared_ptr<const ReplyGuard> guard;
    std::vector<std::pair<std::string, std::string>> named_secrets;
  };
  struct Listeners;

  PolicyDesk();
  absl::StatusOr<InForce> Make(const Config& config, const std::vector<std::string>& more) const;
  [[nodiscard]] InForce Now() const;
  [[nodiscard]] Standing StandingOf(const Policy& policy, const SenderId& sender) const;
  // `reason` keeps the text that the facts refer to.
  [[nodiscard]] ReadOnlyFacts ReadOnlyFor(const Policy& policy, std::string_view session,
                                          std::string& reason) const;
  // The level kept under the session's sandbox, -1 for none.
  [[nodiscard]] Level KeptFor(const InForce& now, const std::string& session) const;
  absl::Status Reach(const InForce& now, const std::string& session, const SenderId& sender,
                     Level level);

  std::unique_ptr<Pairings> pairings_;
  std::unique_ptr<TrustLevels> trust_;
  std::unique_ptr<Approvals> approvals_;
  std::unique_ptr<ReadOnlySwitches> switches_;
  mutable Mutex mu_;
  InForce now_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> secrets_ ABSL_GUARDED_BY(mu_);
  const std::shared_ptr<Listeners> listeners_;
};

}  // namespace creel
