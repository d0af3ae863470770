#include "supervisor/sandbox/shim_link.h"

#include <fmt/format.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/resource_quota.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <map>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/base/unix_socket.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kSocketName[] = "shim.sock";
constexpr size_t kMaxUnprovedPerLink = 4;
constexpr int kBacklog = 8;
constexpr milliseconds kProofTime{1000};
// While all places are taken and others wait, the one that came first has only this.
constexpr milliseconds kCrowdedTime{100};
constexpr milliseconds kRetryAccept{50};
constexpr seconds kRetryListen{1};

constexpr size_t kQuotaBytes = 64u << 20;
constexpr int kMaxMessage = 4 << 20;
// What gRPC reads ahead of its caller, for each stream.
constexpr int kLookahead = 4 << 20;

struct Version {
  uint32_t major;
  uint32_t minor;
};

std::optional<Version> ParseVersion(std::string_view text) {
  std::array<uint32_t, 3> parts{};
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) {
      return std::nullopt;
    }
    const auto [next, error] = std::from_chars(at, end, parts[i]);
    if (error != std::errc()) {
      return std::nullopt;
    }
    at = next;
  }
  return at == end ? std::optional<Version>({parts[0], parts[1]}) : std::nullopt;
}

std::shared_ptr<grpc::Channel> MakeChannel(UniqueFd fd, uint32_t max_frame_bytes) {
  grpc::ChannelArguments args;
  grpc::ResourceQuota quota("shim");
  quota.Resize(kQuotaBytes);
  args.SetResourceQuota(quota);
  args.SetMaxReceiveMessageSize(kMaxMessage);
  args.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, static_cast<int>(max_frame_bytes));
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kLookahead);
  // The window is fixed and the socket local: probing would only cost turns.
  args.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Statistics of a channel are of no use here and cost at every call.
  args.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
  return grpc::CreateCustomInsecureChannelFromFd("shim", fd.release(), args);
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

// Reasons that end a connection are told to the operator only where the peer is to blame.
bool PeerIsToBlame(const absl::Status& why) { return !why.ok() && !absl::IsCancelled(why); }

}  // namespace

absl::Status CheckShimVersion(std::string_view ours, std::string_view theirs) {
  const std::optional<Version> own = ParseVersion(ours);
  const std::optional<Version> other = ParseVersion(theirs);
  if (!own.has_value() || !other.has_value()) {
    return absl::FailedPreconditionError(
        fmt::format("version '{}' is not of the form 1.2.3", Printable(theirs, 32)));
  }
  if (own->major != other->major || other->minor > own->minor || own->minor - other->minor > 1) {
    return absl::FailedPreconditionError(
        fmt::format("the shim's version {} does not go with the supervisor's {}", theirs, ours));
  }
  return absl::OkStatus();
}

// Lives in the pool's loop: its members are touched by no other thread. What was left with gRPC,
// the guard or the loop holds it until it has run, and finds `closed_`.
class ShimLink::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(LinkPool& pool, Options options, Callbacks callbacks)
      : pool_(pool),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        address_{.directory = options_.directory,
                 .name = kSocketName,
                 .mode = options_.socket_mode,
                 .owner = options_.socket_owner,
                 .group = std::nullopt} {}

  absl::Status Open();
  void Close();
  void Begin(shim::v1::SandboxSetup setup);
  void Drop(const absl::Status& why);
  EventLoop& loop() { return pool_.loop(); }

 private:
  // One Hello call; its parts must live until gRPC is done with it.
  struct Hello {
    grpc::ClientContext context;
    shim::v1::HelloRequest request;
    shim::v1::HelloResponse response;
  };
  // A peer that was accepted and has not proved itself.
  struct Candidate {
    uint64_t guard_id = 0;
    std::shared_ptr<shim::v1::Shim::StubInterface> stub;
    std::shared_ptr<Hello> hello;
    std::chrono::steady_clock::time_point since;
    EventLoop::Id timer = 0;
    // It said that it has a key already, and is asked to prove that it is ours.
    bool asked_again = false;
    // Of those in the pool that all links share. One that waits to be begun with has none, as there
    // may be hundreds and nothing of it is read.
    bool has_place = true;
    // Its process; 0: not to be seen.
    int pid = 0;
  };
  struct Connection {
    uint64_t serial = 0;
    uint64_t guard_id = 0;
  };

  void CloseListener();
  void OpenAgain();
  void OnConnecting();
  [[nodiscard]] bool HasRoom() const;
  void WaitForRoom();
  void Unpark();
  void Admit(UniqueFd peer);
  absl::Status CheckCredentials(int peer, int* pid) const;
  void GivePlace(Candidate& candidate);
  void StartProof(uint64_t serial);
  void SayHello(uint64_t serial, bool with_key);
  void OnHello(uint64_t serial, const std::shared_ptr<Hello>& hello, const grpc::Status& status);
  absl::Status CheckProof(const Hello& hello) const;
  void Proved(uint64_t serial, const std::string& version);
  void OnEnd(uint64_t serial, const absl::Status& why);
  void Report(const std::string& reason);

  LinkPool& pool_;
  Options options_;
  const Callbacks callbacks_;
  const UnixAddress address_;
  bool closed_ = false;
  // A peer passed descriptors, which takes a hostile process with PID 1's uid.
  bool poisoned_ = false;
  // Whoever connects beside the one that waits to be begun with waits too, without a timer.
  bool parked_ = false;
  UniqueFd listener_;
  EventLoop::Id watch_ = 0;
  EventLoop::Id retry_ = 0;
  uint64_t last_serial_ = 0;
  std::map<uint64_t, Candidate> candidates_;
  std::optional<Connection> connection_;
};

