#pragma once

#include <cstdint>
#include <list>
#include <set>
#include <string>

#include "supervisor/base/mutex.h"

namespace creel {

// Who may work on an incident now. What would get in each other's way takes turns, in the order in
// which it came; all else goes on beside it:
//   one incident        does one thing at a time
//   a removal           waits until nobody else works on a sandbox that it removes
//   two that let go on  what both are about, wait for each other, so that the later one knows
//                       that nobody is left to whom it could leave a sandbox
// Thread-safe.
class IncidentTurns {
 public:
  enum class Work { kCapture, kLetGo, kRemove };

  // Holds a turn for the life of a scope; waits for it first.
  class Turn {
   public:
    Turn(IncidentTurns& turns, uint64_t incident, Work work, std::set<std::string> sandboxes);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    friend class IncidentTurns;
    IncidentTurns& turns_;
    const uint64_t incident_;
    const Work work_;
    const std::set<std::string> sandboxes_;
    std::list<const Turn*>::iterator place_;
  };

 private:
  static bool InTheWay(const Turn& earlier, const Turn& later);
  bool MayGoLocked(const Turn& turn) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar ended_;
  // Those that work and those that wait, the oldest first.
  std::list<const Turn*> turns_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
