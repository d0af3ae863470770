#include "supervisor/daemon/reload.h"

#include "supervisor/config/web_keys.h"
#include "supervisor/policy/level_limits.h"
#include "supervisor/policy/levels.h"

namespace creel {

std::vector<std::string> NeedRestart(const Config& running, const Config& fresh) {
  std::vector<std::string> sections;
  const auto compare = [&](const char* name, bool same) {
    if (!same) {
      sections.emplace_back(name);
    }
  };
  compare("engine", running.engine == fresh.engine);
  compare("paths", running.paths == fresh.paths);
  compare("gateway",
          running.gateway == fresh.gateway && running.gateway_uids == fresh.gateway_uids);
  compare("operator", running.operator_door == fresh.operator_door);
  // What it allows counts at once; whether sandboxes have a way out at all is made into them.
  compare("egress", running.egress.configured() == fresh.egress.configured());
  compare("sandbox", running.sandbox == fresh.sandbox);
  compare("audit", running.audit == fresh.audit);
  compare("incident", running.incident == fresh.incident);
  compare("web", WebConfigOf(running) == WebConfigOf(fresh));
  compare("log.journald", running.log.journald == fresh.log.journald);
  compare("concessions", running.concessions == fresh.concessions);
  return sections;
}

bool WouldGetOtherLimits(const LimitsConfig& limits, const std::string& level,
                         const Config& fresh) {
  const Levels levels(fresh.policy.levels);
  LimitsConfig would = LimitsAt(fresh.policy, fresh.sandbox.limits, levels, levels.Of(level));
  if (limits == would) {
    return false;
  }
  // A level that gets less memory is made with a smaller /tmp, or had the larger one before it
  // fell.
  FitToMemory(would);
  LimitsConfig has = limits;
  FitToMemory(has);
  return !(has == would);
}

}  // namespace creel
