#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "supervisor/config/load_config.h"
#include "supervisor/policy/policy.h"

namespace creel {

// The policy of a configuration that must be good.
inline std::shared_ptr<const Policy> MustCompile(const std::string& yaml) {
  const absl::StatusOr<Config> config = ParseConfig(yaml, "c.yaml");
  const std::string wrong(config.status().message());
  CAPTURE(wrong);
  REQUIRE(config.ok());
  absl::StatusOr<std::shared_ptr<const Policy>> policy = Policy::Compile(*config);
  const std::string why(policy.status().message());
  CAPTURE(why);
  REQUIRE(policy.ok());
  return *std::move(policy);
}

inline std::string Word(Verdict verdict) {
  return verdict == Verdict::kAllow ? "allow" : verdict == Verdict::kAsk ? "ask" : "deny";
}

inline std::string Word(AdmitVerdict verdict) {
  switch (verdict) {
    case AdmitVerdict::kAdmit:
      return "admit";
    case AdmitVerdict::kIgnore:
      return "ignore";
    case AdmitVerdict::kPair:
      return "pair";
    case AdmitVerdict::kDeny:
      break;
  }
  return "deny";
}

}  // namespace creel
