#pragma once

#include <functional>
#include <string>
#include <thread>

#include "supervisor/base/mutex.h"
#include "supervisor/config/record_config.h"

namespace creel {

// Keeps the head of the record where root of this host has no say: hands each checkpoint's line to
// syslog, and to the operator's command as its last argument. The command has a deadline and holds
// nothing up; of lines that wait for it the newest counts, as it vouches for all before it.
// Thread-safe.
class Anchor {
 public:
  explicit Anchor(const RecordConfig& config);
  // Hands over the line that still waits, within the command's deadline.
  ~Anchor();
  Anchor(const Anchor&) = delete;
  Anchor& operator=(const Anchor&) = delete;

  // Does not wait.
  void Send(const std::string& line);
  // Told, on a thread of its own, when the command has failed; the first time after it worked.
  // Null: nobody is, from the return on.
  void OnFailure(std::function<void(const std::string& why)> failed);
  // Why the newest line could not be handed over; empty: it was, or is on its way.
  [[nodiscard]] std::string problem() const;

 private:
  void Work();

  const RecordConfig config_;
  mutable Mutex mu_;
  CondVar changed_;
  std::string line_ ABSL_GUARDED_BY(mu_);
  std::string problem_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Held while it is called.
  Mutex failed_mu_;
  std::function<void(const std::string&)> failed_ ABSL_GUARDED_BY(failed_mu_);
  std::thread thread_;
};

}  // namespace creel
