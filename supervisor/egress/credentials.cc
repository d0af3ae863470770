#include "supervisor/egress/credentials.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "supervisor/base/clock.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/egress/target.h"

extern char** environ;

namespace creel::egress {
namespace {

using Kind = EgressCredential::Kind;

constexpr size_t kMaxBytes = 8u << 10;
constexpr std::chrono::seconds kCommandTime{10};

absl::Status Failed(const std::string& why) { return absl::FailedPreconditionError(why); }

// Reads until the end, or one byte more than a secret may have.
absl::StatusOr<std::string> ReadAll(int fd, const std::string& what, Deadline deadline) {
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() <= kMaxBytes) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) == 0) {
      return Failed(fmt::format("{} did not come to its end in {} s", what, kCommandTime.count()));
    }
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
      continue;
    }
    if (got < 0) {
      return Failed(std::string(ErrnoStatus(errno, "read " + what).message()));
    }
    if (got == 0) {
      break;
    }
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const std::string what = fmt::format("the file '{}'", path);
  // Not blocking: the path may be a fifo.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat info {};
  if (!fd.valid() || fstat(fd.get(), &info) != 0) {
    return Failed(std::string(ErrnoStatus(errno, "open " + what).message()));
  }
  if (!S_ISREG(info.st_mode)) {
    return Failed(what + " is not a regular file");
  }
  return ReadAll(fd.get(), what, After(kCommandTime));
}

absl::StatusOr<std::string> RunCommand(const std::vector<std::string>& argv) {
  const std::string what = fmt::format("the command '{}'", argv[0]);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return Failed(std::string(ErrnoStatus(errno, "make a pipe").message()));
  }
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  std::vector<char*> arguments;
  for (const std::string& each : argv) {
    arguments.push_back(const_cast<char*>(each.c_str()));
  }
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, in.get(), 1);
  // Its own group, so that what it started ends with it; creeld's signals are blocked, its are not.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error =
      posix_spawn(&pid, arguments[0], &actions, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  in.reset();
  if (error != 0) {
    return Failed(std::string(ErrnoStatus(error, "run " + what).message()));
  }
  absl::StatusOr<std::string> text = ReadAll(out.get(), what, After(kCommandTime));
  // Whatever of it is left after its output has ended is not waited for.
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  if (!text.ok() || poll(&ended, 1, 1000) <= 0) {
    kill(-pid, SIGKILL);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (text.ok() && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
    return Failed(fmt::format("{} failed ({} {})", what, WIFEXITED(status) ? "exit" : "signal",
                              WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
  }
  return text;
}

absl::Status RevokedError(const std::string& service) {
  return absl::PermissionDeniedError(
      fmt::format("the credential of service '{}' was revoked", service));
}

std::string KindName(Kind kind) {
  switch (kind) {
    case Kind::kHeader:
      return "header";
    case Kind::kBearer:
      return "bearer";
    case Kind::kBasic:
      return "basic";
    case Kind::kQuery:
      return "query";
    case Kind::kNone:
      break;
  }
  return "none";
}

}  // namespace

absl::StatusOr<Secret> FetchSecret(const EgressCredential& credential) {
  std::string text;
  if (!credential.file.empty()) {
    ASSIGN_OR_RETURN(text, ReadFile(credential.file));
  } else if (!credential.env.empty()) {
    const char* const value = std::getenv(credential.env.c_str());
    if (value == nullptr) {
      return Failed(fmt::format("creeld has no variable '{}'", credential.env));
    }
    text = value;
  } else {
    ASSIGN_OR_RETURN(text, RunCommand(credential.command));
  }
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
    text.pop_back();
  }
  const bool plain =
      std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
  if (text.size() < 4 || text.size() > kMaxBytes || !plain) {
    return Failed("what was found there is no credential: one line of 4 to 8192 bytes is expected");
  }
  Secret secret;
  secret.value = text;
  secret.forms = FormsOf(text);
  if (credential.kind == Kind::kBearer) {
    secret.header = "Bearer " + text;
  } else if (credential.kind == Kind::kBasic) {
    const std::string pair = credential.user + ":" + text;
    secret.header = "Basic " + Base64(pair);
    const std::vector<std::string> more = FormsOf(pair);
    secret.forms.insert(secret.forms.end(), more.begin(), more.end());
  } else if (credential.kind == Kind::kHeader) {
    secret.header = text;
  }
  secret.tree = std::make_shared<const SecretTree>(secret.forms);
  return secret;
}

Credentials::Credentials() = default;

Credentials::~Credentials() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  jobs_.Stop();
}

