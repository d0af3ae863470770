#include "supervisor/session/trust_levels.h"

#include <fmt/format.h>

#include <utility>

#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kMaxNames = 100'000;

}  // namespace

absl::StatusOr<std::unique_ptr<TrustLevels>> TrustLevels::Load(PolicyStore& store,
                                                               const Clock& clock) {
  std::unique_ptr<TrustLevels> levels(new TrustLevels(store, clock));
  ASSIGN_OR_RETURN(const std::vector<TrustRecord> records, store.TrustLevels());
  MutexLock hold(levels->mu_);
  for (const TrustRecord& record : records) {
    levels->levels_.emplace(record.name, record.level);
  }
  return levels;
}

std::string TrustLevels::Kept(const std::string& name) const {
  MutexLock hold(mu_);
  const auto found = levels_.find(name);
  return found == levels_.end() ? std::string() : found->second;
}

absl::Status TrustLevels::Reach(const std::string& name, const std::string& level,
                                const std::string& sender, const Levels& order) {
  std::vector<Listener> listeners;
  {
    MutexLock hold(mu_);
    const auto found = levels_.find(name);
    if (found != levels_.end() && order.Of(found->second) <= order.Of(level)) {
      return absl::OkStatus();
    }
    if (found == levels_.end() && levels_.size() >= kMaxNames) {
      return absl::ResourceExhaustedError(fmt::format(
          "the trust levels of {} sessions are kept, and no more can be; close sessions "
          "that are not needed",
          levels_.size()));
    }
    RETURN_IF_ERROR(
        Annotate(store_.Put(TrustRecord{
                     .name = name, .level = level, .sender = sender, .since = clock_.Now()}),
                 "write the session's trust level down"));
    levels_[name] = level;
    listeners = listeners_;
  }
  for (const Listener& listener : listeners) {
    listener(name, level);
  }
  return absl::OkStatus();
}

absl::Status TrustLevels::Forget(const std::string& name) {
  MutexLock hold(mu_);
  const auto found = levels_.find(name);
  if (found == levels_.end()) {
    return absl::NotFoundError(
        fmt::format("no trust level is kept for '{}'", Printable(name, 120)));
  }
  RETURN_IF_ERROR(store_.RemoveTrust(name));
  levels_.erase(found);
  return absl::OkStatus();
}

void TrustLevels::OnFall(Listener listener) {
  MutexLock hold(mu_);
  listeners_.push_back(std::move(listener));
}

}  // namespace creel
