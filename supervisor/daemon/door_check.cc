#include "supervisor/daemon/door_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <vector>

namespace creel {
namespace {

constexpr size_t kMaxBuffer = 1u << 20;

// The door's group, creeld's own if none is named; nothing if there is no such group, which the
// doors themselves then refuse.
std::optional<uint32_t> GroupOf(const DoorConfig& door, const HostUsers& users, uint32_t own_gid) {
  return door.group.empty() ? std::optional(own_gid) : users.group_id(door.group);
}

// Whether `uid` may connect to the door, going by its owner, group and mode.
bool MayOpen(const DoorConfig& door, std::optional<uint32_t> gid, uint32_t uid,
             const std::set<uint32_t>& groups, uint32_t own_uid) {
  if (uid == 0) {
    return true;
  }
  if (uid == own_uid) {
    return (door.mode & S_IWUSR) != 0;
  }
  if (gid && groups.contains(*gid)) {
    return (door.mode & S_IWGRP) != 0;
  }
  return (door.mode & S_IWOTH) != 0;
}

}  // namespace

HostUsers HostUsers::OfThisHost() {
  HostUsers users;
  users.group_id = [](const std::string& group) -> std::optional<uint32_t> {
    uint32_t number = 0;
    const char* const end = group.data() + group.size();
    if (const auto [stop, error] = std::from_chars(group.data(), end, number);
        error == std::errc() && stop == end) {
      return number;
    }
    std::vector<char> buffer(4096);
    struct group entry {};
    struct group* found = nullptr;
    while (::getgrnam_r(group.c_str(), &entry, buffer.data(), buffer.size(), &found) == ERANGE &&
           buffer.size() < kMaxBuffer) {
      buffer.resize(buffer.size() * 2);
    }
    return found == nullptr ? std::nullopt : std::optional<uint32_t>(found->gr_gid);
  };
  users.groups_of = [](uint32_t uid) {
    std::set<uint32_t> groups;
    std::vector<char> buffer(16384);
    struct passwd entry {};
    struct passwd* found = nullptr;
    ::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr) {
      return groups;
    }
    int count = 64;
    std::vector<gid_t> list(static_cast<size_t>(count));
    while (::getgrouplist(entry.pw_name, entry.pw_gid, list.data(), &count) < 0 &&
           list.size() < kMaxBuffer) {
      list.resize(std::max(static_cast<size_t>(count), list.size() * 2));
      count = static_cast<int>(list.size());
    }
    groups.insert(list.begin(), list.begin() + count);
    return groups;
  };
  users.members_of = [](uint32_t gid) {
    std::set<uint32_t> members;
    std::vector<std::string> names;
    std::vector<char> buffer(4096);
    struct group entry {};
    struct group* found = nullptr;
    while (::getgrgid_r(gid, &entry, buffer.data(), buffer.size(), &found) == ERANGE &&
           buffer.size() < kMaxBuffer) {
      buffer.resize(buffer.size() * 2);
    }
    for (char** name = found == nullptr ? nullptr : entry.gr_mem;
         name != nullptr && *name != nullptr; ++name) {
      names.emplace_back(*name);
    }
    for (const std::string& name : names) {
      std::vector<char> space(16384);
      struct passwd user {};
      struct passwd* known = nullptr;
      ::getpwnam_r(name.c_str(), &user, space.data(), space.size(), &known);
      if (known != nullptr) {
        members.insert(user.pw_uid);
      }
    }
    // The group may be a user's own, which its entry does not say. Only the accounts of this
    // machine are walked; a directory of all of a company's would take its time, and has no
    // reason to hold a gateway's.
    const std::unique_ptr<FILE, decltype(&::fclose)> file(::fopen("/etc/passwd", "re"), ::fclose);
    while (file != nullptr) {
      std::vector<char> space(16384);
      struct passwd user {};
      struct passwd* known = nullptr;
      if (::fgetpwent_r(file.get(), &user, space.data(), space.size(), &known) != 0 ||
          known == nullptr) {
        break;
      }
      if (user.pw_gid == gid) {
        members.insert(user.pw_uid);
      }
    }
    return members;
  };
  return users;
}

Finding CheckDoors(const Config& config, const HostUsers& users, uint32_t own_uid,
                   uint32_t own_gid) {
  Finding finding{.id = "gateway-is-operator",
                  .severity = Severity::kOk,
                  .title = "the gateway's user cannot open operator.sock"};
  // Who may be the gateway: the uids that are named, or else all whom the socket lets in. Root is
  // then not counted, as it may connect to anything.
  const std::optional<uint32_t> gateway_gid = GroupOf(config.gateway, users, own_gid);
  const std::optional<uint32_t> operator_gid = GroupOf(config.operator_door, users, own_gid);
  std::set<uint32_t> gateways(config.gateway_uids.begin(), config.gateway_uids.end());
  if (gateways.empty() && gateway_gid && (config.gateway.mode & S_IWGRP) != 0) {
    gateways = users.members_of(*gateway_gid);
    gateways.erase(0);
    if (own_uid != 0) {
      gateways.erase(own_uid);
    }
  }
  std::vector<uint32_t> both;
  for (const uint32_t uid : gateways) {
    if (MayOpen(config.operator_door, operator_gid, uid, users.groups_of(uid), own_uid)) {
      both.push_back(uid);
    }
  }
  const bool same_group = gateway_gid && gateway_gid == operator_gid && *gateway_gid != 0 &&
                          *gateway_gid != own_gid && (config.gateway.mode & S_IWGRP) != 0 &&
                          (config.operator_door.mode & S_IWGRP) != 0;
  if (both.empty() && !same_group) {
    return finding;
  }
  finding.severity =
      config.concessions.contains(finding.id) ? Severity::kWarning : Severity::kError;
  finding.title = "the gateway's user can open operator.sock";
  finding.why = both.empty()
                    ? "gateway.sock and operator.sock belong to the same group; the model in the "
                      "owner's session, which runs as the gateway, could change every rule"
                    : fmt::format(
                          "uid {} may connect to gateway.sock and can open operator.sock "
                          "too; the model in the owner's session, which runs as the "
                          "gateway, could change every rule",
                          fmt::join(both, ", "));
  finding.fix =
      "give operator.sock a group of its own (operator.group: creel-operator) that the gateway's "
      "user is not in; or accept it with 'concessions: [gateway-is-operator]'";
  return finding;
}

}  // namespace creel
