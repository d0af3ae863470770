#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/integration/support/process.h"

namespace creel::testing {

// The world outside, for egress tests: this process moves, for good, to a network namespace of its
// own, which reaches one other by a pair of devices and nothing else. There the servers of
// tests/integration/egress/servers.py run, at documentation addresses. What is started afterwards,
// creeld above all, lives in ours. Needs root.
class Outside {
 public:
  Outside();
  ~Outside();
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

  // Certificates, the repository, and the record of what came.
  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string ca() const { return folder_ + "/ca.pem"; }
  // Lines of the record that hold `text`, since the last Forget.
  [[nodiscard]] std::vector<std::string> Seen(const std::string& text = "") const;
  void Forget();

 private:
  std::string folder_;
  std::unique_ptr<Background> holder_;
  std::unique_ptr<Background> servers_;
  size_t forgotten_ = 0;
};

}  // namespace creel::testing