absl::Status ShimLink::Impl::Open() {
  ASSIGN_OR_RETURN(listener_, ListenUnix(address_, kBacklog));
  absl::StatusOr<EventLoop::Id> watch = pool_.loop().Watch(
      listener_.get(), EPOLLIN, [self = shared_from_this()](uint32_t) { self->OnConnecting(); });
  if (!watch.ok()) {
    CloseListener();
    return watch.status();
  }
  watch_ = *watch;
  return absl::OkStatus();
}

void ShimLink::Impl::CloseListener() {
  pool_.loop().Unwatch(std::exchange(watch_, 0));
  pool_.loop().Cancel(std::exchange(retry_, 0));
  if (listener_.valid()) {
    RemoveUnix(address_);
    // Those that were not accepted may have sent descriptors, which end with it.
    shutdown(listener_.get(), SHUT_RDWR);
    pool_.guard().closer().Close(std::move(listener_));
  }
}

void ShimLink::Impl::Close() {
  closed_ = true;
  CloseListener();
  for (auto& [serial, candidate] : candidates_) {
    pool_.loop().Cancel(candidate.timer);
    if (candidate.hello != nullptr) {
      candidate.hello->context.TryCancel();
    }
    pool_.guard().Drop(candidate.guard_id, absl::CancelledError("the link is closed"));
    GivePlace(candidate);
  }
  candidates_.clear();
  if (connection_.has_value()) {
    pool_.guard().Drop(connection_->guard_id, absl::CancelledError("the link is closed"));
    connection_.reset();
  }
}

void ShimLink::Impl::GivePlace(Candidate& candidate) {
  if (std::exchange(candidate.has_place, false)) {
    pool_.GivePlace();
  }
}

void ShimLink::Impl::Begin(shim::v1::SandboxSetup setup) {
  options_.setup = std::move(setup);
  if (closed_ || !std::exchange(options_.ahead, false)) {
    return;
  }
  for (const auto& [serial, candidate] : candidates_) {
    // It may have come before it was known which process it has to be.
    const int expected = options_.expected_pid ? options_.expected_pid() : 0;
    if (expected != 0 && candidate.pid != expected) {
      pool_.guard().Drop(candidate.guard_id, absl::PermissionDeniedError(fmt::format(
                                                 "it is process {}, not the container's first, {}",
                                                 candidate.pid, expected)));
      continue;
    }
    StartProof(serial);
  }
  Unpark();
}

void ShimLink::Impl::Drop(const absl::Status& why) {
  if (connection_.has_value()) {
    pool_.guard().Drop(connection_->guard_id, why);
  }
}

void ShimLink::Impl::OpenAgain() {
  retry_ = 0;
  if (closed_ || poisoned_ || connection_.has_value() || listener_.valid()) {
    return;
  }
  if (const absl::Status opened = Open(); !opened.ok()) {
    retry_ = pool_.loop().After(kRetryListen, [self = shared_from_this()] { self->OpenAgain(); });
    Report(fmt::format("cannot listen for the shim: {}", Text(opened)));
  }
}

bool ShimLink::Impl::HasRoom() const {
  // The key is handed to one at a time.
  return candidates_.size() < (options_.first ? 1 : kMaxUnprovedPerLink);
}

void ShimLink::Impl::OnConnecting() {
  while (!closed_ && listener_.valid()) {
    if (!HasRoom() || !pool_.TakePlace()) {
      WaitForRoom();
      return;
    }
    UniqueFd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (peer.valid()) {
      Admit(std::move(peer));
      continue;
    }
    const int error = errno;
    pool_.GivePlace();
    if (error == EINTR || error == ECONNABORTED) {
      continue;
    }
    if (error != EAGAIN) {
      // Out of descriptors or memory: later, rather than at once again.
      WaitForRoom();
    }
    return;
  }
}

