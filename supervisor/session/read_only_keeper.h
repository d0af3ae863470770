#pragma once

#include <memory>

#include "supervisor/base/clock.h"
#include "supervisor/session/policy_desk.h"
#include "supervisor/session/session_manager.h"

namespace creel {

// Ends what runs where read-only mode has come to hold without anybody's switching it on there: a
// level fell to one that may only read, a session was thawed that had been frozen when the switch
// was turned, or the configuration was read again. Thread-safe.
class ReadOnlyKeeper {
 public:
  // Both must outlive it. Made before calls begin and after UseLevels.
  ReadOnlyKeeper(SessionManager& sessions, PolicyDesk& desk);
  ~ReadOnlyKeeper();
  ReadOnlyKeeper(const ReadOnlyKeeper&) = delete;
  ReadOnlyKeeper& operator=(const ReadOnlyKeeper&) = delete;

  // Looks at all sessions, and returns when what was found has ended, or at `deadline`.
  void Sweep(Deadline deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace creel
