#include "supervisor/incident/incident_turns.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace creel {

IncidentTurns::Turn::Turn(IncidentTurns& turns, uint64_t incident, Work work,
                          std::set<std::string> sandboxes)
    : turns_(turns), incident_(incident), work_(work), sandboxes_(std::move(sandboxes)) {
  MutexLock hold(turns_.mu_);
  turns_.turns_.push_back(this);
  place_ = std::prev(turns_.turns_.end());
  while (!turns_.MayGoLocked(*this)) {
    turns_.ended_.Wait(turns_.mu_);
  }
}

IncidentTurns::Turn::~Turn() {
  MutexLock hold(turns_.mu_);
  turns_.turns_.erase(place_);
  turns_.ended_.SignalAll();
}

bool IncidentTurns::InTheWay(const Turn& earlier, const Turn& later) {
  if (earlier.incident_ == later.incident_) {
    return true;
  }
  const bool removes = earlier.work_ == Work::kRemove || later.work_ == Work::kRemove;
  const bool both_let_go = earlier.work_ == Work::kLetGo && later.work_ == Work::kLetGo;
  return (removes || both_let_go) &&
         std::any_of(later.sandboxes_.begin(), later.sandboxes_.end(),
                     [&](const std::string& each) { return earlier.sandboxes_.contains(each); });
}

bool IncidentTurns::MayGoLocked(const Turn& turn) const {
  for (const Turn* const other : turns_) {
    if (other == &turn) {
      return true;
    }
    if (InTheWay(*other, turn)) {
      return false;
    }
  }
  return true;
}

}  // namespace creel
