#include "supervisor/session/warm_pool.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/session/record_codec.h"

namespace creel {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

constexpr seconds kMakeTimeout{60};
constexpr seconds kRemoveTimeout{30};
// Openings often come in bursts: the refill waits for the end of one.
constexpr std::chrono::milliseconds kQuiet{1000};
// What `auto` looks back at, and keeps at least and at most.
constexpr minutes kDemandTime{10};
constexpr size_t kAutoLeast = 1;
constexpr size_t kAutoMost = 16;
// An image that was built anew under its name is seen after this long.
constexpr seconds kImageTime{60};
constexpr seconds kMaxBackoff{300};
constexpr size_t kRemovers = 8;

}  // namespace

WarmPool::WarmPool(Rooms rooms, const SessionsConfig& config)
    : rooms_(std::move(rooms)),
      config_(config),
      quiet_since_(rooms_.clock.Steady() - kQuiet),
      tokens_at_(rooms_.clock.Steady()),
      image_checked_(rooms_.clock.Steady()) {}

WarmPool::~WarmPool() { Stop(After(kRemoveTimeout)); }

void WarmPool::Start() {
  thread_ = std::thread([this] { Run(); });
}

void WarmPool::Stop(Deadline deadline) {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
  std::deque<Waiting> left;
  {
    MutexLock lock(mu_);
    left.swap(ready_);
    for (Waiting& each : ended_) {
      left.push_back(std::move(each));
    }
    ended_.clear();
    idle_.SignalAll();
  }
  RemoveAll(std::move(left), deadline);
}

void WarmPool::SetLimits(const SessionsConfig& config) {
  MutexLock lock(mu_);
  config_ = config;
  changed_.SignalAll();
}

absl::Status WarmPool::Empty(Deadline deadline) {
  MutexLock lock(mu_);
  resting_ = true;
  changed_.SignalAll();
  // What is being made just now goes as well.
  while (resting_ && (busy_ || !ready_.empty() || !ended_.empty())) {
    if (!idle_.WaitUntil(mu_, deadline)) {
      return absl::UnavailableError("what waits for sessions is still being removed");
    }
  }
  return left_.empty() ? absl::OkStatus()
                       : absl::UnavailableError(fmt::format(
                             "{} that waited for sessions could not be removed", left_.size()));
}

WarmPool::Taken WarmPool::Take(const SandboxIdentity& wanted) {
  MutexLock lock(mu_);
  resting_ = false;
  demand_.push_back(rooms_.clock.Steady());
  if (demand_.size() > kAutoMost) {
    demand_.pop_front();
  }
  Taken taken;
  const auto found = std::find_if(ready_.begin(), ready_.end(), [&](const Waiting& each) {
    return each.sandbox->ready() && each.sandbox->Serves(wanted);
  });
  if (found != ready_.end()) {
    taken = {.sandbox = std::move(found->sandbox), .uid = std::move(found->uid)};
    ready_.erase(found);
  }
  changed_.SignalAll();
  return taken;
}

void WarmPool::OpeningBegins() {
  MutexLock lock(mu_);
  ++openings_;
}

void WarmPool::OpeningEnds() {
  MutexLock lock(mu_);
  if (--openings_ == 0) {
    quiet_since_ = rooms_.clock.Steady();
    changed_.SignalAll();
  }
}

void WarmPool::ContainerEnded(const std::string& sandbox_id) {
  MutexLock lock(mu_);
  const auto found = std::find_if(ready_.begin(), ready_.end(), [&](const Waiting& each) {
    return each.sandbox->identity().id == sandbox_id;
  });
  if (found != ready_.end()) {
    ended_.push_back(std::move(*found));
    ready_.erase(found);
    changed_.SignalAll();
  }
}

std::vector<std::string> WarmPool::Ids() const {
  MutexLock lock(mu_);
  std::vector<std::string> ids;
  for (const Waiting& each : ready_) {
    ids.push_back(each.sandbox->identity().id);
  }
  return ids;
}

