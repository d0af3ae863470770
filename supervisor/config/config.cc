#include "supervisor/config/config.h"

namespace creel {

const std::vector<std::string> kConcessions{
    "no-sized-workspace", "no-idmap",      "tool-root",     "gateway-is-operator",
    "no-apparmor",        "no-seccomp",    "mode-off",      "rootless-engine",
    "userns-remap",       "no-blkio",      "no-pids-limit", "no-memory-limit",
    "egress-no-tls",      "egress-no-sni",
};

}  // namespace creel
