#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "supervisor/config/config.h"
#include "supervisor/sandbox/host_abilities.h"

namespace creel {

// The users and groups of the host, as far as the check asks for them.
struct HostUsers {
  // The id of a group by name or number; nothing if there is none.
  std::function<std::optional<uint32_t>(const std::string& group)> group_id;
  // All groups of a user.
  std::function<std::set<uint32_t>(uint32_t uid)> groups_of;
  // Uids of the users whose own or further group this is.
  std::function<std::set<uint32_t>(uint32_t gid)> members_of;

  // Those of this machine.
  static HostUsers OfThisHost();
};

// Whether someone who may connect to gateway.sock can also open operator.sock: the model in the
// owner's session runs with the gateway's uid, and would be the operator. `own_uid` and `own_gid`
// are creeld's. The finding is `gateway-is-operator`; an error unless that concession is named.
Finding CheckDoors(const Config& config, const HostUsers& users, uint32_t own_uid,
                   uint32_t own_gid);

}  // namespace creel
