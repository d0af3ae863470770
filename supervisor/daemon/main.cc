// creeld: the supervisor.
#include <absl/synchronization/mutex.h>
#include <fmt/format.h>
#include <malloc.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "supervisor/base/status.h"
#include "supervisor/cli/manual_text.h"
#include "supervisor/cli/reference.h"
#include "supervisor/config/load_config.h"
#include "supervisor/daemon/daemon.h"
#include "supervisor/daemon/logging.h"
#include "supervisor/daemon/notify.h"
#include "supervisor/daemon/removal.h"
#include "supervisor/policy/policy.h"

namespace creel {
namespace {

constexpr char kDefaultConfig[] = "/etc/creel/creel.yaml";
constexpr std::chrono::seconds kRemovalPatience{300};
constexpr int kFailed = 1;
constexpr int kMisuse = 2;
// A sandbox takes about ten descriptors, a streaming call two.
constexpr rlim_t kWantedFiles = 65'536;
constexpr time_t kTrimSeconds = 30;

struct Flags {
  std::string config;
  bool check_config = false;
  bool print_default_config = false;
  bool print_reference = false;
  bool remove_sandboxes = false;
  uint32_t engine_wait = 10;
};

int Complain(const absl::Status& status) {
  fmt::print(stderr, "creeld: {}\n", std::string(status.message()));
  return kFailed;
}

absl::StatusOr<Config> ReadConfig(const std::string& file) {
  if (!file.empty()) {
    return LoadConfig(file);
  }
  if (::access(kDefaultConfig, F_OK) == 0) {
    return LoadConfig(kDefaultConfig);
  }
  return ParseConfig("", "");
}

// Signals are taken by the main thread alone, one at a time; the mask is inherited by all others.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return signals;
}

void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kWantedFiles) {
    return;
  }
  // Root may go above the hard limit too.
  const rlimit wanted{.rlim_cur = kWantedFiles, .rlim_max = std::max(limit.rlim_max, kWantedFiles)};
  if (::setrlimit(RLIMIT_NOFILE, &wanted) == 0) {
    return;
  }
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < kWantedFiles) {
    spdlog::warn(
        "only {} files can be open at once; with many sandboxes that is too few (LimitNOFILE={} in "
        "the service)",
        limit.rlim_cur, kWantedFiles);
  }
}

// Many threads allocate here a little at a time, and free what another has allocated: an arena for
// each of them would keep much more than is in use. Pieces of output are not mapped one by one.
void LimitMemory() {
  ::mallopt(M_ARENA_MAX, 2);
  ::mallopt(M_MMAP_THRESHOLD, 2 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

void Notify(const std::string& state) {
  if (const absl::Status told = NotifyServiceManager(state); !told.ok()) {
    spdlog::warn("{}", std::string(told.message()));
  }
}

void Reload(Daemon& daemon) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  Notify(fmt::format("RELOADING=1\nMONOTONIC_USEC={}",
                     int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000));
  if (const absl::Status reloaded = daemon.Reload().status(); !reloaded.ok()) {
    spdlog::error("the configuration was not read again, and nothing has changed: {}",
                  std::string(reloaded.message()));
  }
  Notify("READY=1");
}

int Serve(Config config, const Flags& flags) {
  ::umask(077);
  LimitMemory();
  // Debian builds absl with its checks, and this one takes a lock of the whole process for each
  // lock that gRPC takes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // What a core would hold, as the shims' keys, is nobody's business.
  ::prctl(PR_SET_DUMPABLE, 0);
  StartLogging(config.log);
  RaiseFileLimit();
  const sigset_t signals = BlockSignals();

  absl::StatusOr<std::unique_ptr<Daemon>> daemon =
      Daemon::Start(std::move(config), std::chrono::seconds(flags.engine_wait));
  if (!daemon.ok()) {
    spdlog::error("{}", std::string(daemon.status().message()));
    return kFailed;
  }
  Notify("READY=1");
  while (true) {
    const timespec pause{.tv_sec = kTrimSeconds, .tv_nsec = 0};
    const int signal = ::sigtimedwait(&signals, nullptr, &pause);
    if (signal < 0) {
      ::malloc_trim(0);  // what the busy minutes took goes back
      continue;
    }
    if (signal == SIGHUP) {
      Reload(**daemon);
      continue;
    }
    spdlog::info("stopping on signal {}; containers stay, and are adopted at the next start",
                 signal);
    break;
  }
  // A second one ends the process at once.
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  Notify("STOPPING=1");
  (*daemon)->Stop();
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app{"creeld, the Creel supervisor: gives the sessions of an AI gateway their sandboxes"};
  Flags flags;
  bool foreground = false;
  app.add_option("--config", flags.config,
                 fmt::format("The configuration; without it {} if it is there, else the defaults",
                             kDefaultConfig));
  app.add_flag("--check-config", flags.check_config, "Check the configuration and end");
  app.add_flag("--print-default-config", flags.print_default_config,
               "Print a configuration with all keys and their defaults, and end");
  app.add_flag("--print-config-reference", flags.print_reference,
               "Print docs/configuration.md, and end");
  app.add_flag("--remove-sandboxes", flags.remove_sandboxes,
               "Remove every sandbox of this install, while no creeld serves, and end");
  app.add_option("--engine-wait", flags.engine_wait,
                 "Seconds to wait at start for an engine that does not answer yet")
      ->default_val(10)
      ->check(CLI::Range(0, 3600));
  app.add_flag("--foreground", foreground, "Does nothing: creeld stays in the foreground anyway");
  app.set_version_flag("--version", std::string("creeld ") + CREEL_VERSION);
  if (const auto printed =
          cli::PrintReference(app, {.section = 8, .more = cli::kCreeldManual}, argc, argv)) {
    return *printed;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    app.exit(e);
    return kMisuse;
  }
  if (flags.print_default_config) {
    fmt::print("{}", DefaultConfigYaml());
    return 0;
  }
  if (flags.print_reference) {
    fmt::print("{}", ConfigReference());
    return 0;
  }
  absl::StatusOr<Config> config = ReadConfig(flags.config);
  if (!config.ok()) {
    return Complain(config.status());
  }
  if (const absl::Status policy = Policy::Compile(*config).status(); !policy.ok()) {
    return Complain(policy);
  }
  if (flags.check_config) {
    fmt::print("{}: good\n", config->file.empty() ? "the defaults" : config->file);
    return 0;
  }
  if (flags.remove_sandboxes) {
    const absl::StatusOr<int> removed = RemoveSandboxes(*config, kRemovalPatience);
    if (!removed.ok()) {
      return Complain(removed.status());
    }
    fmt::print("{} sandboxes removed\n", *removed);
    return 0;
  }
  return Serve(*std::move(config), flags);
}

}  // namespace
}  // namespace creel

int main(int argc, char** argv) {
  try {
    return creel::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "creeld: %s\n", e.what());
    return 1;
  }
}
