#include "supervisor/config/gateway_import.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <string>

#include "supervisor/config/load_config.h"

namespace creel {
namespace {

const std::string kFixtures = std::string(CREEL_FIXTURES) + "/gateway/";

// The configuration that imports `file` and says `more` besides.
absl::StatusOr<Config> Imported(const std::string& file, const std::string& more = "") {
  const auto began = std::chrono::steady_clock::now();
  absl::StatusOr<Config> config =
      ParseConfig("gateway: {import: \"" + file + "\"}\n" + more, "c.yaml");
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(1));
  return config;
}

Config MustImport(const std::string& name, const std::string& more = "") {
  absl::StatusOr<Config> config = Imported(kFixtures + name, more);
  const std::string why(config.status().message());
  CAPTURE(why);
  REQUIRE(config.ok());
  return *std::move(config);
}

bool Ignores(const Config& config, const std::string& key) {
  const auto& ignored = config.provenance.ignored;
  return std::any_of(ignored.begin(), ignored.end(), [&](const IgnoredKey& one) {
    return one.key == key && !one.why.empty() && one.line > 0;
  });
}

// A file made for one case, removed at its end.
class TempFile {
 public:
  explicit TempFile(const std::string& text) {
    char name[] = "/tmp/creel-import-XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::close(fd);
    path_ = name;
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~TempFile() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_SUITE("GatewayImport") {
  TEST_CASE("a gateway of today: what it says is taken over, and where it says so") {
    const Config config = MustImport("openclaw-typical.json5");
    const ChannelConfig& whatsapp = config.policy.channels.at("whatsapp");
    CHECK(whatsapp.dm_policy == DmPolicy::kPairing);
    CHECK(whatsapp.allow_from == std::vector<std::string>{"+15555550123", "+1 555 555 0124"});
    CHECK(whatsapp.group_allow_from == std::vector<std::string>{"+15555550125"});
    REQUIRE(whatsapp.groups.size() == 2);
    CHECK(whatsapp.groups.at("120363000000000001@g.us").require_mention);
    CHECK(!whatsapp.groups.at("120363000000000002@g.us").require_mention);
    const ChannelConfig& telegram = config.policy.channels.at("telegram");
    CHECK(telegram.dm_policy == DmPolicy::kAllowlist);
    CHECK(telegram.allow_from == std::vector<std::string>{"12345", "@somebody"});
    std::vector<std::string> patterns = config.policy.mention_patterns;
    std::sort(patterns.begin(), patterns.end());
    CHECK(patterns == std::vector<std::string>{"@clawd", "@mybot", "\\blobster\\b"});
    CHECK(config.sandbox.image == "my-tools:1");
    CHECK(config.sandbox.limits.pids == 128);
    CHECK(config.sandbox.limits.memory_bytes == 512ull << 20);
    // What is memory too, and was not said, shrinks with it.
    CHECK(config.sandbox.limits.tmp_bytes == 128ull << 20);
    CHECK(config.sandbox.limits.cpus == 2);
    CHECK(config.sandbox.env.at("LANG") == "C.UTF-8");
    CHECK(config.sessions.idle_timeout == std::chrono::hours(12));
    CHECK(config.sessions.max_age == std::chrono::hours(72));
    CHECK(config.policy.levels.at(kFriend).allow ==
          std::vector<std::string>{"exec", "process", "read", "write", "edit"});
    CHECK(config.policy.levels.at(kFriend).deny == std::vector<std::string>{"browser", "cron"});
    CHECK(config.provenance.dm_scope == "per-channel-peer");
    // Nobody becomes an owner.
    CHECK(config.policy.levels.at(kOwner).members.empty());

    const Origin& origin = config.provenance.origins.at("channels.whatsapp.allow_from");
    CHECK(origin.file == kFixtures + "openclaw-typical.json5");
    CHECK(origin.line == 20);
    CHECK(origin.source_key == "channels.whatsapp.allowFrom");
    CHECK(origin.value == "[+15555550123, +1 555 555 0124]");
    CHECK(Ignores(config, "models"));
    CHECK(Ignores(config, "agents.defaults.sandbox.docker.network"));
    CHECK(Ignores(config, "tools.elevated"));
    // Its secrets are known, so that they never leave in a reply, and are shown nowhere.
    std::vector<std::string> secrets = config.provenance.secrets;
    std::sort(secrets.begin(), secrets.end());
    CHECK(secrets == std::vector<std::string>{"123456:fixture-bot-token", "fixture-gateway-token-1",
                                              "fixture-provider-key-1"});
    for (const auto& [key, one] : config.provenance.origins) {
      CHECK(one.value.find("fixture-") == std::string::npos);
    }
  }

  TEST_CASE("what stands in creel.yaml wins") {
    const Config config = MustImport("openclaw-typical.json5",
                                     "channels: {whatsapp: {allow_from: ['+1999'], dm_policy: "
                                     "allowlist}}\nsandbox: {limits: {pids: 64}}\n");
    const ChannelConfig& whatsapp = config.policy.channels.at("whatsapp");
    CHECK(whatsapp.allow_from == std::vector<std::string>{"+1999"});
    CHECK(whatsapp.dm_policy == DmPolicy::kAllowlist);
    CHECK(whatsapp.groups.size() == 2);
    CHECK(config.sandbox.limits.pids == 64);
    CHECK(config.provenance.origins.at("channels.whatsapp.allow_from").file == "c.yaml");
    CHECK(config.provenance.origins.at("channels.whatsapp.group_allow_from").file != "c.yaml");
  }

  TEST_CASE("an open gateway opens no more than it says, and never switches the sandbox off") {
    const Config config = MustImport("openclaw-open.json5");
    CHECK(config.policy.channels.at("discord").dm_policy == DmPolicy::kOpen);
    CHECK(config.policy.channels.at("discord").group_policy == GroupPolicy::kOpen);
    CHECK(!config.policy.channels.contains("slack"));
    CHECK(!config.policy.channels.contains("defaults"));
    CHECK(config.sandbox.mode == SandboxMode::kNonMain);
    CHECK(config.policy.mention_patterns == std::vector<std::string>{"a-bot"});
    CHECK(Ignores(config, "channels.slack"));
    CHECK(Ignores(config, "channels.defaults"));
    CHECK(Ignores(config, "agents.defaults.sandbox.mode"));
  }

  TEST_CASE("a gateway of January 2026") {
    const Config config = MustImport("clawdbot-january.json5");
    const ChannelConfig& whatsapp = config.policy.channels.at("whatsapp");
    CHECK(whatsapp.dm_policy == DmPolicy::kPairing);
    CHECK(whatsapp.allow_from == std::vector<std::string>{"+15555550123", "+15555550199"});
    CHECK(whatsapp.groups.at("*").require_mention);
    CHECK(config.policy.channels.at("telegram").allow_from == std::vector<std::string>{"tg:77"});
    CHECK(config.policy.mention_patterns == std::vector<std::string>{"@clawd", "@mybot"});
    CHECK(config.sandbox.mode == SandboxMode::kAll);
    CHECK(config.sandbox.scope == SandboxScope::kSession);
    CHECK(config.sandbox.workspace_roots == std::vector<std::string>{"/srv/clawd-workspaces"});
    CHECK(config.sandbox.image == "clawdbot-sandbox:bookworm-slim");
    CHECK(config.sandbox.limits.memory_bytes == 1ull << 30);
    CHECK(config.sandbox.limits.cpus == 1);
    CHECK(config.sandbox.limits.pids == 256);
    CHECK(config.sessions.max_age == std::chrono::hours(7 * 24));
    CHECK(config.policy.levels.at(kFriend).allow[0] == "bash");
    CHECK(config.policy.levels.at(kFriend).deny.size() == 5);
    CHECK(Ignores(config, "agent.elevated"));
    CHECK(Ignores(config, "agent.sandbox.docker.capDrop"));
  }

  TEST_CASE("what people write by hand is read") {
    const Config config = MustImport("json5-oddities.json5");
    CHECK(config.policy.channels.at("whatsapp").allow_from ==
          std::vector<std::string>{"+15555550123", "+15555550124", "+15555550125"});
    CHECK(config.policy.channels.at("whatsapp").group_policy == GroupPolicy::kDisabled);
    CHECK(Ignores(config, "unused"));
  }

  TEST_CASE("patterns that are slow elsewhere are not here") {
    CHECK(MustImport("catastrophic-patterns.json5").policy.mention_patterns.size() == 3);
  }

  TEST_CASE("broken and hostile files are refused with file, line and key, at once") {
    const struct {
      const char* file;
      const char* where;  // after the file's name
      const char* why;
    } kRows[] = {
        {"duplicate-key.json5", ":1:48", "'whatsapp' stands here twice"},
        {"wrong-type.json5", ":4:18", "'channels.whatsapp.allowFrom' wants a list"},
        {"wrong-shape.json5", ":2:13", "'channels' must be an object"},
        {"wrong-word.json5", ":3:27", "did you mean 'pairing'"},
        {"include.json5", ":2:3", "'$include' is not followed"},
        {"environment.json5", ":3:", "'channels.whatsapp.allowFrom' holds"},
        {"cut-off.json5", ":3:1", "never closed"},
        {"lookahead.json5", ":2:", "'messages.groupChat.mentionPatterns' has a pattern"},
        {"huge-repetition.json5", ":3:", "cannot be used"},
        {"billion-laughs.yaml", ":1:1", "no value"},
        {"wrong-size.json5", ":2:", "'agents.defaults.sandbox.docker.memory' wants a size"},
        {"open-comment.json5", ":3:16", "never closed"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.file);
      const absl::StatusOr<Config> config = Imported(kFixtures + row.file);
      const std::string refusal(config.status().message());
      CAPTURE(refusal);
      CHECK(config.status().code() == absl::StatusCode::kInvalidArgument);
      CHECK(refusal.find(kFixtures + row.file + row.where) != std::string::npos);
      CHECK(refusal.find(row.why) != std::string::npos);
    }
  }

  TEST_CASE("files that are too large for the repository are refused as well") {
    const struct {
      std::string text;
      const char* why;
    } kRows[] = {
        {"{messages: {groupChat: {\n mentionPatterns: [\"" + std::string(10u << 20, 'a') + "\"]}}}",
         ":2:19: 'messages.groupChat.mentionPatterns' has an item (line 2) of 10485760 bytes"},
        {std::string(10'000, '['), "more than 64 levels"},
        {"{a:" + std::string(10'000, '{'), "a key must come here"},
        {"{channels: {whatsapp: {allowFrom: [" +
             [] {
               std::string many;
               for (int i = 0; i < 70'000; ++i) {
                 many += "'1',";
               }
               return many;
             }() +
             "]}}}",
         "has 70000 items"},
        {std::string(17u << 20, ' '), "16 MiB"},
    };
    for (const auto& row : kRows) {
      const TempFile file(row.text);
      const absl::StatusOr<Config> config = Imported(file.path());
      const std::string refusal = std::string(config.status().message()).substr(0, 500);
      CAPTURE(refusal);
      CHECK(!config.ok());
      CHECK(refusal.find(file.path()) != std::string::npos);
      CHECK(refusal.find(row.why) != std::string::npos);
    }
  }

  TEST_CASE("aliases that would grow without end are refused in creel.yaml too") {
    std::ifstream file(kFixtures + "billion-laughs.yaml");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const absl::StatusOr<Config> config = ParseConfig(text, "c.yaml");
    REQUIRE(!config.ok());
    CHECK(std::string(config.status().message()).find("c.yaml:1:4") != std::string::npos);
  }

  TEST_CASE("a file that is not there is an error that names the key") {
    const absl::StatusOr<Config> config = Imported("/nowhere/openclaw.json");
    REQUIRE(!config.ok());
    CHECK(std::string(config.status().message()).find("gateway.import") != std::string::npos);
  }
}

}  // namespace
}  // namespace creel
