#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/base/mutex.h"
#include "supervisor/web/metrics.h"

namespace creel::web {

// What every open page shows: asks the operator's services once a second, however many pages there
// are and only while there is one, and hands on what has changed. Also passes lines of the record
// on to pages that look at their session. Thread-safe.
class LiveHub {
 public:
  // The state as JSON: all of it, or what has changed since the frame before.
  struct Frame {
    uint64_t number = 0;
    std::string full;
    std::string changes;  // empty: nothing
  };

  // One page. Its functions are called on the hub's thread or that of OnRecord; they must not
  // block.
  class Viewer {
   public:
    virtual ~Viewer() = default;
    virtual void OnFrame(std::shared_ptr<const Frame> frame) = 0;
    // There are lines for TakeLines. Called once until they are taken.
    virtual void OnLines() = 0;
  };

  // All must outlive the hub.
  LiveHub(std::shared_ptr<grpc::Channel> channel, Metrics& metrics, const AuditLog* audit);
  ~LiveHub();
  LiveHub(const LiveHub&) = delete;
  LiveHub& operator=(const LiveHub&) = delete;

  // The next frame comes soon. Lines of the record about `session` come if it is not empty.
  uint64_t Join(std::weak_ptr<Viewer> viewer, const std::string& session);
  void Leave(uint64_t id);
  // The lines that have come, at most 200; and how many were left out for want of room.
  std::vector<std::string> TakeLines(uint64_t id, uint64_t& left_out);

  // A line of the record was written.
  void OnRecord(std::string_view line);
  // Calls `done` on the hub's thread once the gauges of the metrics are at most a second old.
  void WhenMeasured(std::function<void()> done);
  // Ends the thread; nobody is called any more.
  void Stop();

 private:
  struct Member {
    std::weak_ptr<Viewer> viewer;
    std::string pattern;  // of the record's lines; empty: none are wanted
    std::deque<std::string> lines;
    uint64_t left_out = 0;
    bool told = false;
  };
  struct Sources;

  void Work();
  // Asks all services; returns the new frame.
  std::shared_ptr<const Frame> Look();

  const std::unique_ptr<Sources> sources_;
  Metrics& metrics_;
  const AuditLog* const audit_;
  std::atomic<int> watching_{0};  // members that want lines

  Mutex mu_;
  CondVar changed_;
  std::map<uint64_t, Member> members_ ABSL_GUARDED_BY(mu_);
  std::vector<std::function<void()>> measured_ ABSL_GUARDED_BY(mu_);
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  bool hurry_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace creel::web
