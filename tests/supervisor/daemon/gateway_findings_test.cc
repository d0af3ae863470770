#include "supervisor/daemon/gateway_findings.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace creel {
namespace {

// What docs/gateways.md recommends.
constexpr char kGood[] = R"({
  session: { dmScope: "per-channel-peer" },
  agents: { defaults: { sandbox: {
    mode: "non-main", backend: "creel", scope: "session", workspaceAccess: "none",
  } } },
  tools: { elevated: { enabled: false } },
  plugins: {
    allow: ["creel", "telegram"],  // and what else you use
    load: { paths: ["/usr/lib/creel/openclaw"] },
    entries: { creel: { enabled: true, config: { socket: "/run/creel/gateway.sock" } } },
  },
})";

// kGood with one piece of text in the place of another.
std::string With(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_SUITE("CheckGatewayConfig") {
  TEST_CASE("the recommended configuration has nothing to complain of") {
    const auto findings = CheckGatewayConfig(kGood, "openclaw.json");
    REQUIRE(findings.ok());
    REQUIRE(findings->size() == 1);
    CHECK(findings->front().severity == Severity::kOk);
  }

  TEST_CASE("each way out of the sandbox is a finding of its own, with reason and fix") {
    const struct {
      std::string text;
      const char* id;
      Severity severity;
    } kRows[] = {
        {With("session: { dmScope: \"per-channel-peer\" },", ""), "gateway.dm-scope",
         Severity::kError},
        {With("per-channel-peer", "main"), "gateway.dm-scope", Severity::kError},
        {With("\"per-channel-peer\"", "[]"), "gateway.dm-scope", Severity::kError},
        {With("per-channel-peer", "per-chanel-peer"), "gateway.dm-scope", Severity::kError},
        {With("mode: \"non-main\",", ""), "gateway.sandbox-off", Severity::kError},
        {With("non-main", "off"), "gateway.sandbox-off", Severity::kError},
        {With("backend: \"creel\"", "backend: \"docker\""), "gateway.backend", Severity::kError},
        {With("backend: \"creel\",", ""), "gateway.backend", Severity::kError},
        {With("agents: {", "agents: { entries: { work: { sandbox: { mode: 'off' } } },"),
         "gateway.sandbox-off", Severity::kError},
        {With("agents: {", "agents: { entries: { work: { sandbox: { backend: 'docker' } } },"),
         "gateway.backend", Severity::kError},
        {With("\"creel\", \"telegram\"", "\"telegram\""), "gateway.plugin", Severity::kError},
        {With("enabled: true", "enabled: false"), "gateway.plugin", Severity::kError},
        {With("plugins: {", "plugins: { enabled: false,"), "gateway.plugin", Severity::kError},
        {With("plugins: {", "plugins: { deny: ['creel'],"), "gateway.plugin", Severity::kError},
        {With("tools: { elevated: { enabled: false } },", ""), "gateway.elevated",
         Severity::kWarning},
        {With("plugins: {", "$include: 'more.json5', plugins: {"), "gateway.include",
         Severity::kWarning},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.text);
      const auto findings = CheckGatewayConfig(row.text, "openclaw.json");
      REQUIRE(findings.ok());
      REQUIRE(findings->size() == 1);
      CHECK(findings->front().id == row.id);
      CHECK(findings->front().severity == row.severity);
      CHECK_FALSE(findings->front().why.empty());
      CHECK_FALSE(findings->front().fix.empty());
    }
  }

  TEST_CASE("other scopes that keep senders apart are good") {
    for (const std::string scope : {"per-peer", "per-account-channel-peer"}) {
      const auto findings = CheckGatewayConfig(With("per-channel-peer", scope), "openclaw.json");
      REQUIRE(findings.ok());
      CHECK(findings->front().severity == Severity::kOk);
    }
  }

  TEST_CASE("what cannot be read is an error that says where") {
    const auto broken = CheckGatewayConfig("{\n  session: {", "openclaw.json");
    CHECK(broken.status().code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(broken.status().message()).find("openclaw.json:2") == 0);
    CHECK(CheckGatewayConfig("[]", "openclaw.json").status().code() ==
          absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace creel
