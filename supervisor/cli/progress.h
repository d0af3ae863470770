#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

namespace creel::cli {

// A line on stderr that shows, while it lives, that something goes on and for how long; nothing at
// all where stderr is no terminal. `how_far` tells more, such as "12.4 MiB"; it is asked twice a
// second, on a thread of its own.
class Progress {
 public:
  Progress(std::string what, std::function<std::string()> how_far);
  // Takes the line away.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void Work();

  const std::string what_;
  const std::function<std::string()> how_far_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace creel::cli
