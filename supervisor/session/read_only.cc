#include "supervisor/session/read_only.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxReason = 256;

std::string ScopeWord(ReadOnlyScope::Kind kind) {
  return kind == ReadOnlyScope::Kind::kAll     ? "all"
         : kind == ReadOnlyScope::Kind::kLevel ? "level"
                                               : "session";
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReadOnlySwitches>> ReadOnlySwitches::Load(PolicyStore& store,
                                                                         const Clock& clock) {
  std::unique_ptr<ReadOnlySwitches> switches(new ReadOnlySwitches(store, clock));
  MutexLock hold(switches->mu_);
  ASSIGN_OR_RETURN(switches->on_, store.ReadOnly());
  return switches;
}

absl::Status ReadOnlySwitches::Set(const ReadOnlyScope& scope, bool on, const std::string& reason) {
  const std::string word = ScopeWord(scope.kind);
  const std::string name = scope.kind == ReadOnlyScope::Kind::kAll ? "" : scope.name;
  MutexLock hold(mu_);
  const auto same = [&](const ReadOnlyRecord& record) {
    return record.scope == word && record.name == name;
  };
  if (!on) {
    RETURN_IF_ERROR(Annotate(store_.RemoveReadOnly(word, name), "write the switch down"));
    std::erase_if(on_, same);
    return absl::OkStatus();
  }
  ReadOnlyRecord record{
      .scope = word, .name = name, .reason = Printable(reason, kMaxReason), .since = clock_.Now()};
  std::erase_if(on_, same);
  on_.push_back(record);
  return Annotate(store_.Put(record),
                  "read-only mode is on, but a restart would forget it: write the switch down");
}

std::vector<ReadOnlyRecord> ReadOnlySwitches::List() const {
  MutexLock hold(mu_);
  return on_;
}

}  // namespace creel
