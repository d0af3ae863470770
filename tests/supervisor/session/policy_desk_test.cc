#include "supervisor/session/policy_desk.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "tests/supervisor/session/desk_world.h"

namespace creel {
namespace {

const SenderId kOwnerSender = ParseSender("whatsapp:+15550000001");
const SenderId kFriendSender = ParseSender("whatsapp:+15550000003");
const SenderId kStrangerSender = ParseSender("whatsapp:+15559999999");

void Setup(Config& config) {
  config.policy.levels[kOwner].members = {"whatsapp:+15550000001"};
  config.policy.levels[kFriend].members = {"whatsapp:+15550000003"};
}

CallQuestion Tool(const SenderId& sender, const std::string& tool = "exec",
                  const std::string& session = "s") {
  return {.session = session,
          .sender = sender,
          .tool = tool,
          .claimed_group = {},
          .place = ToolPlace::kSandbox};
}

std::string Begin(DeskWorld& world, const CallQuestion& question) {
  const auto answer = world.desk->BeginCall(question);
  REQUIRE(answer.ok());
  return answer->decision.rule + " " + answer->level;
}

TEST_SUITE("PolicyDesk") {
  TEST_CASE("a sandbox's level only falls, whoever comes later, and survives a restart") {
    DeskWorld world(Setup);
    std::vector<std::string> falls;
    world.desk->trust().OnFall(
        [&](const std::string& name, const std::string& level) { falls.push_back(name + level); });
    CHECK(world.desk->LevelOfName("s") == "friend");  // nobody yet: trust.unnamed
    CHECK(Begin(world, Tool(kOwnerSender)) == "levels.owner.allow owner");
    CHECK(world.desk->LevelOfName("s") == "owner");
    CHECK(Begin(world, Tool(kFriendSender)) == "levels.friend.allow friend");
    CHECK(Begin(world, Tool(kOwnerSender)) == "levels.friend.allow friend");
    CHECK(Begin(world, Tool(kStrangerSender)) == "levels.stranger stranger");
    CHECK(Begin(world, Tool(kFriendSender)) == "levels.stranger stranger");
    CHECK(Begin(world, Tool({})) == "levels.stranger stranger");
    CHECK(falls == std::vector<std::string>{"sowner", "sfriend", "sstranger"});
    world.Restart();
    CHECK(world.desk->LevelOfName("s") == "stranger");
    CHECK(Begin(world, Tool(kOwnerSender)) == "levels.stranger stranger");
    CHECK(world.desk->LevelOfName("other") == "friend");
    REQUIRE(world.desk->trust().Forget("s").ok());
    CHECK(Begin(world, Tool(kOwnerSender)) == "levels.owner.allow owner");
  }

  TEST_CASE("a sandbox falls with each of those who reached it, also over a restart") {
    const SenderId other = ParseSender("whatsapp:+15550000004");
    const auto setup = [](Config& config) {
      Setup(config);
      config.policy.levels[kFriend].members.push_back("whatsapp:+15550000004");
    };
    for (const bool restart : {false, true}) {
      for (const SenderId& leaves : {kFriendSender, other}) {
        CAPTURE(restart);
        CAPTURE(leaves.text());
        DeskWorld world(setup);
        // The second and third change nothing, and count all the same.
        for (const SenderId& each : {kOwnerSender, kFriendSender, other, kFriendSender}) {
          Begin(world, Tool(each));
        }
        Begin(world, Tool(kOwnerSender, "exec", "t"));
        CHECK(world.desk->LevelOfName("s") == "friend");
        CHECK(world.desk->LevelOfName("t") == "owner");
        std::vector<std::string> falls;
        if (restart) {
          world.Restart();
          CHECK(world.desk->LevelOfName("s") == "friend");
        }
        world.desk->trust().OnFall([&](const std::string& name, const std::string& level) {
          falls.push_back(name + level);
        });
        std::erase(world.config.policy.levels[kFriend].members, leaves.text());
        REQUIRE(world.desk->Reload(world.config).ok());
        CHECK(world.desk->LevelOfName("s") == "stranger");
        CHECK(world.desk->LevelOfName("t") == "owner");
        CHECK(falls == std::vector<std::string>{"sstranger"});
        // It does not rise again.
        setup(world.config);
        REQUIRE(world.desk->Reload(world.config).ok());
        world.Restart();
        CHECK(world.desk->LevelOfName("s") == "stranger");
      }
    }
    // What was changed while nothing ran.
    DeskWorld world(setup);
    for (const SenderId& each : {kFriendSender, other}) {
      Begin(world, Tool(each));
    }
    std::erase(world.config.policy.levels[kFriend].members, other.text());
    world.Restart();
    CHECK(world.desk->LevelOfName("s") == "stranger");
  }

  TEST_CASE("so many senders of a sandbox are remembered, and who brought it to its level") {
    const auto number = [](size_t i) { return "whatsapp:+1555100" + std::to_string(1000 + i); };
    constexpr size_t kMany = TrustLevels::kMaxSenders + 10;
    DeskWorld world([&](Config& config) {
      Setup(config);
      for (size_t i = 0; i < kMany; ++i) {
        config.policy.levels[kFriend].members.push_back(number(i));
      }
    });
    Begin(world, Tool(kFriendSender));
    for (size_t i = 0; i < kMany; ++i) {
      Begin(world, Tool(ParseSender(number(i))));
      Begin(world, Tool(ParseSender(number(0))));  // stays among the last
      Begin(world, Tool(kFriendSender, "exec", std::to_string(i)));
    }
    const auto senders = world.policy_store->TrustSenders();
    REQUIRE(senders.ok());
    CHECK(std::count_if(senders->begin(), senders->end(), [](const TrustSenderRecord& record) {
            return record.name == "s";
          }) == static_cast<ptrdiff_t>(TrustLevels::kMaxSenders));
    const auto falls_without = [&](const std::string& sender) {
      Config config = world.config;
      std::erase(config.policy.levels[kFriend].members, sender);
      REQUIRE(world.desk->Reload(config).ok());
      return world.desk->LevelOfName("s") == "stranger";
    };
    CHECK_FALSE(falls_without(number(1)));  // too long ago
    SUBCASE("who brought it there") { CHECK(falls_without(kFriendSender.text())); }
    SUBCASE("who came early and still comes") { CHECK(falls_without(number(0))); }
    SUBCASE("the last") { CHECK(falls_without(number(kMany - 1))); }
    REQUIRE(world.desk->trust().Forget("s").ok());
    const auto left = world.policy_store->TrustSenders();
    REQUIRE(left.ok());
    CHECK(std::none_of(left->begin(), left->end(),
                       [](const TrustSenderRecord& record) { return record.name == "s"; }));
  }

  TEST_CASE("a sandbox falls with a pairing that is revoked, whoever else was there") {
    DeskWorld world(Setup);
    REQUIRE(world.desk->Admit({.sender = kStrangerSender, .session = "s"}).ok());
    const std::string code = world.desk->pairings().List().waiting.at(0).code;
    REQUIRE(world.desk->pairings().Approve(code, {}, "friend").ok());
    Begin(world, Tool(kFriendSender));
    Begin(world, Tool(kStrangerSender));
    CHECK(world.desk->LevelOfName("s") == "friend");
    REQUIRE(world.desk->pairings().Deny("", kStrangerSender).ok());
    world.desk->FollowStandings();
    CHECK(world.desk->LevelOfName("s") == "stranger");
  }

  TEST_CASE("a call that names nobody brings the level of the unnamed, and lowers no other") {
    DeskWorld world(Setup);
    CHECK(Begin(world, Tool({})) == "levels.friend.allow friend");
    CHECK(Begin(world, Tool(kOwnerSender)) == "levels.friend.allow friend");
    CHECK(Begin(world, Tool(kOwnerSender, "exec", "t")) == "levels.owner.allow owner");
    CHECK(Begin(world, Tool({}, "exec", "t")) == "levels.owner.allow owner");
  }

  TEST_CASE("everybody counts who was heard, whoever is said to have asked") {
    DeskWorld world(Setup);
    const auto heard = [&](const SenderId& sender, const std::string& session) {
      CallQuestion question = Tool(sender, "exec", session);
      question.also_heard = {kFriendSender, kStrangerSender};
      return question;
    };
    CHECK(Begin(world, Tool(kFriendSender)) == "levels.friend.allow friend");
    const CallAnswer judged = world.desk->Judge(heard(kFriendSender, "s"));
    CHECK(judged.level == "stranger");
    CHECK(judged.decision.reason.find(kStrangerSender.text()) != std::string::npos);
    CHECK(world.desk->LevelOfName("s") == "friend");  // judging has no effect
    CHECK(Begin(world, heard(kFriendSender, "s")) == "levels.stranger stranger");
    CHECK(world.desk->LevelOfName("s") == "stranger");
    CHECK(Begin(world, Tool(kFriendSender)) == "levels.stranger stranger");
    // A first call that names nobody does not start higher than those who were heard.
    CHECK(Begin(world, heard({}, "t")) == "levels.stranger stranger");
  }

  TEST_CASE("on the host the lowest of all who were heard decides") {
    DeskWorld world(Setup);
    for (const SenderId& asker : {kOwnerSender, SenderId()}) {
      CallQuestion question = Tool(asker, "exec", "agent:a:main");
      question.place = ToolPlace::kHost;
      CHECK(world.desk->Judge(question).decision.verdict == Verdict::kAllow);
      question.also_heard = {kFriendSender};
      const CallAnswer refused = world.desk->Judge(question);
      CHECK(refused.decision.verdict == Verdict::kDeny);
      CHECK(refused.decision.rule == "placement.level");
      CHECK(refused.level == "friend");
      question.also_heard = {kOwnerSender};
      CHECK(world.desk->Judge(question).decision.verdict == Verdict::kAllow);
    }
  }

  TEST_CASE("sessions that share a sandbox share its level") {
    DeskWorld world([](Config& c) {
      Setup(c);
      c.sandbox.scope = SandboxScope::kAgent;
    });
    CHECK(Begin(world, Tool(kStrangerSender, "exec", "agent:a:x")) == "levels.stranger stranger");
    CHECK(Begin(world, Tool(kFriendSender, "exec", "agent:a:y")) == "levels.stranger stranger");
    CHECK(Begin(world, Tool(kFriendSender, "exec", "agent:b:y")) == "levels.friend.allow friend");
  }

  TEST_CASE("an admitted message counts for the session it goes to") {
    DeskWorld world([](Config& c) {
      Setup(c);
      c.policy.channels["whatsapp"].dm_policy = DmPolicy::kOpen;
      c.policy.channels["whatsapp"].allow_from = {"*"};
    });
    const auto admitted = world.desk->Admit({.sender = kStrangerSender, .session = "s"});
    REQUIRE(admitted.ok());
    CHECK(admitted->decision.verdict == AdmitVerdict::kAdmit);
    CHECK(world.desk->LevelOfName("s") == "stranger");
  }

  TEST_CASE("judging has no effect") {
    DeskWorld world(Setup);
    CHECK(world.desk->Judge(Tool(kStrangerSender)).decision.verdict == Verdict::kDeny);
    CHECK(world.desk->Judge(AdmitQuestion{.sender = kStrangerSender}).decision.verdict ==
          AdmitVerdict::kPair);
    CHECK(world.desk->Judge(Tool(kFriendSender, "message")).decision.verdict == Verdict::kAsk);
    CHECK(world.desk->LevelOfName("s") == "friend");
    CHECK(world.desk->pairings().List().waiting.empty());
    CHECK(world.desk->approvals().List().empty());
  }

  TEST_CASE("read-only switches: for all, a level and those below, a session; over a restart") {
    DeskWorld world(Setup);
    using Kind = ReadOnlyScope::Kind;
    const auto rule = [&](const SenderId& sender, const std::string& session) {
      return world.desk->Judge(Tool(sender, "exec", session)).decision.rule;
    };
    REQUIRE(world.desk->SetReadOnly({.kind = Kind::kSession, .name = "s"}, true, "why").ok());
    CHECK(rule(kOwnerSender, "s") == "read-only.session");
    CHECK(rule(kOwnerSender, "t") == "levels.owner.allow");
    CHECK(world.desk->IsReadOnly("s"));
    CHECK(!world.desk->IsReadOnly("t"));
    REQUIRE(world.desk->SetReadOnly({.kind = Kind::kLevel, .name = "friend"}, true, "").ok());
    CHECK(rule(kFriendSender, "t") == "read-only.level");
    CHECK(rule(kOwnerSender, "t") == "levels.owner.allow");
    CHECK(absl::IsNotFound(
        world.desk->SetReadOnly({.kind = Kind::kLevel, .name = "nobody"}, true, "")));
    REQUIRE(world.desk->SetReadOnly({}, true, "all of it").ok());
    world.Restart();
    CHECK(rule(kOwnerSender, "t") == "read-only.all");
    CHECK(world.desk->ReadOnly().size() == 3);
    REQUIRE(world.desk->SetReadOnly({}, false, "").ok());
    REQUIRE(world.desk->SetReadOnly({.kind = Kind::kSession, .name = "s"}, false, "").ok());
    REQUIRE(world.desk->SetReadOnly({.kind = Kind::kLevel, .name = "friend"}, false, "").ok());
    CHECK(rule(kFriendSender, "s") == "levels.friend.allow");
  }

  TEST_CASE(
      "a new configuration counts at once, a bad one changes nothing, and who listens is told") {
    DeskWorld world(Setup);
    int told = 0;
    const auto registration = world.desk->OnChange([&] { ++told; });
    const uint64_t version = world.desk->version();
    Config fresh = world.config;
    fresh.policy.levels[kFriend].deny = {"exec"};
    REQUIRE(world.desk->Reload(fresh).ok());
    CHECK(world.desk->Judge(Tool(kFriendSender)).decision.rule == "levels.friend.deny");
    CHECK(told == 1);
    CHECK(world.desk->version() > version);
    Config bad = world.config;
    bad.policy.levels[kFriend].members.push_back("whatsapp:+15550000001");
    CHECK(!world.desk->Reload(bad).ok());
    bad = world.config;
    bad.policy.secret_files = {"/nowhere/secrets"};
    CHECK(!world.desk->Reload(bad).ok());
    CHECK(world.desk->Judge(Tool(kFriendSender)).decision.rule == "levels.friend.deny");
    CHECK(told == 1);
  }

  TEST_CASE("replies: who reads counts, and secrets of files go to nobody") {
    char name[] = "/tmp/creel-secrets-XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    ::close(fd);
    std::ofstream(name) << "# comment\nMAIL_PASSWORD='open-sesame-42'\nplain-secret-value\n";
    DeskWorld world([&](Config& c) {
      Setup(c);
      c.policy.secret_files = {name};
      c.provenance.secrets = {"the-gateway-token"};
    });
    ::unlink(name);
    const auto verdict = [&](const std::vector<SenderId>& readers, bool others,
                             std::string_view text) {
      return world.desk
          ->Judge(ReplyQuestion{
              .session = "s", .recipients = readers, .others_read = others, .text = text})
          .answer.verdict;
    };
    for (const char* secret : {"open-sesame-42", "plain-secret-value", "the-gateway-token"}) {
      CAPTURE(secret);
      CHECK(verdict({kOwnerSender}, false, secret) == ReplyVerdict::kRedact);
    }
    const char* const path = "/home/alex/x";
    CHECK(verdict({kOwnerSender}, false, path) == ReplyVerdict::kAllow);
    CHECK(verdict({kOwnerSender, kFriendSender}, false, path) == ReplyVerdict::kRedact);
    CHECK(verdict({kOwnerSender, kStrangerSender}, false, path) == ReplyVerdict::kRedact);
    CHECK(verdict({kOwnerSender}, true, path) == ReplyVerdict::kRedact);
    CHECK(verdict({}, false, path) == ReplyVerdict::kRedact);
    world.desk->SetSecrets({"another-one-from-egress"});
    CHECK(verdict({kOwnerSender}, false, "another-one-from-egress") == ReplyVerdict::kRedact);
    REQUIRE(world.desk->Reload(Config()).ok());
    CHECK(verdict({kOwnerSender}, false, "another-one-from-egress") == ReplyVerdict::kRedact);
  }

  TEST_CASE("the prompt says what the level may do, and what it must not") {
    DeskWorld world(Setup);
    const auto prompt = [&](const std::string& level) {
      const auto made = world.desk->Prompt(level, "");
      REQUIRE(made.ok());
      CHECK(made->first.size() <= 8u << 10);
      return made->first;
    };
    CHECK(prompt("owner").find("your owner") != std::string::npos);
    CHECK(prompt("owner").find("directory listings") == std::string::npos);
    CHECK(prompt("friend").find("`group:runtime`") != std::string::npos);
    CHECK(prompt("friend").find("directory listings") != std::string::npos);
    CHECK(prompt("stranger").find("No tools may be used") != std::string::npos);
    CHECK(prompt("") == prompt("stranger"));
    CHECK(absl::IsNotFound(world.desk->Prompt("king", "").status()));
    REQUIRE(world.desk->SetReadOnly({}, true, "").ok());
    CHECK(prompt("owner").find("Read-only mode is on") != std::string::npos);
  }
}

}  // namespace
}  // namespace creel
