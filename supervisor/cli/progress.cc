#include "supervisor/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/cli/output.h"

namespace creel::cli {
namespace {

constexpr std::chrono::milliseconds kStep{100};
constexpr int kStepsPerQuestion = 5;
constexpr int kWidth = 24;
constexpr int kBlock = 6;

// How much there is to come is not known: a block that goes to and fro.
std::string Bar(int step) {
  const int range = kWidth - kBlock;
  const int phase = step % (2 * range);
  const int at = phase < range ? phase : 2 * range - phase;
  return fmt::format("[{}{}{}]", std::string(at, ' '), std::string(kBlock, '='),
                     std::string(range - at, ' '));
}

}  // namespace

Progress::Progress(std::string what, std::function<std::string()> how_far)
    : what_(std::move(what)), how_far_(std::move(how_far)) {
  if (isatty(STDERR_FILENO) != 0) {
    thread_ = std::thread([this] { Work(); });
  }
}

Progress::~Progress() {
  stop_ = true;
  if (thread_.joinable()) {
    thread_.join();
    WriteAll(STDERR_FILENO, "\r\x1b[K");
  }
}

void Progress::Work() {
  const auto began = std::chrono::steady_clock::now();
  std::string far;
  for (int step = 0; !stop_; ++step) {
    if (step % kStepsPerQuestion == 0) {
      far = how_far_();
    }
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began)
            .count();
    WriteAll(STDERR_FILENO,
             fmt::format("\r{} {} {} s  {}\x1b[K", what_, Bar(step), seconds, Printable(far, 80)));
    std::this_thread::sleep_for(kStep);
  }
}

}  // namespace creel::cli
