#include "supervisor/web/logins.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>
#include <utility>

#include "supervisor/audit/record_files.h"
#include "supervisor/base/crypto.h"

namespace creel::web {
namespace {

using std::chrono::system_clock;

constexpr size_t kMaxTokens = 16;
constexpr size_t kMaxLogins = 64;
constexpr size_t kMaxFile = 64u << 10;
constexpr size_t kSecretBytes = 32;

std::string HashOf(const std::string& secret) {
  Sha256 hash;
  hash.Update(secret);
  return Hex(hash.Finish());
}

}  // namespace

Logins::Logins(Options options, const Clock& clock) : options_(std::move(options)), clock_(clock) {
  Load();
}

absl::StatusOr<Logins::Token> Logins::MakeToken() {
  MutexLock lock(mu_);
  ExpireLocked();
  if (tokens_.size() >= kMaxTokens) {
    return absl::ResourceExhaustedError(
        "sixteen addresses of the page wait for a browser; use one, or try again in five minutes");
  }
  Token token{.text = Hex(RandomBytes(kSecretBytes)),
              .expires_at = clock_.Now() + options_.token_lifetime};
  tokens_[HashOf(token.text)] = token.expires_at;
  return token;
}

std::optional<Logins::Login> Logins::Redeem(const std::string& token) {
  MutexLock lock(mu_);
  ExpireLocked();
  if (tokens_.erase(HashOf(token)) == 0) {
    return std::nullopt;
  }
  if (logins_.size() >= kMaxLogins) {
    // The one that ends first makes room.
    logins_.erase(std::min_element(
        logins_.begin(), logins_.end(),
        [](const auto& a, const auto& b) { return a.second.expires_at < b.second.expires_at; }));
  }
  Login login{.cookie = Hex(RandomBytes(kSecretBytes)),
              .key = Hex(RandomBytes(kSecretBytes)),
              .name = Hex(RandomBytes(3))};
  logins_[HashOf(login.cookie)] = {.key_hash = HashOf(login.key),
                                   .name = login.name,
                                   .expires_at = clock_.Now() + options_.login_lifetime};
  SaveLocked();
  return login;
}

std::optional<std::string> Logins::Check(const std::string& cookie, const std::string& key) {
  MutexLock lock(mu_);
  // Looked up by hash: how long that takes tells nothing of the secret.
  const auto found = logins_.find(HashOf(cookie));
  if (found == logins_.end() || found->second.expires_at <= clock_.Now() ||
      !ConstantTimeEqual(found->second.key_hash, HashOf(key))) {
    return std::nullopt;
  }
  return found->second.name;
}

void Logins::End(const std::string& cookie) {
  MutexLock lock(mu_);
  if (logins_.erase(HashOf(cookie)) > 0) {
    SaveLocked();
  }
}

void Logins::EndAll() {
  MutexLock lock(mu_);
  tokens_.clear();
  logins_.clear();
  SaveLocked();
}

void Logins::ExpireLocked() {
  const auto now = clock_.Now();
  std::erase_if(tokens_, [&](const auto& each) { return each.second <= now; });
  std::erase_if(logins_, [&](const auto& each) { return each.second.expires_at <= now; });
}

// One login a line: hash of the cookie, hash of the key, name, end.
void Logins::Load() {
  if (options_.file.empty()) {
    return;
  }
  const absl::StatusOr<std::string> text = ReadRecordFile(options_.file, kMaxFile);
  if (!text.ok()) {
    return;
  }
  MutexLock lock(mu_);
  std::istringstream lines(*text);
  std::string cookie;
  Entry entry;
  int64_t end = 0;
  while (logins_.size() < kMaxLogins && lines >> cookie >> entry.key_hash >> entry.name >> end) {
    // Longer than any of ours lives none.
    const auto latest = clock_.Now() + options_.login_lifetime;
    entry.expires_at = std::min(latest, system_clock::from_time_t(end));
    logins_[cookie] = entry;
  }
  ExpireLocked();
}

void Logins::SaveLocked() {
  if (options_.file.empty()) {
    return;
  }
  std::string text;
  for (const auto& [cookie, entry] : logins_) {
    text += fmt::format("{} {} {} {}\n", cookie, entry.key_hash, entry.name,
                        system_clock::to_time_t(entry.expires_at));
  }
  if (const absl::Status saved = WriteRecordFile(options_.file, text); !saved.ok()) {
    spdlog::warn("logins of the page are kept in memory only: {}", std::string(saved.message()));
  }
}

}  // namespace creel::web
