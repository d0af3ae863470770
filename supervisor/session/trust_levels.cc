#include "supervisor/session/trust_levels.h"

#include <fmt/format.h>

#include <algorithm>
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
  ASSIGN_OR_RETURN(const std::vector<TrustSenderRecord> senders, store.TrustSenders());
  MutexLock hold(levels->mu_);
  for (const TrustRecord& record : records) {
    levels->levels_.emplace(record.name,
                            Entry{.level = record.level, .lowest = record.sender, .senders = {}});
  }
  for (const TrustSenderRecord& record : senders) {
    if (const auto found = levels->levels_.find(record.name); found != levels->levels_.end()) {
      found->second.senders.push_back(record.sender);
    }
  }
  return levels;
}

std::string TrustLevels::Kept(const std::string& name) const {
  MutexLock hold(mu_);
  const auto found = levels_.find(name);
  return found == levels_.end() ? std::string() : found->second.level;
}

std::vector<TrustLevels::Reached> TrustLevels::All() const {
  MutexLock hold(mu_);
  std::vector<Reached> all;
  all.reserve(levels_.size());
  for (const auto& [name, entry] : levels_) {
    Reached reached{.name = name, .level = entry.level, .senders = entry.senders};
    if (!entry.lowest.empty()) {
      reached.senders.push_back(entry.lowest);
    }
    all.push_back(std::move(reached));
  }
  return all;
}

absl::Status TrustLevels::RememberLocked(const std::string& name, const std::string& sender,
                                         Entry& entry) {
  const auto known = std::find(entry.senders.begin(), entry.senders.end(), sender);
  if (known != entry.senders.end()) {
    // The order of the last time is not written down: that would be a write for each call.
    std::rotate(known, known + 1, entry.senders.end());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(
      Annotate(store_.Put(TrustSenderRecord{.name = name, .sender = sender, .since = clock_.Now()}),
               "write down who reached the session"));
  entry.senders.push_back(sender);
  if (entry.senders.size() > kMaxSenders) {
    RETURN_IF_ERROR(store_.RemoveTrustSender(name, entry.senders.front()));
    entry.senders.erase(entry.senders.begin());
  }
  return absl::OkStatus();
}

absl::Status TrustLevels::Reach(const std::string& name, const std::string& level,
                                const std::string& sender, const Levels& order) {
  std::vector<Listener> listeners;
  absl::Status remembered;
  {
    MutexLock hold(mu_);
    auto found = levels_.find(name);
    if (found == levels_.end() && levels_.size() >= kMaxNames) {
      return absl::ResourceExhaustedError(fmt::format(
          "the trust levels of {} sessions are kept, and no more can be; close sessions "
          "that are not needed",
          levels_.size()));
    }
    if (found == levels_.end() || order.Of(found->second.level) > order.Of(level)) {
      RETURN_IF_ERROR(
          Annotate(store_.Put(TrustRecord{
                       .name = name, .level = level, .sender = sender, .since = clock_.Now()}),
                   "write the session's trust level down"));
      found = levels_.try_emplace(name).first;
      found->second.level = level;
      found->second.lowest = sender;
      listeners = listeners_;
    }
    if (!sender.empty()) {
      remembered = RememberLocked(name, sender, found->second);
    }
  }
  for (const Listener& listener : listeners) {
    listener(name, level);
  }
  return remembered;
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
