#include "supervisor/daemon/anchor.h"

#include <spdlog/spdlog.h>
#include <syslog.h>

#include <utility>
#include <vector>

#include "supervisor/incident/stop_command.h"

namespace creel {

Anchor::Anchor(const RecordConfig& config) : config_(config) {
  if (!config_.anchor_command.empty()) {
    thread_ = std::thread([this] { Work(); });
  }
}

Anchor::~Anchor() {
  {
    MutexLock hold(mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Anchor::Send(const std::string& line) {
  if (config_.anchor_syslog) {
    ::syslog(LOG_AUTHPRIV | LOG_NOTICE, "%s", line.c_str());
  }
  if (!config_.anchor_command.empty()) {
    MutexLock hold(mu_);
    line_ = line;
    changed_.SignalAll();
  }
}

void Anchor::OnFailure(std::function<void(const std::string& why)> failed) {
  MutexLock hold(failed_mu_);
  failed_ = std::move(failed);
}

std::string Anchor::problem() const {
  MutexLock hold(mu_);
  return problem_;
}

void Anchor::Work() {
  while (true) {
    std::vector<std::string> argv = config_.anchor_command;
    {
      MutexLock hold(mu_);
      while (line_.empty() && !stopping_) {
        changed_.Wait(mu_);
      }
      if (line_.empty()) {
        return;
      }
      argv.push_back(std::exchange(line_, {}));
    }
    const CommandEnd end = RunOperatorCommand(argv, config_.anchor_timeout);
    const std::string problem = end.ok ? "" : end.told;
    bool news = false;
    {
      MutexLock hold(mu_);
      news = !problem.empty() && problem_.empty();
      problem_ = problem;
    }
    if (news) {
      spdlog::error("audit.anchor_command: {}", problem);
      MutexLock hold(failed_mu_);
      if (failed_) {
        failed_(problem);
      }
    }
  }
}

}  // namespace creel
