#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "supervisor/audit/audit_log.h"

namespace creel::web {

// Reads the record as it is written, from its end at the start on, and hands over each line, in
// order, on a thread of its own: whoever writes the record waits for nobody here.
class RecordTail {
 public:
  using OnLine = std::function<void(std::string_view)>;

  // `audit` must outlive it. `on_line` gets lines without their end.
  RecordTail(AuditLog& audit, OnLine on_line);
  ~RecordTail();
  RecordTail(const RecordTail&) = delete;
  RecordTail& operator=(const RecordTail&) = delete;

  // Returns when no line is being handed over any more.
  void Stop();

 private:
  void Work();

  AuditLog& audit_;
  const OnLine on_line_;
  uint64_t seen_;  // the last record that was handed over
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace creel::web
