#include "supervisor/session/read_only_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <vector>

#include "supervisor/base/escape.h"
#include "supervisor/base/job_threads.h"
#include "supervisor/base/mutex.h"
#include "supervisor/session/stop_running.h"

namespace creel {
namespace {

constexpr std::chrono::seconds kStopWithin{10};

}  // namespace

struct ReadOnlyKeeper::State {
  State(SessionManager& the_sessions, PolicyDesk& the_desk)
      : sessions(the_sessions), desk(the_desk) {}

  // Only those are meant that run something: whoever finds nothing to do costs nothing.
  void Sweep(const std::function<bool(const std::string& session)>& which, Deadline deadline) {
    std::vector<std::string> found;
    for (const SessionView& view : sessions.List()) {
      if (which(view.session) &&
          desk.IsReadOnlyAt(view.session, sessions.LevelOf(view.identity.id))) {
        found.push_back(view.session);
      }
    }
    if (found.empty()) {
      return;
    }
    const uint32_t stopped = StopRunning(
        sessions,
        [&](const std::string& session) {
          return std::find(found.begin(), found.end(), session) != found.end();
        },
        deadline);
    if (stopped > 0) {
      spdlog::info("read-only mode ended {} commands, in \"{}\"{}", stopped,
                   Printable(found.front(), 120), found.size() > 1 ? " and others" : "");
    }
  }

  SessionManager& sessions;
  PolicyDesk& desk;
  JobThreads jobs{1};
};

ReadOnlyKeeper::ReadOnlyKeeper(SessionManager& sessions, PolicyDesk& desk)
    : state_(std::make_shared<State>(sessions, desk)) {
  const std::weak_ptr<State> weak = state_;
  sessions.OnLevelChange([weak](const std::string& sandbox_id, const std::string& /*level*/) {
    const std::shared_ptr<State> state = weak.lock();
    if (state == nullptr) {
      return;
    }
    // The call that caused it waits for nothing. A stop that is under way ends what runs, too.
    static_cast<void>(state->jobs.Post([raw = state.get(), sandbox_id] {
      raw->Sweep(
          [&](const std::string& session) {
            const auto view = raw->sessions.Get(session);
            return view.ok() && view->identity.id == sandbox_id;
          },
          After(kStopWithin));
    }));
  });
  sessions.OnGoingOn([weak](const std::string& session, Deadline deadline) {
    if (const std::shared_ptr<State> state = weak.lock()) {
      state->Sweep([&](const std::string& each) { return each == session; },
                   std::min(deadline, After(kStopWithin)));
    }
  });
}

ReadOnlyKeeper::~ReadOnlyKeeper() { state_->jobs.Stop(); }

void ReadOnlyKeeper::Sweep(Deadline deadline) {
  state_->Sweep([](const std::string&) { return true; }, deadline);
}

}  // namespace creel