void ShimLink::Impl::WaitForRoom() {
  if (retry_ != 0) {
    return;
  }
  pool_.loop().Change(watch_, 0);
  if (options_.ahead && !HasRoom()) {
    parked_ = true;
    return;
  }
  retry_ = pool_.loop().After(kRetryAccept, [self = shared_from_this()] {
    self->retry_ = 0;
    if (self->closed_ || !self->listener_.valid()) {
      return;
    }
    pollfd waiting = {.fd = self->listener_.get(), .events = POLLIN, .revents = 0};
    if (!self->HasRoom() && poll(&waiting, 1, 0) > 0) {
      const auto& [serial, oldest] = *self->candidates_.begin();
      if (std::chrono::steady_clock::now() - oldest.since > kCrowdedTime) {
        self->pool_.guard().Drop(
            oldest.guard_id,
            absl::UnavailableError(fmt::format("it had not proved itself after {} ms, and others "
                                               "were waiting",
                                               kCrowdedTime.count())));
      }
    }
    self->pool_.loop().Change(self->watch_, EPOLLIN);
    self->OnConnecting();
  });
}

void ShimLink::Impl::Unpark() {
  if (std::exchange(parked_, false) && listener_.valid()) {
    pool_.loop().Change(watch_, EPOLLIN);
  }
}

absl::Status ShimLink::Impl::CheckCredentials(int peer, int* pid) const {
  ASSIGN_OR_RETURN(const PeerCredentials found, CredentialsOf(peer));
  *pid = found.pid;
  if (options_.peer_uid.has_value() && found.uid != *options_.peer_uid) {
    return absl::PermissionDeniedError(
        fmt::format("it is of uid {}, not {}", found.uid, *options_.peer_uid));
  }
  const int expected = options_.expected_pid ? options_.expected_pid() : 0;
  if (expected != 0 && found.pid != expected) {
    return absl::PermissionDeniedError(
        fmt::format("it is process {}, not the container's first, {}", found.pid, expected));
  }
  return absl::OkStatus();
}

// Has taken a place in the pool.
void ShimLink::Impl::Admit(UniqueFd peer) {
  int pid = 0;
  if (const absl::Status checked = CheckCredentials(peer.get(), &pid); !checked.ok()) {
    pool_.GivePlace();
    shutdown(peer.get(), SHUT_RDWR);
    pool_.guard().closer().Close(std::move(peer));
    Report(fmt::format("refused a peer: {}", Text(checked)));
    return;
  }
  const uint64_t serial = ++last_serial_;
  absl::StatusOr<FrameGuard::Guarded> guarded = pool_.guard().Guard(
      std::move(peer), options_.bounds,
      [self = shared_from_this(), serial](const absl::Status& why) {
        self->pool_.loop().Post([self, serial, why] { self->OnEnd(serial, why); });
      });
  if (!guarded.ok()) {
    pool_.GivePlace();
    Report(fmt::format("refused a peer: {}", Text(guarded.status())));
    return;
  }
  Candidate& candidate = candidates_[serial];
  candidate.guard_id = guarded->id;
  candidate.pid = pid;
  candidate.since = std::chrono::steady_clock::now();
  candidate.stub = shim::v1::Shim::NewStub(
      MakeChannel(std::move(guarded->inner), options_.bounds.max_frame_bytes));
  if (!options_.ahead) {
    StartProof(serial);
    return;
  }
  GivePlace(candidate);
  if (callbacks_.on_waiting) {
    callbacks_.on_waiting(true);
  }
}

void ShimLink::Impl::StartProof(uint64_t serial) {
  Candidate& candidate = candidates_.at(serial);
  candidate.since = std::chrono::steady_clock::now();
  candidate.timer =
      pool_.loop().After(kProofTime, [self = shared_from_this(), guard_id = candidate.guard_id] {
        self->pool_.guard().Drop(
            guard_id, absl::DeadlineExceededError(
                          fmt::format("it had not proved itself after {} ms", kProofTime.count())));
      });
  SayHello(serial, options_.first);
}

void ShimLink::Impl::SayHello(uint64_t serial, bool with_key) {
  Candidate& candidate = candidates_.at(serial);
  auto hello = std::make_shared<Hello>();
  candidate.hello = hello;
  hello->request.set_version(CREEL_VERSION);
  hello->request.set_nonce(RandomBytes(32));
  if (with_key) {
    hello->request.set_key(options_.key);
    *hello->request.mutable_setup() = options_.setup;
  }
  pool_.CallBegins();
  candidate.stub->async()->Hello(
      &hello->context, &hello->request, &hello->response,
      [self = shared_from_this(), serial, hello](const grpc::Status& status) {
        self->pool_.loop().Post(
            [self, serial, hello, status] { self->OnHello(serial, hello, status); });
        self->pool_.CallEnds();
      });
}

