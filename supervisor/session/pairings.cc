#include "supervisor/session/pairings.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"

namespace creel {
namespace {

constexpr size_t kCodeLength = 8;
// 32 characters, so that each takes five random bits evenly.
constexpr std::string_view kAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
constexpr size_t kMaxWrong = 10;
constexpr std::chrono::minutes kWrongWithin{1};
constexpr size_t kMaxName = 256;
// Of all accounts together: a gateway may make up as many as it likes.
constexpr size_t kMaxWaiting = 1000;

// As a person typed it.
std::string NormalCode(std::string_view code) {
  std::string normal;
  for (const char c : code) {
    if (c != ' ' && c != '-') {
      normal += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  return normal;
}

}  // namespace

std::string MakePairingCode() {
  std::string code;
  for (const char byte : RandomBytes(kCodeLength)) {
    code += kAlphabet[static_cast<unsigned char>(byte) % kAlphabet.size()];
  }
  return code;
}

absl::StatusOr<std::unique_ptr<Pairings>> Pairings::Load(PolicyStore& store, const Clock& clock) {
  std::unique_ptr<Pairings> pairings(new Pairings(store, clock));
  MutexLock hold(pairings->mu_);
  ASSIGN_OR_RETURN(pairings->waiting_, store.PairingRequests());
  ASSIGN_OR_RETURN(const std::vector<PairingRecord> approved, store.Pairings());
  for (const PairingRecord& record : approved) {
    pairings->approved_.emplace(record.channel + ":" + record.sender, record);
  }
  return pairings;
}

std::string Pairings::LevelOf(const SenderId& sender) const {
  MutexLock hold(mu_);
  const auto found = approved_.find(sender.text());
  return found == approved_.end() ? std::string() : found->second.level;
}

void Pairings::DropExpiredLocked() {
  const auto now = clock_.Now();
  std::erase_if(waiting_, [&](const PairingRequestRecord& request) {
    // One that cannot be removed from the store is dropped again at the next start.
    return request.expires_at <= now &&
           (static_cast<void>(store_.RemovePairingRequest(request)), true);
  });
}

absl::StatusOr<std::string> Pairings::Request(const SenderId& sender, const std::string& account,
                                              const std::string& name,
                                              std::chrono::seconds lifetime, uint32_t max_pending) {
  MutexLock hold(mu_);
  DropExpiredLocked();
  size_t pending = 0;
  for (const PairingRequestRecord& request : waiting_) {
    if (request.channel != sender.channel || request.account != account) {
      continue;
    }
    if (request.sender == sender.id) {
      return std::string();
    }
    ++pending;
  }
  if (pending >= max_pending || waiting_.size() >= kMaxWaiting) {
    return std::string();
  }
  PairingRequestRecord request{.channel = sender.channel,
                               .account = account,
                               .sender = sender.id,
                               .name = Printable(name, kMaxName),
                               .code = MakePairingCode(),
                               .created_at = clock_.Now(),
                               .expires_at = clock_.Now() + lifetime};
  RETURN_IF_ERROR(Annotate(store_.Put(request), "write the pairing down"));
  waiting_.push_back(request);
  return request.code;
}

Pairings::Lists Pairings::List() {
  MutexLock hold(mu_);
  DropExpiredLocked();
  Lists lists{.waiting = waiting_, .approved = {}};
  for (const auto& [name, record] : approved_) {
    lists.approved.push_back(record);
  }
  std::sort(
      lists.approved.begin(), lists.approved.end(),
      [](const PairingRecord& a, const PairingRecord& b) { return a.approved_at < b.approved_at; });
  return lists;
}

absl::StatusOr<size_t> Pairings::FindLocked(const std::string& code, const SenderId& sender) {
  DropExpiredLocked();
  if (code.empty()) {
    for (size_t i = 0; i < waiting_.size(); ++i) {
      if (waiting_[i].channel == sender.channel && waiting_[i].sender == sender.id) {
        return i;
      }
    }
    return absl::NotFoundError(
        fmt::format("'{}' does not wait for an answer; creel pairing list "
                    "shows who does",
                    Printable(sender.text(), 120)));
  }
  const auto now = clock_.Steady();
  std::erase_if(wrong_, [&](const auto& at) { return at + kWrongWithin <= now; });
  if (wrong_.size() >= kMaxWrong) {
    return absl::ResourceExhaustedError("too many wrong codes; try again in a minute");
  }
  const std::string normal = NormalCode(code);
  size_t found = waiting_.size();
  for (size_t i = 0; i < waiting_.size(); ++i) {
    // All are compared, so that the time tells nothing of which came near.
    if (ConstantTimeEqual(waiting_[i].code, normal)) {
      found = i;
    }
  }
  if (found == waiting_.size()) {
    wrong_.push_back(now);
    return absl::NotFoundError(
        "no such code waits, or it has expired; creel pairing list shows "
        "those that do");
  }
  return found;
}

absl::StatusOr<PairingRecord> Pairings::Approve(const std::string& code, const SenderId& sender,
                                                const std::string& level) {
  MutexLock hold(mu_);
  ASSIGN_OR_RETURN(const size_t index, FindLocked(code, sender));
  const PairingRequestRecord request = waiting_[index];
  PairingRecord record{.channel = request.channel,
                       .sender = request.sender,
                       .name = request.name,
                       .level = level,
                       .approved_at = clock_.Now()};
  RETURN_IF_ERROR(Annotate(store_.Put(record), "write the pairing down"));
  RETURN_IF_ERROR(store_.RemovePairingRequest(request));
  waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(index));
  approved_[record.channel + ":" + record.sender] = record;
  return record;
}

absl::StatusOr<uint32_t> Pairings::Deny(const std::string& code, const SenderId& sender) {
  MutexLock hold(mu_);
  uint32_t removed = 0;
  if (code.empty()) {
    if (const auto found = approved_.find(sender.text()); found != approved_.end()) {
      RETURN_IF_ERROR(store_.RemovePairing(sender.channel, sender.id));
      approved_.erase(found);
      ++removed;
    }
  }
  const absl::StatusOr<size_t> index = FindLocked(code, sender);
  if (index.ok()) {
    RETURN_IF_ERROR(store_.RemovePairingRequest(waiting_[*index]));
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(*index));
    ++removed;
  }
  if (removed == 0) {
    return index.status();
  }
  return removed;
}

}  // namespace creel