PoolView WarmPool::View() const {
  MutexLock lock(mu_);
  PoolView view{.ready = ready_.size(),
                .wanted = WantedLocked(rooms_.clock.Steady()),
                .memory_bytes = MemoryLocked()};
  if (view.ready < view.wanted) {
    view.why = failure_;
    if (view.why.empty() &&
        view.memory_bytes + last_memory_ > config_.warm_pool.memory_ceiling_bytes) {
      view.why = fmt::format("one more would pass sessions.warm_pool.memory_ceiling ({} MiB)",
                             config_.warm_pool.memory_ceiling_bytes >> 20);
    }
  }
  return view;
}

size_t WarmPool::WantedLocked(Time now) const {
  const WarmPoolConfig& pool = config_.warm_pool;
  if (resting_ || pool.memory_ceiling_bytes == 0) {
    return 0;
  }
  size_t wanted = pool.size;
  if (pool.automatic) {
    const auto lately = std::count_if(demand_.begin(), demand_.end(),
                                      [&](Time at) { return now - at < kDemandTime; });
    wanted = std::clamp(static_cast<size_t>(lately), kAutoLeast, kAutoMost);
  }
  return std::min<size_t>(wanted, config_.max);
}

uint64_t WarmPool::MemoryLocked() const {
  uint64_t bytes = 0;
  for (const Waiting& each : ready_) {
    bytes += each.sandbox->memory_bytes();
  }
  return bytes;
}

bool WarmPool::MayMakeLocked(Time now) const {
  return ready_.size() < WantedLocked(now) && openings_ == 0 && now - quiet_since_ >= kQuiet &&
         now >= not_before_ && tokens_ >= 1 &&
         MemoryLocked() + last_memory_ <= config_.warm_pool.memory_ceiling_bytes;
}

std::deque<WarmPool::Waiting> WarmPool::SurplusLocked(Time now) {
  std::deque<Waiting> surplus;
  surplus.swap(ended_);
  const size_t wanted = WantedLocked(now);
  while (ready_.size() > wanted) {
    surplus.push_back(std::move(ready_.front()));
    ready_.pop_front();
  }
  // Its shim went away.
  for (auto at = ready_.begin(); at != ready_.end();) {
    if (!at->sandbox->ready()) {
      surplus.push_back(std::move(*at));
      at = ready_.erase(at);
    } else {
      ++at;
    }
  }
  return surplus;
}

WarmPool::Time WarmPool::NextLocked(Time now) {
  const double per_second = config_.warm_pool.refill_rate / 60.0;
  tokens_ =
      std::min(1.0, tokens_ + std::chrono::duration<double>(now - tokens_at_).count() * per_second);
  tokens_at_ = now;
  // Demand is forgotten, and the image looked at, once a minute.
  Time next = now + kImageTime;
  if (ready_.size() < WantedLocked(now) && openings_ == 0 &&
      MemoryLocked() + last_memory_ <= config_.warm_pool.memory_ceiling_bytes) {
    const auto for_token = std::chrono::duration_cast<Time::duration>(
        std::chrono::duration<double>(std::max(0.0, 1 - tokens_) / per_second));
    next = std::min(next, std::max({quiet_since_ + kQuiet, not_before_, now + for_token}));
  }
  return next;
}

void WarmPool::Run() {
  while (true) {
    bool make = false;
    bool look = false;
    std::deque<Waiting> surplus;
    {
      MutexLock lock(mu_);
      while (true) {
        busy_ = false;
        idle_.SignalAll();
        if (stopping_) {
          return;
        }
        const Time now = rooms_.clock.Steady();
        const Time next = NextLocked(now);
        surplus = SurplusLocked(now);
        make = MayMakeLocked(now);
        look = now - image_checked_ >= kImageTime && (!ready_.empty() || !left_.empty());
        if (make || look || !surplus.empty()) {
          busy_ = true;
          if (make) {
            tokens_ -= 1;
          }
          break;
        }
        // A little later rather than a little too early, and then again.
        static_cast<void>(
            changed_.WaitUntil(mu_, After(next - now + std::chrono::milliseconds(1))));
      }
    }
    RemoveAll(std::move(surplus), After(kRemoveTimeout));
    if (look) {
      CheckImage();
      RemoveLeft(After(kRemoveTimeout));
    }
    if (!make) {
      continue;
    }
    absl::StatusOr<Waiting> made = Make();
    std::string failed;
    {
      MutexLock lock(mu_);
      if (made.ok()) {
        failure_.clear();
        backoff_ = seconds(0);
        last_memory_ = made->sandbox->memory_bytes();
        ready_.push_back(*std::move(made));
        continue;
      }
      backoff_ = std::clamp(backoff_ * 2, seconds(5), kMaxBackoff);
      not_before_ = rooms_.clock.Steady() + backoff_;
      // Told once for each reason.
      std::string why = Printable(std::string(made.status().message()), 512);
      if (why != failure_) {
        failed = why;
      }
      failure_ = std::move(why);
    }
    if (!failed.empty()) {
      spdlog::warn("no container can be kept ready, so sessions open cold: {}", failed);
    }
  }
}