void ShimLink::Impl::OnHello(uint64_t serial, const std::shared_ptr<Hello>& hello,
                             const grpc::Status& status) {
  const auto it = candidates_.find(serial);
  if (closed_ || it == candidates_.end()) {
    return;
  }
  Candidate& candidate = it->second;
  // The first Hello may have arrived, and its answer been lost with the connection.
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION && options_.first &&
      !candidate.asked_again) {
    candidate.asked_again = true;
    SayHello(serial, false);
    return;
  }
  absl::Status checked;
  if (!status.ok()) {
    checked = absl::UnavailableError(fmt::format("its answer to the first call is an error: {}",
                                                 Printable(status.error_message(), 200)));
  } else {
    checked = CheckProof(*hello);
  }
  if (!checked.ok()) {
    // Where the connection has ended, the guard knows why, and tells.
    pool_.guard().Drop(candidate.guard_id, checked);
    return;
  }
  Proved(serial, hello->response.version());
}

absl::Status ShimLink::Impl::CheckProof(const Hello& hello) const {
  const std::string expected = HmacSha256(options_.key, "creel-hello-1" + hello.request.nonce());
  if (!ConstantTimeEqual(hello.response.proof(), expected)) {
    return absl::UnauthenticatedError("its proof is wrong");
  }
  if (hello.response.sandbox_id() != options_.sandbox_id) {
    return absl::UnauthenticatedError(fmt::format("it says that it is of sandbox '{}'",
                                                  Printable(hello.response.sandbox_id(), 64)));
  }
  return CheckShimVersion(CREEL_VERSION, hello.response.version());
}

void ShimLink::Impl::Proved(uint64_t serial, const std::string& version) {
  auto node = candidates_.extract(serial);
  const Candidate& proved = node.mapped();
  pool_.loop().Cancel(proved.timer);
  GivePlace(node.mapped());
  options_.first = false;
  connection_ = {.serial = serial, .guard_id = proved.guard_id};
  CloseListener();
  for (const auto& [other, candidate] : candidates_) {
    pool_.guard().Drop(candidate.guard_id,
                       absl::UnavailableError("another connection proved itself before"));
  }
  if (callbacks_.on_up) {
    callbacks_.on_up(proved.stub, version);
  }
}

void ShimLink::Impl::OnEnd(uint64_t serial, const absl::Status& why) {
  if (closed_) {
    return;
  }
  const std::shared_ptr<Impl> self = shared_from_this();
  if (absl::IsPermissionDenied(why)) {
    poisoned_ = true;
    CloseListener();
  }
  if (connection_.has_value() && connection_->serial == serial) {
    connection_.reset();
    OpenAgain();
    if (PeerIsToBlame(why)) {
      Report(fmt::format("dropped the shim's connection: {}", Text(why)));
    }
    if (!closed_ && callbacks_.on_down) {
      callbacks_.on_down(why);
    }
    return;
  }
  const auto it = candidates_.find(serial);
  if (it == candidates_.end()) {
    return;
  }
  pool_.loop().Cancel(it->second.timer);
  if (it->second.hello != nullptr) {
    it->second.hello->context.TryCancel();
  }
  GivePlace(it->second);
  candidates_.erase(it);
  Unpark();
  if (options_.ahead && callbacks_.on_waiting) {
    callbacks_.on_waiting(false);
  }
  Report(fmt::format("dropped a peer: {}",
                     why.ok() ? "it hung up before it had proved itself" : Text(why)));
}

void ShimLink::Impl::Report(const std::string& reason) {
  if (!closed_ && callbacks_.on_dropped) {
    callbacks_.on_dropped({std::chrono::system_clock::now(), reason});
  }
}

absl::StatusOr<std::unique_ptr<ShimLink>> ShimLink::Listen(LinkPool& pool, Options options,
                                                           Callbacks callbacks) {
  if (options.key.size() != 32) {
    return absl::InvalidArgumentError("the shim's key is not of 32 bytes");
  }
  auto impl = std::make_shared<Impl>(pool, std::move(options), std::move(callbacks));
  absl::Status opened;
  pool.loop().Run([&] { opened = impl->Open(); });
  RETURN_IF_ERROR(opened);
  return std::unique_ptr<ShimLink>(new ShimLink(std::move(impl)));
}

ShimLink::ShimLink(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

ShimLink::~ShimLink() {
  impl_->loop().Run([this] { impl_->Close(); });
}

void ShimLink::Begin(shim::v1::SandboxSetup setup) {
  impl_->loop().Post(
      [impl = impl_, setup = std::move(setup)]() mutable { impl->Begin(std::move(setup)); });
}

void ShimLink::Drop(const absl::Status& why) {
  impl_->loop().Post([impl = impl_, why] { impl->Drop(why); });
}

}  // namespace creel
