#include "supervisor/daemon/policy_findings.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>

#include "supervisor/config/load_config.h"

namespace creel {
namespace {

constexpr char kGood[] =
    "levels: {owner: {members: ['whatsapp:+15550000001']}}\n"
    "channels: {whatsapp: {own_id: '+15550000009'}}\n";

std::vector<Finding> FindingsFor(const std::string& yaml) {
  const absl::StatusOr<Config> config = ParseConfig(yaml, "");
  const std::string why(config.status().message());
  CAPTURE(why);
  REQUIRE(config.ok());
  return PolicyFindings(*config);
}

const Finding* Find(const std::vector<Finding>& findings, const std::string& id) {
  const auto found = std::find_if(findings.begin(), findings.end(),
                                  [&](const Finding& one) { return one.id == id; });
  return found == findings.end() ? nullptr : &*found;
}

TEST_SUITE("PolicyFindings") {
  TEST_CASE("a careful policy has nothing to complain of") {
    const std::vector<Finding> findings = FindingsFor(kGood);
    REQUIRE(findings.size() == 1);
    CHECK(findings[0].severity == Severity::kOk);
  }

  TEST_CASE("each weakness is a finding with its reason and its fix") {
    const struct {
      const char* yaml;
      const char* id;
      Severity severity;
    } kRows[] = {
        {"log: {level: info}", "policy.no-owner", Severity::kWarning},
        {"levels: {owner: {members: ['*']}}", "policy.owner-star", Severity::kError},
        {"channels: {telegram: {dm_policy: open}}", "policy.dm-open", Severity::kError},
        {"channels: {telegram: {allow_from: ['*']}}", "policy.allow-star", Severity::kWarning},
        {"channels: {telegram: {group_policy: open}}", "policy.group-open", Severity::kWarning},
        {"channels: {telegram: {group_allow_from: ['*']}}", "policy.group-star",
         Severity::kWarning},
        {"channels: {telegram: {groups: {'1': {require_mention: false}}}}", "policy.no-mention",
         Severity::kWarning},
        {"levels: {stranger: {allow: [bash]}}", "policy.stranger-tools", Severity::kError},
        {"levels: {stranger: {allow: ['*']}}", "policy.stranger-tools", Severity::kError},
        {"levels: {friend: {host: true}}", "policy.host-level", Severity::kError},
        {"trust: {unnamed: owner}", "policy.unnamed", Severity::kError},
        {"sandbox: {mode: 'off'}\nconcessions: [mode-off]", "policy.sandbox-off", Severity::kError},
        {"sandbox: {workspace_access: rw, protect: []}", "policy.git-hooks", Severity::kError},
        {"levels: {owner: {members: ['+15550000009']}}\nchannels: {whatsapp: {own_id: "
         "'15550000009@s.whatsapp.net'}}",
         "policy.own-number", Severity::kWarning},
        {"egress: {services: [{name: e, url: 'unix:///var/run/docker.sock', levels: [owner], "
         "allow: [{path: /x}]}]}",
         "egress.engine-socket", Severity::kError},
        {"egress: {services: [{name: e, url: 'http://a.example', levels: [owner], allow: "
         "[{methods: [GET, POST], path: '/**'}]}]}",
         "egress.service-star", Severity::kWarning},
        {"egress: {services: [{name: e, url: 'http://a.example', sessions: ['*'], allow: [{path: "
         "/x}]}]}",
         "egress.strangers", Severity::kError},
        {"egress: {hosts: [{name: a.example, levels: [stranger]}]}", "egress.strangers",
         Severity::kWarning},
        {"egress: {hosts: [{name: '*.pages.example', levels: [owner]}]}", "egress.host-star",
         Severity::kWarning},
        {"engine: {host: 'unix:///srv/engine/docker.sock'}\nsandbox: {workspace_roots: [/srv]}",
         "sandbox.engine-socket", Severity::kError},
        {"sandbox: {workspace_roots: [/var/run]}", "sandbox.engine-socket", Severity::kError},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.yaml);
      const std::vector<Finding> findings = FindingsFor(row.yaml);
      const Finding* const found = Find(findings, row.id);
      REQUIRE(found != nullptr);
      CHECK(found->severity == row.severity);
      CHECK(!found->why.empty());
      CHECK(!found->fix.empty());
    }
  }

  TEST_CASE("what is too wide altogether is refused before it is a finding") {
    CHECK_FALSE(ParseConfig("egress: {hosts: [{name: '*.com', levels: [owner]}]}", "").ok());
    CHECK_FALSE(ParseConfig("sandbox: {workspace_roots: [/var]}", "").ok());
    CHECK_FALSE(ParseConfig("sandbox: {workspace_roots: [/run]}", "").ok());
  }

  TEST_CASE("files that others can change or read") {
    char name[] = "/tmp/creel-findings-XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::close(fd);
    std::ofstream(name) << "{gateway: {auth: {token: 'a-token-of-some-length'}}}";
    const std::string secrets = kGood + ("replies: {secret_files: [" + std::string(name) + "]}");
    ::chmod(name, 0600);
    CHECK(FindingsFor(secrets).size() == 1);
    const auto mode = [&] {
      struct stat info {};
      REQUIRE(::stat(name, &info) == 0);
      return info.st_mode & 07777;
    };
    for (const auto& [id, bad] :
         {std::pair("files.readable", 0604), std::pair("files.writable", 0620)}) {
      ::chmod(name, static_cast<mode_t>(bad));
      const std::vector<Finding> found = FindingsFor(secrets);
      const Finding* const finding = Find(found, id);
      REQUIRE(finding != nullptr);
      // Looking changes nothing; putting it right does.
      CHECK(mode() == static_cast<mode_t>(bad));
      REQUIRE(finding->put_right);
      CHECK(finding->put_right().ok());
      CHECK(mode() == 0600);
      CHECK(FindingsFor(secrets).size() == 1);
      // What has become a link meanwhile is not followed.
      ::chmod(name, static_cast<mode_t>(bad));
      const std::string moved = std::string(name) + ".moved";
      REQUIRE(::rename(name, moved.c_str()) == 0);
      REQUIRE(::symlink(moved.c_str(), name) == 0);
      CHECK_FALSE(finding->put_right().ok());
      CHECK(mode() == static_cast<mode_t>(bad));
      REQUIRE(::rename(moved.c_str(), name) == 0);
    }
    ::chmod(name, 0600);
    ::chmod(name, 0600);
    const std::string import = kGood + ("gateway: {import: " + std::string(name) + "}");
    const std::vector<Finding> findings = FindingsFor(import);
    REQUIRE(Find(findings, "policy.dm-scope") != nullptr);
    CHECK(Find(findings, "policy.dm-scope")->severity == Severity::kError);
    ::unlink(name);
  }
}

}  // namespace
}  // namespace creel