void Credentials::Configure(const std::vector<EgressService>& services) {
  std::vector<Done> orphans;
  {
    MutexLock lock(mu_);
    std::map<std::string, Entry> fresh;
    for (const EgressService& service : services) {
      if (service.credential.kind == Kind::kNone) {
        continue;
      }
      Entry& entry = fresh[service.name];
      entry.credential = service.credential;
      const auto old = entries_.find(service.name);
      if (old == entries_.end()) {
        continue;
      }
      entry.waiting = std::move(old->second.waiting);
      if (old->second.credential == service.credential) {
        entry.secret = old->second.secret;
        entry.fetched = old->second.fetched;
      }
    }
    for (auto& [name, entry] : entries_) {
      if (!fresh.contains(name)) {
        std::move(entry.waiting.begin(), entry.waiting.end(), std::back_inserter(orphans));
      }
    }
    entries_ = std::move(fresh);
  }
  for (const Done& done : orphans) {
    done(Failed("the service was taken out of the configuration"));
  }
}

void Credentials::SetRevoked(std::set<std::string> services) {
  MutexLock lock(mu_);
  revoked_ = std::move(services);
}

void Credentials::SetListener(Listener listener) {
  {
    MutexLock change(change_mu_);
    write_ = std::move(listener.revoked);
  }
  MutexLock told(told_mu_);
  fetched_ = std::move(listener.fetched);
}

bool Credentials::FetchLocked(const std::string& service) {
  if (!fetching_.insert(service).second) {
    return true;
  }
  if (jobs_.Post([this, service] { Fetch(service); })) {
    return true;
  }
  fetching_.erase(service);
  return false;
}

void Credentials::FetchAll() {
  MutexLock lock(mu_);
  for (const auto& [service, entry] : entries_) {
    if (entry.secret == nullptr) {
      FetchLocked(service);  // what cannot be now is when it is asked for
    }
  }
}

void Credentials::Get(const std::string& service, Done done) {
  std::shared_ptr<const Secret> secret;
  absl::Status refused;
  {
    MutexLock lock(mu_);
    const auto entry = entries_.find(service);
    if (revoked_.contains(service)) {
      refused = RevokedError(service);
    } else if (entry == entries_.end()) {
      refused = Failed(fmt::format("service '{}' has no credential", service));
    } else if (entry->second.secret != nullptr && !fetching_.contains(service) &&
               std::chrono::steady_clock::now() - entry->second.fetched <
                   entry->second.credential.refresh) {
      secret = entry->second.secret;
    } else if (FetchLocked(service)) {
      entry->second.waiting.push_back(std::move(done));
      return;
    } else {
      refused = Failed("no thread can be had to fetch it");
    }
  }
  if (secret != nullptr) {
    done(secret);
  } else {
    done(refused);
  }
}

void Credentials::Fetch(const std::string& service) {
  for (;;) {
    EgressCredential credential;
    {
      MutexLock lock(mu_);
      const auto entry = entries_.find(service);
      if (stop_ || entry == entries_.end()) {
        fetching_.erase(service);
        return;
      }
      fetch_again_.erase(service);
      credential = entry->second.credential;
    }
    absl::StatusOr<Secret> fetched = FetchSecret(credential);
    absl::StatusOr<std::shared_ptr<const Secret>> secret = std::shared_ptr<const Secret>();
    if (fetched.ok()) {
      secret = std::make_shared<const Secret>(*std::move(fetched));
    } else {
      secret = fetched.status();
    }
    if (Arrived(service, credential, secret)) {
      return;
    }
  }
}