absl::StatusOr<WarmPool::Waiting> WarmPool::Make() {
  const SandboxConfig& sandbox = rooms_.host.config.sandbox;
  SandboxIdentity identity;
  ASSIGN_OR_RETURN(identity.tool_uid, rooms_.uids->Take());
  Waiting waiting{.sandbox = nullptr,
                  .uid = std::make_unique<ToolUidLease>(rooms_.uids, identity.tool_uid)};
  identity.tool_gid = identity.tool_uid;
  identity.id = Hex(RandomBytes(8));
  identity.key = RandomBytes(32);
  identity.image = sandbox.image;
  identity.runtime = sandbox.runtime;
  identity.limits = sandbox.limits;
  SessionRecord record;
  IdentityToRecord(identity, record);
  record.state = kPooledState;
  record.opened_at = record.last_call_at = rooms_.clock.Now();
  RETURN_IF_ERROR(rooms_.store.Put(record));
  auto made = rooms_.sandboxes.MakeAhead(rooms_.host, identity, After(kMakeTimeout));
  if (!made.ok()) {
    // As far as the engine answers nothing is left; what is, the next start removes.
    if (rooms_.sandboxes.Remove(rooms_.host, identity, After(kRemoveTimeout)).ok()) {
      static_cast<void>(rooms_.store.Remove(identity.id));
    }
    return made.status();
  }
  waiting.sandbox = *std::move(made);
  return waiting;
}

void WarmPool::CheckImage() {
  const auto image = rooms_.host.engine.InspectImage(rooms_.host.config.sandbox.image,
                                                     After(rooms_.host.config.engine.timeout));
  MutexLock lock(mu_);
  image_checked_ = rooms_.clock.Steady();
  if (!image.ok()) {
    return;
  }
  for (auto at = ready_.begin(); at != ready_.end();) {
    if (at->sandbox->image_id() != image->id) {
      ended_.push_back(std::move(*at));
      at = ready_.erase(at);
    } else {
      ++at;
    }
  }
}

void WarmPool::RemoveAll(std::deque<Waiting> waiting, Deadline deadline) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> removers;
  for (size_t i = 0; i < std::min(kRemovers, waiting.size()); ++i) {
    removers.emplace_back([&] {
      for (size_t at = next++; at < waiting.size(); at = next++) {
        Remove(std::move(waiting[at]), deadline);
      }
    });
  }
  for (std::thread& remover : removers) {
    remover.join();
  }
}

void WarmPool::Remove(Waiting waiting, Deadline deadline) {
  Left left{.identity = waiting.sandbox->identity(), .uid = std::move(waiting.uid)};
  // Ends its link first.
  waiting.sandbox.reset();
  {
    MutexLock lock(mu_);
    left_.push_back(std::move(left));
  }
  RemoveLeft(deadline);
}

void WarmPool::RemoveLeft(Deadline deadline) {
  std::deque<Left> left;
  {
    MutexLock lock(mu_);
    left.swap(left_);
  }
  for (Left& each : left) {
    absl::Status gone = rooms_.sandboxes.Remove(rooms_.host, each.identity, deadline);
    if (gone.ok()) {
      gone = rooms_.store.Remove(each.identity.id);
    }
    if (!gone.ok()) {
      spdlog::error(
          "sandbox {}, which waited for a session, was not removed and will be tried again: {}",
          each.identity.id, Printable(std::string(gone.message()), 512));
      MutexLock lock(mu_);
      left_.push_back(std::move(each));
    }
  }
}

}  // namespace creel
