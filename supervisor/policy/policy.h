#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/policy/levels.h"
#include "supervisor/policy/sender.h"

namespace creel {

// Who a sender is to Creel, and by what.
struct Standing {
  Level level = 0;
  bool blocked = false;
  std::string why;  // such as "stands in levels.owner.members"
};

// Read-only switches that are on, as far as they concern one decision.
struct ReadOnlyFacts {
  bool all = false;
  // The highest level that is switched; it and all below are read-only. -1: none.
  Level level = -1;
  bool session = false;
  std::string_view reason{};  // the operator's, of the widest of them
};

// --- Admission: may this message reach the model?

struct AdmitFacts {
  const SenderId& sender;
  const Standing& standing;
  std::string_view chat_id{};
  bool is_group = false;
  bool native_mention = false;
  std::string_view text{};
  bool is_command = false;
};

enum class AdmitVerdict { kAdmit, kIgnore, kDeny, kPair };

struct AdmitDecision {
  AdmitVerdict verdict = AdmitVerdict::kDeny;
  std::string rule{};
  std::string reason{};
};

// --- Tools and placement: may this tool run, and where?

enum class ToolPlace { kUnknown, kHost, kSandbox };

struct ToolQuestion {
  std::string_view session;
  const SenderId& sender;    // may be unknown
  const Standing& standing;  // of the sender; not looked at if that is unknown
  // The lowest level that ever reached the session; -1: nobody has who is named.
  Level kept = -1;
  std::string_view tool;
  std::string_view claimed_group{};
  // Where the gateway would run it. A call to the sandbox itself says kSandbox.
  ToolPlace place = ToolPlace::kUnknown;
  const ReadOnlyFacts& read_only;
};

enum class Verdict { kAllow, kAsk, kDeny };

struct ToolDecision {
  Verdict verdict = Verdict::kDeny;
  std::string rule{};
  std::string reason{};
  Level level = 0;
  ToolPlace required = ToolPlace::kUnknown;  // where it has to run
};

// --- Replies: what may leave toward whom? See reply_guard.h for the looking.

struct ReplyFacts {
  // The lowest level of all who will read it.
  Level readers = 0;
  // Sent of the model's own accord, not in answer.
  bool unasked = false;
  const ReadOnlyFacts& read_only;
};

// What a reply to these readers must not hold, or why none may leave at all.
struct ReplyRules {
  bool denied = false;
  std::string rule{};
  std::string reason{};
  bool mask_keys = true;
  bool mask_paths = true;
  bool mask_listings = true;
};

// The rules of a configuration, ready to be asked. Pure: no clock, no files, nothing that changes;
// two with the same configuration answer the same to the same facts. Thread-safe.
//
// A level never may more than one above it, whatever the configuration says: a tool is allowed at a
// level if it is allowed there and at every level above, is denied (or asked for) if it is at that
// level or any above, and so is everything else that a level may. Deny wins over ask, ask over
// allow, and what nothing allows is denied.
class Policy {
 public:
  // kInvalidArgument names key, and file and line where they are known: a sender stands in two
  // levels, or two channels are one.
  static absl::StatusOr<std::shared_ptr<const Policy>> Compile(const Config& config);
  virtual ~Policy() = default;

  [[nodiscard]] virtual const Levels& levels() const = 0;
  // The level of a session that no named sender has reached.
  [[nodiscard]] virtual Level Unnamed(std::string_view session) const = 0;
  // `paired`: the level that a pairing gave this sender; empty: none did.
  [[nodiscard]] virtual Standing StandingOf(const SenderId& sender,
                                            std::string_view paired) const = 0;

  [[nodiscard]] virtual AdmitDecision Admit(const AdmitFacts& facts) const = 0;
  [[nodiscard]] virtual ToolDecision DecideTool(const ToolQuestion& question) const = 0;
  [[nodiscard]] virtual ReplyRules RulesForReply(const ReplyFacts& facts) const = 0;

  // Whether the level is read-only by configuration.
  [[nodiscard]] virtual ReadOnlyFacts ConfiguredReadOnly() const = 0;
  // The security section of a system prompt, as Markdown of at most 8 KiB.
  [[nodiscard]] virtual std::string Prompt(Level level, const ReadOnlyFacts& read_only) const = 0;
  // What a rule, a level or a channel says without effect, for `creel policy check`.
  [[nodiscard]] virtual const PolicyConfig& config() const = 0;
};

}  // namespace creel