bool Credentials::Arrived(const std::string& service, const EgressCredential& credential,
                          const absl::StatusOr<std::shared_ptr<const Secret>>& secret) {
  bool fresh = false;
  {
    MutexLock lock(mu_);
    const auto entry = entries_.find(service);
    if (entry == entries_.end() || !(entry->second.credential == credential)) {
      return false;  // it was changed meanwhile, or taken out
    }
    if (secret.ok()) {
      fresh = entry->second.secret == nullptr || entry->second.secret->value != (*secret)->value;
      entry->second.secret = *secret;
      entry->second.fetched = std::chrono::steady_clock::now();
    }
  }
  // Masked before it is used.
  if (fresh) {
    MutexLock told(told_mu_);
    if (fetched_) {
      fetched_();
    }
  }
  std::vector<Done> waiting;
  absl::StatusOr<std::shared_ptr<const Secret>> answer = secret;
  {
    MutexLock lock(mu_);
    const auto entry = entries_.find(service);
    if (entry == entries_.end() || !(entry->second.credential == credential) ||
        fetch_again_.contains(service)) {
      return false;
    }
    if (revoked_.contains(service)) {
      answer = RevokedError(service);  // while it was being fetched
    }
    waiting.swap(entry->second.waiting);
    fetching_.erase(service);
  }
  for (const Done& done : waiting) {
    done(answer);
  }
  return true;
}

absl::Status Credentials::Revoke(const std::string& service) {
  MutexLock change(change_mu_);
  std::set<std::string> now;
  {
    MutexLock lock(mu_);
    if (!entries_.contains(service)) {
      return absl::NotFoundError(fmt::format("no service '{}' has a credential", service));
    }
    // First the effect: a disk that is full must not keep it in use.
    revoked_.insert(service);
    now = revoked_;
  }
  return write_ ? Annotate(write_(now), "it is revoked, but a restart would not know it")
                : absl::OkStatus();
}

absl::Status Credentials::Restore(const std::string& service) {
  MutexLock change(change_mu_);
  std::set<std::string> now;
  {
    MutexLock lock(mu_);
    now = revoked_;
  }
  if (now.erase(service) == 0) {
    return absl::NotFoundError(fmt::format("no credential of service '{}' is revoked", service));
  }
  if (write_) {
    RETURN_IF_ERROR(Annotate(write_(now), "it stays revoked"));
  }
  MutexLock lock(mu_);
  revoked_ = std::move(now);
  const auto entry = entries_.find(service);
  if (entry != entries_.end()) {
    // It was rotated, one hopes: no longer fresh. Until then the old value stays masked.
    if (fetching_.contains(service)) {
      fetch_again_.insert(service);
    }
    entry->second.fetched = std::chrono::steady_clock::now() - entry->second.credential.refresh;
  }
  return absl::OkStatus();
}

bool Credentials::IsRevoked(const std::string& service) const {
  MutexLock lock(mu_);
  return revoked_.contains(service);
}

std::vector<CredentialInfo> Credentials::List() const {
  MutexLock lock(mu_);
  std::vector<CredentialInfo> list;
  for (const auto& [name, entry] : entries_) {
    const EgressCredential& credential = entry.credential;
    list.push_back({.service = name,
                    .kind = KindName(credential.kind),
                    .source = !credential.file.empty()  ? "file " + credential.file
                              : !credential.env.empty() ? "environment variable " + credential.env
                                                        : "command " + credential.command[0],
                    .revoked = revoked_.contains(name)});
  }
  return list;
}

std::vector<std::string> Credentials::Forms() const {
  MutexLock lock(mu_);
  std::vector<std::string> forms;
  for (const auto& [name, entry] : entries_) {
    if (entry.secret != nullptr) {
      forms.insert(forms.end(), entry.secret->forms.begin(), entry.secret->forms.end());
    }
  }
  return forms;
}

std::vector<std::pair<std::string, std::string>> Credentials::NamedForms() const {
  MutexLock lock(mu_);
  std::vector<std::pair<std::string, std::string>> forms;
  for (const auto& [name, entry] : entries_) {
    if (entry.secret != nullptr) {
      for (const std::string& form : entry.secret->forms) {
        forms.emplace_back(name, form);
      }
    }
  }
  return forms;
}

}  // namespace creel::egress
