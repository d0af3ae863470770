// Who may ask for what, from the gateway's question to what happens in a real sandbox.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/support/process.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

using Steady = std::chrono::steady_clock;
namespace g = gateway::v1;
namespace o = operator_::v1;

constexpr char kOwnerId[] = "+15550000001";
constexpr char kFriendId[] = "+15550000003";
constexpr char kStrangerId[] = "+15559999999";
constexpr char kSession[] = "agent:main:whatsapp:direct:one";
constexpr char kConfig[] = R"yaml(
levels:
  owner: {members: ["whatsapp:+15550000001"]}
channels:
  whatsapp: {allow_from: ["+15550000003"], groups: {"111": {}}}
mention_patterns: ["@clawd"]
rules:
  ask-before-moving: {tools: [move], verdict: ask}
approvals: {timeout: 10s}
)yaml";

template <typename Stub, typename Request, typename Response>
grpc::Status Call(Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response& response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  return (stub.*method)(&context, request, &response);
}

void SetSender(g::Sender& sender, const std::string& id) {
  sender.set_channel("whatsapp");
  sender.set_id(id);
}

g::AdmitRequest Message(const std::string& sender, const std::string& group,
                        const std::string& text) {
  g::AdmitRequest request;
  SetSender(*request.mutable_sender(), sender);
  request.set_is_group(!group.empty());
  request.set_chat_id(group);
  request.set_text(text);
  return request;
}

g::AuthorizeRequest Tool(const std::string& sender, const std::string& tool,
                         const std::string& session = kSession) {
  g::AuthorizeRequest request;
  request.set_session(session);
  if (!sender.empty()) {
    SetSender(*request.mutable_sender(), sender);
  }
  request.set_tool(tool);
  request.set_parameters("{}");
  return request;
}

g::CheckReplyRequest Reply(const std::string& reader, const std::string& text) {
  g::CheckReplyRequest request;
  request.set_session(kSession);
  SetSender(*request.add_recipients(), reader);
  request.set_kind(g::REPLY_KIND_ANSWER);
  request.set_text(text);
  return request;
}

class House {
 public:
  // `levels`: more lines of the section `levels`.
  explicit House(const std::string& levels = "")
      : supervisor({.extra_config = With(kConfig, levels)}) {}

  g::AdmitResponse Admit(const g::AdmitRequest& request) {
    g::AdmitResponse response;
    const grpc::Status status =
        Call(supervisor.gateway(), &g::Gateway::Stub::Admit, request, response);
    const std::string why = status.error_message();
    CAPTURE(why);
    REQUIRE(status.ok());
    return response;
  }
  g::AuthorizeResponse Authorize(const g::AuthorizeRequest& request) {
    g::AuthorizeResponse response;
    const grpc::Status status =
        Call(supervisor.gateway(), &g::Gateway::Stub::Authorize, request, response);
    const std::string why = status.error_message();
    CAPTURE(why);
    REQUIRE(status.ok());
    return response;
  }
  g::CheckReplyResponse CheckReply(const g::CheckReplyRequest& request) {
    g::CheckReplyResponse response;
    REQUIRE(Call(supervisor.gateway(), &g::Gateway::Stub::CheckReply, request, response).ok());
    return response;
  }
  o::ExplainResponse Explain(const o::ExplainRequest& request) {
    o::ExplainResponse response;
    REQUIRE(Call(supervisor.operators(), &o::Operator::Stub::Explain, request, response).ok());
    return response;
  }
  Outcome ExecAs(const std::string& sender, const std::vector<std::string>& argv,
                 const std::string& session = kSession) {
    return supervisor.Exec(session, argv, [&](g::ExecStart& start) {
      start.mutable_context()->set_sender(sender.empty() ? "" : "whatsapp:" + sender);
    });
  }
  // The `creel` command, as the operator types it.
  std::pair<int, std::string> Creel(std::vector<std::string> words) {
    words.insert(words.begin(),
                 {CREEL_TEST_CLI, "--operator-socket", supervisor.run_dir() + "/operator.sock"});
    const Finished finished = RunProgram(words);
    return {finished.exit_code, finished.out + finished.err};
  }
  o::SetReadOnlyResponse ReadOnly(bool on, const std::string& session = "") {
    o::SetReadOnlyRequest request;
    request.set_on(on);
    request.set_reason("the case wants it");
    if (!session.empty()) {
      request.set_session(session);
    }
    o::SetReadOnlyResponse response;
    const grpc::Status status =
        Call(supervisor.operators(), &o::Operator::Stub::SetReadOnly, request, response);
    const std::string why = status.error_message();
    CAPTURE(why);
    REQUIRE(status.ok());
    return response;
  }
  std::vector<o::Approval> Pending() {
    o::ListApprovalsResponse response;
    REQUIRE(Call(supervisor.operators(), &o::Operator::Stub::ListApprovals,
                 o::ListApprovalsRequest(), response)
                .ok());
    std::vector<o::Approval> pending;
    for (const o::Approval& each : response.approvals()) {
      if (each.state() == o::APPROVAL_STATE_PENDING) {
        pending.push_back(each);
      }
    }
    return pending;
  }

  Supervisor supervisor;

 private:
  static std::string With(std::string config, const std::string& levels) {
    const std::string section = "levels:\n";
    return config.insert(config.find(section) + section.size(), levels);
  }
};

bool Refused(const grpc::Status& status, const std::string& rule) {
  return status.error_code() == grpc::StatusCode::PERMISSION_DENIED &&
         status.error_message().find(rule) != std::string::npos;
}

TEST_SUITE("PolicyEngine") {
  TEST_CASE("a stranger gets a code and nothing else; approved, a friend's tools and no more") {
    House house;
    const g::AdmitResponse first = house.Admit(Message(kStrangerId, "", "hello there"));
    CHECK(first.verdict() == g::ADMIT_VERDICT_PAIR);
    CHECK(first.level() == "stranger");
    // The code is in the reply alone, which no model sees, and comes once.
    o::ListPairingsResponse pairings;
    REQUIRE(Call(house.supervisor.operators(), &o::Operator::Stub::ListPairings,
                 o::ListPairingsRequest(), pairings)
                .ok());
    REQUIRE(pairings.pairings_size() == 1);
    const std::string code = pairings.pairings(0).code();
    REQUIRE(code.size() == 8);
    CHECK(code.find_first_of("0O1I") == std::string::npos);
    CHECK(first.reply().find(code) != std::string::npos);
    CHECK(first.reason().find(code) == std::string::npos);
    const g::AdmitResponse second = house.Admit(Message(kStrangerId, "", "hello?"));
    CHECK(second.verdict() == g::ADMIT_VERDICT_PAIR);
    CHECK(second.reply().empty());
    // Whatever the gateway does, nothing runs for them, and no sandbox is made for it.
    CHECK(Refused(house.ExecAs(kStrangerId, {"true"}).status, "levels.stranger"));
    CHECK(house.Authorize(Tool(kStrangerId, "exec", "agent:main:main")).verdict() ==
          g::VERDICT_DENY);
    o::ListSessionsResponse sessions;
    REQUIRE(Call(house.supervisor.operators(), &o::Operator::Stub::ListSessions,
                 o::ListSessionsRequest(), sessions)
                .ok());
    CHECK(sessions.sessions_size() == 0);

    CHECK(house.Creel({"pairing", "approve", "AAAAAAAA"}).first == 1);
    CHECK(house.Creel({"pairing", "approve", code, "--level", "owner"}).first == 1);
    std::string typed = code;
    for (char& c : typed) {
      c = static_cast<char>(std::tolower(c));
    }
    const auto [approved, said] = house.Creel({"pairing", "approve", typed});
    CAPTURE(said);
    REQUIRE(approved == 0);

    const std::string session = "agent:main:whatsapp:direct:two";
    const g::AdmitResponse third = house.Admit(Message(kStrangerId, "", "hello again"));
    CHECK(third.verdict() == g::ADMIT_VERDICT_ADMIT);
    CHECK(third.level() == "friend");
    CHECK(house.ExecAs(kStrangerId, {"true"}, session).code() == 0);
    CHECK(house.Authorize(Tool(kStrangerId, "exec", session)).verdict() == g::VERDICT_ALLOW);
    CHECK(house.Authorize(Tool(kStrangerId, "cron", session)).verdict() == g::VERDICT_DENY);
    CHECK(house.Authorize(Tool(kStrangerId, "message", session)).verdict() == g::VERDICT_ASK);
    g::AuthorizeRequest host = Tool(kStrangerId, "exec", "agent:main:main");
    host.set_place(g::PLACE_HOST);
    const g::AuthorizeResponse in_main = house.Authorize(host);
    CHECK(in_main.verdict() == g::VERDICT_DENY);
    CHECK(in_main.rule() == "placement.level");
    CHECK(in_main.required_place() == g::PLACE_SANDBOX);

    // It lasts over a restart, and until it is revoked.
    house.supervisor.Restart(SIGKILL);
    CHECK(house.Admit(Message(kStrangerId, "", "x")).verdict() == g::ADMIT_VERDICT_ADMIT);
    REQUIRE(house.Creel({"pairing", "deny", std::string("whatsapp:") + kStrangerId}).first == 0);
    CHECK(house.Admit(Message(kStrangerId, "", "x")).verdict() == g::ADMIT_VERDICT_PAIR);
    // And so does what it gave the sandbox, whoever calls.
    CHECK(house.supervisor.Get(session).trust_level() == "stranger");
    CHECK(Refused(house.ExecAs("", {"true"}, session).status, "levels.stranger"));
    CHECK(Refused(house.ExecAs(kOwnerId, {"true"}, session).status, "levels.stranger"));

    // Likewise whom the configuration does not name any more.
    const std::string other = "agent:main:whatsapp:direct:three";
    REQUIRE(house.ExecAs(kFriendId, {"true"}, other).code() == 0);
    CHECK(house.supervisor.Get(other).trust_level() == "friend");
    const std::string file = house.supervisor.dir() + "/creel.yaml";
    std::ifstream stream(file);
    std::string text((std::istreambuf_iterator<char>(stream)), {});
    const std::string named = "allow_from: [\"+15550000003\"], ";
    REQUIRE(text.find(named) != std::string::npos);
    text.erase(text.find(named), named.size());
    std::ofstream(file) << text;
    REQUIRE(house.Creel({"policy", "reload"}).first == 0);
    CHECK(house.supervisor.Get(other).trust_level() == "stranger");
    CHECK(Refused(house.ExecAs("", {"true"}, other).status, "levels.stranger"));
  }

  TEST_CASE("a group message reaches the model only if it mentions the gateway") {
    House house;
    CHECK(house.Admit(Message(kFriendId, "111", "what a day")).verdict() ==
          g::ADMIT_VERDICT_IGNORE);
    CHECK(house.Admit(Message(kFriendId, "111", "@CLAWD what a day")).verdict() ==
          g::ADMIT_VERDICT_ADMIT);
    CHECK(house.Admit(Message(kFriendId, "222", "@clawd what a day")).verdict() ==
          g::ADMIT_VERDICT_IGNORE);
    CHECK(house.Admit(Message(kStrangerId, "111", "@clawd what a day")).verdict() ==
          g::ADMIT_VERDICT_IGNORE);
  }

  TEST_CASE("read-only mode ends what runs, refuses what would change, and lets reading go on") {
    House house;
    REQUIRE(house.ExecAs(kFriendId, {"sh", "-c", "echo kept > note"}).code() == 0);
    // One command that is waited for, and one that got away from its own.
    REQUIRE(house.ExecAs(kFriendId, {"sh", "-c", "setsid sleep 4321 > /dev/null 2>&1 &"}).code() ==
            0);
    std::future<Outcome> command = std::async(std::launch::async, [&] {
      return house.ExecAs(kFriendId, {"sleep", "1234"});
    });
    REQUIRE(Eventually([&] { return house.supervisor.Get(kSession).processes() == 1; }));

    // The gateway is told without asking.
    grpc::ClientContext watching;
    const auto reader = house.supervisor.gateway().WatchState(&watching, {});
    g::WatchStateResponse state;
    REQUIRE(reader->Read(&state));
    CHECK(state.state().read_only_size() == 0);

    const auto began = Steady::now();
    CHECK(house.ReadOnly(true).stopped() == 1);
    REQUIRE(command.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
    CHECK(Steady::now() - began < std::chrono::seconds(5));
    CHECK(command.get().code() != 0);
    REQUIRE(reader->Read(&state));
    REQUIRE(state.state().read_only_size() == 1);
    CHECK(state.state().read_only(0).reason() == "the case wants it");
    watching.TryCancel();

    const auto all_refused = [&] {
      const Outcome exec = house.ExecAs(kFriendId, {"true"});
      CHECK(Refused(exec.status, "read-only.all"));
      CHECK(exec.status.error_message().find("the case wants it") != std::string::npos);
      CHECK(Refused(house.ExecAs(kOwnerId, {"true"}).status, "read-only.all"));
      CHECK(Refused(house.supervisor.Write(kSession, "note", "changed"), "read-only.all"));
      const auto [read, text] = house.supervisor.Read(kSession, "note");
      CHECK(read.ok());
      CHECK(text == "kept\n");
      CHECK(house.Authorize(Tool(kOwnerId, "message")).rule() == "read-only.all");
      CHECK(house.CheckReply(Reply(kFriendId, "I may not do that now")).verdict() ==
            g::REPLY_VERDICT_ALLOW);
      g::CheckReplyRequest unasked = Reply(kFriendId, "by the way");
      unasked.set_kind(g::REPLY_KIND_MESSAGE);
      CHECK(house.CheckReply(unasked).verdict() == g::REPLY_VERDICT_DENY);
    };
    all_refused();
    house.supervisor.Restart(SIGKILL);
    all_refused();

    const auto [off, said] = house.Creel({"read-only", "off"});
    CAPTURE(said);
    REQUIRE(off == 0);
    const Outcome after = house.ExecAs(kFriendId, {"sh", "-c", "cat /proc/[0-9]*/cmdline"});
    CHECK(after.code() == 0);
    CHECK(after.out.find("4321") == std::string::npos);
    CHECK(house.supervisor.Write(kSession, "note", "changed").ok());
  }

  TEST_CASE("read-only mode for one session leaves others alone") {
    House house;
    const std::string other = "agent:main:whatsapp:direct:other";
    REQUIRE(house.ExecAs(kFriendId, {"true"}).code() == 0);
    REQUIRE(house.ExecAs(kFriendId, {"true"}, other).code() == 0);
    std::future<Outcome> command = std::async(std::launch::async, [&] {
      return house.ExecAs(kFriendId, {"sleep", "987"}, other);
    });
    REQUIRE(Eventually([&] { return house.supervisor.Get(other).processes() == 1; }));
    house.ReadOnly(true, kSession);
    CHECK(Refused(house.ExecAs(kFriendId, {"true"}).status, "read-only.session"));
    CHECK(house.ExecAs(kFriendId, {"true"}, other).code() == 0);
    CHECK(house.supervisor.Get(other).processes() == 1);
    house.ReadOnly(true, other);
    REQUIRE(command.wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  }

  TEST_CASE("read-only mode ends what runs however it comes to hold") {
    House house("  stranger: {read_only: true}\n");
    const std::string file = house.supervisor.dir() + "/creel.yaml";
    std::ifstream stream(file);
    const std::string before((std::istreambuf_iterator<char>(stream)), {});
    // It left its command, and writes until it is ended.
    const auto tick = [&] {
      REQUIRE(house
                  .ExecAs(kFriendId, {"sh", "-c",
                                      "setsid sh -c 'while :; do date +%s%N > tick; sleep 0.1; "
                                      "done' > /dev/null 2>&1 &"})
                  .code() == 0);
      REQUIRE(Eventually([&] { return !house.supervisor.Read(kSession, "tick").second.empty(); }));
    };
    const auto stands_still = [&] {
      return Eventually([&] {
        const std::string first = house.supervisor.Read(kSession, "tick").second;
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
        return first == house.supervisor.Read(kSession, "tick").second;
      });
    };
    SUBCASE("switched on while the session was frozen, and thawed") {
      tick();
      REQUIRE(house.Creel({"freeze", kSession, "--reason", "a look"}).first == 0);
      house.ReadOnly(true);
      REQUIRE(house.Creel({"thaw", kSession}).first == 0);
    }
    SUBCASE("by a configuration that is read again") {
      tick();
      std::ofstream(file) << before << "read_only: true\n";
      REQUIRE(house.Creel({"policy", "reload"}).first == 0);
    }
    SUBCASE("by a configuration that a restart finds") {
      tick();
      std::ofstream(file) << before << "read_only: true\n";
      house.supervisor.Restart(SIGKILL);
    }
    SUBCASE("by a fall of the level") {
      tick();
      CHECK_FALSE(house.ExecAs(kStrangerId, {"true"}).status.ok());
    }
    CHECK(stands_still());
  }

  TEST_CASE("a sandbox has the lowest level that ever reached it, until it is made anew") {
    House house;
    REQUIRE(house.ExecAs(kFriendId, {"true"}).code() == 0);
    CHECK(house.supervisor.Get(kSession).trust_level() == "friend");
    // The owner gets no more of it than the friend.
    CHECK(house.Authorize(Tool(kOwnerId, "cron")).verdict() == g::VERDICT_DENY);
    // A stranger is refused, and from then on so is everybody else, also after a restart.
    CHECK(Refused(house.ExecAs(kStrangerId, {"true"}).status, "levels.stranger"));
    CHECK(house.supervisor.Get(kSession).trust_level() == "stranger");
    CHECK(Refused(house.ExecAs(kFriendId, {"true"}).status, "levels.stranger"));
    CHECK(Refused(house.ExecAs("", {"true"}).status, "levels.stranger"));
    house.supervisor.Restart(SIGKILL);
    CHECK(Refused(house.ExecAs(kOwnerId, {"true"}).status, "levels.stranger"));
    const auto [inspected, text] = house.Creel({"inspect", kSession});
    CHECK(inspected == 0);
    CHECK(text.find("stranger") != std::string::npos);
    CHECK(house.Creel({"trust", "reset", kSession}).first == 1);
    REQUIRE(house.supervisor.Close(kSession).ok());
    CHECK(house.ExecAs(kFriendId, {"true"}).code() == 0);
  }

  TEST_CASE("limits follow the level at once, and what holds more than it may is ended") {
    House house(
        "  friend: {limits: {memory: 512MiB, pids: 200}}\n"
        "  stranger: {limits: {memory: 128MiB, cpus: 0.25, pids: 40}}\n");
    REQUIRE(house.ExecAs(kFriendId, {"true"}).code() == 0);
    const auto limits = [&] {
      return RunProgram({"docker", "inspect", "-f",
                         "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} "
                         "{{.HostConfig.PidsLimit}}",
                         house.supervisor.Get(kSession).container_id()})
          .out;
    };
    CHECK(limits() == "536870912 1000000000 264\n");
    std::future<Outcome> hog = std::async(std::launch::async, [&] {
      return house.ExecAs(kFriendId, {"python3", "-c",
                                      "import time\nx = b'x' * (300 << 20)\n"
                                      "open('held', 'w').close()\ntime.sleep(300)"});
    });
    REQUIRE(Eventually([&] { return house.supervisor.Read(kSession, "held").first.ok(); },
                       std::chrono::seconds(60)));
    CHECK_FALSE(house.ExecAs(kStrangerId, {"true"}).status.ok());
    CHECK(Eventually([&] { return limits() == "134217728 250000000 104\n"; },
                     std::chrono::seconds(60)));
    REQUIRE(hog.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
    CHECK(hog.get().code() != 0);
    const auto [inspected, text] = house.Creel({"inspect", kSession});
    CHECK(inspected == 0);
    CHECK(text.find("128") != std::string::npos);
    // A restart finds it so, and leaves it so.
    house.supervisor.Restart(SIGKILL);
    CHECK(house.supervisor.Get(kSession).trust_level() == "stranger");
    CHECK(limits() == "134217728 250000000 104\n");
  }

  TEST_CASE("an opening is judged as the calls are") {
    House house;
    const auto open = [&](const std::string& sender, const std::string& session) {
      return house.supervisor.Open(session, nullptr, [&](g::OpenSessionRequest& request) {
        request.mutable_context()->set_sender("whatsapp:" + sender);
      });
    };
    const std::string session = "agent:main:whatsapp:direct:opened";
    // One rule wants the operator asked, whoever it is: so nothing is opened before the answer.
    CHECK(Refused(open(kStrangerId, session), "rules.ask-before-moving"));
    o::ListSessionsResponse sessions;
    REQUIRE(Call(house.supervisor.operators(), &o::Operator::Stub::ListSessions,
                 o::ListSessionsRequest(), sessions)
                .ok());
    CHECK(sessions.sessions_size() == 0);
    REQUIRE(house.Pending().size() == 1);
    CHECK(house.Pending()[0].tool() == "open");
    REQUIRE(house.Creel({"approvals", "allow", house.Pending()[0].id()}).first == 0);
    CHECK(open(kStrangerId, session).ok());
    CHECK(house.supervisor.Get(session).trust_level() == "stranger");
    // Who asks counts for a sandbox that is there, too.
    CHECK(open(kFriendId, kSession).ok());
    CHECK(house.supervisor.Get(kSession).trust_level() == "friend");
    CHECK_FALSE(open(kStrangerId, kSession).ok());
    CHECK(house.supervisor.Get(kSession).trust_level() == "stranger");
    CHECK_FALSE(open(kFriendId, kSession).ok());
  }

  TEST_CASE("a call that wants the operator asked waits for the answer") {
    House house;
    REQUIRE(house.supervisor.Write(kSession, "a", "1").ok());
    const auto move = [&](const std::string& from, const std::string& to) {
      return std::async(std::launch::async, [&house, from, to] {
        g::MoveRequest request;
        request.mutable_context()->set_session(kSession);
        request.mutable_args()->set_source(from);
        request.mutable_args()->set_destination(to);
        g::MoveResponse response;
        return Call(house.supervisor.gateway(), &g::Gateway::Stub::Move, request, response);
      });
    };
    std::future<grpc::Status> first = move("a", "b");
    REQUIRE(Eventually([&] { return house.Pending().size() == 1; }));
    const o::Approval asked = house.Pending()[0];
    CHECK(asked.tool() == "move");
    CHECK(asked.rule() == "rules.ask-before-moving");
    CHECK(asked.summary().find("a -> b") != std::string::npos);
    CHECK(first.wait_for(std::chrono::milliseconds(300)) == std::future_status::timeout);
    CHECK(house.supervisor.Read(kSession, "a").first.ok());
    REQUIRE(house.Creel({"approvals", "allow", asked.id()}).first == 0);
    const grpc::Status moved = first.get();
    CAPTURE(moved.error_message());
    CHECK(moved.ok());
    CHECK(house.supervisor.Read(kSession, "b").second == "1");
    CHECK(house.Creel({"approvals", "allow", asked.id()}).first == 1);

    std::future<grpc::Status> second = move("b", "c");
    REQUIRE(Eventually([&] { return house.Pending().size() == 1; }));
    REQUIRE(house.Creel({"approvals", "deny", house.Pending()[0].id()}).first == 0);
    CHECK(Refused(second.get(), "the operator refused"));

    // Nobody answers: denied in the end.
    std::future<grpc::Status> third = move("b", "c");
    CHECK(Refused(third.get(), "did not answer in time"));
    CHECK(house.supervisor.Read(kSession, "b").first.ok());
  }

  TEST_CASE("an approval is for one call with these parameters, once") {
    House house;
    g::AuthorizeRequest request = Tool(kFriendId, "message");
    request.set_parameters(R"({"to":"a","text":"hi"})");
    request.set_tool_call_id("call-1");
    g::AuthorizeResponse asked = house.Authorize(request);
    REQUIRE(asked.verdict() == g::VERDICT_ASK);
    CHECK(house.Authorize(request).approval_id() == asked.approval_id());
    request.set_approval_id(asked.approval_id());
    CHECK(house.Authorize(request).verdict() == g::VERDICT_ASK);
    REQUIRE(house.Creel({"approvals", "allow", asked.approval_id()}).first == 0);
    g::AuthorizeRequest other = request;
    other.set_parameters(R"({"to":"b","text":"hi"})");
    CHECK(house.Authorize(other).verdict() == g::VERDICT_DENY);
    other = request;
    SetSender(*other.mutable_sender(), kOwnerId);
    CHECK(house.Authorize(other).verdict() != g::VERDICT_ALLOW);
    CHECK(house.Authorize(request).verdict() == g::VERDICT_ALLOW);
    CHECK(house.Authorize(request).verdict() == g::VERDICT_DENY);
  }

  TEST_CASE("a home listing does not go to a friend") {
    House house;
    const std::string listing =
        "Here you are:\ntotal 12\ndrwxr-xr-x 2 alex alex 4096 Jan  1 10:00 Desktop\n-rw------- 1 "
        "alex alex  411 Jan  1 10:00 taxes.ods\n/home/alex/Projects/secret-plan\nAnything else?";
    const g::CheckReplyResponse checked = house.CheckReply(Reply(kFriendId, listing));
    CHECK(checked.verdict() == g::REPLY_VERDICT_REDACT);
    CHECK(checked.level() == "friend");
    CHECK(checked.text().find("taxes.ods") == std::string::npos);
    CHECK(checked.text().find("secret-plan") == std::string::npos);
    CHECK(checked.text().find("Anything else?") != std::string::npos);
    CHECK(house.CheckReply(Reply(kOwnerId, listing)).verdict() == g::REPLY_VERDICT_ALLOW);
    g::CheckReplyRequest group = Reply(kOwnerId, listing);
    group.set_others_read(true);
    CHECK(house.CheckReply(group).verdict() == g::REPLY_VERDICT_REDACT);
  }

  TEST_CASE("explain gives the verdict of the live call, and has no effect") {
    House house;
    REQUIRE(house.ExecAs(kFriendId, {"true"}).code() == 0);
    const auto check_all = [&] {
      for (const std::string sender : {kOwnerId, kFriendId, kStrangerId}) {
        CAPTURE(sender);
        for (const std::string group : {"", "111", "222"}) {
          for (const std::string text : {"hi", "@clawd hi"}) {
            o::ExplainRequest question;
            *question.mutable_admit() = Message(sender, group, text);
            const o::ExplainResponse explained = house.Explain(question);
            const g::AdmitResponse live = house.Admit(Message(sender, group, text));
            CHECK(explained.rule() == live.rule());
            CHECK(explained.level() == live.level());
            CHECK(explained.verdict() == (live.verdict() == g::ADMIT_VERDICT_ADMIT    ? "admit"
                                          : live.verdict() == g::ADMIT_VERDICT_IGNORE ? "ignore"
                                          : live.verdict() == g::ADMIT_VERDICT_PAIR   ? "pair"
                                                                                      : "deny"));
          }
        }
        for (const std::string tool : {"exec", "read", "message", "cron", "move", "unheard_of"}) {
          CAPTURE(tool);
          for (const std::string session : {"agent:main:main", "agent:main:explained"}) {
            const g::AuthorizeRequest request = Tool(sender, tool, session + sender);
            o::ExplainRequest question;
            *question.mutable_authorize() = request;
            const o::ExplainResponse explained = house.Explain(question);
            const g::AuthorizeResponse live = house.Authorize(request);
            CHECK(explained.rule() == live.rule());
            CHECK(explained.level() == live.level());
            CHECK(explained.verdict() == (live.verdict() == g::VERDICT_ALLOW ? "allow"
                                          : live.verdict() == g::VERDICT_ASK ? "ask"
                                                                             : "deny"));
          }
        }
        for (const std::string text :
             {"hi", "see /home/alex/x", "ghp_0123456789abcdefghijABCDEFGHIJ012345"}) {
          o::ExplainRequest question;
          *question.mutable_check_reply() = Reply(sender, text);
          const o::ExplainResponse explained = house.Explain(question);
          const g::CheckReplyResponse live = house.CheckReply(Reply(sender, text));
          CHECK(explained.rule() == live.rule());
          CHECK(explained.verdict() == (live.verdict() == g::REPLY_VERDICT_ALLOW    ? "allow"
                                        : live.verdict() == g::REPLY_VERDICT_REDACT ? "redact"
                                                                                    : "deny"));
        }
        o::ExplainRequest call;
        call.mutable_call()->set_session(std::string("agent:main:calls:") + sender);
        call.mutable_call()->set_sender("whatsapp:" + sender);
        call.mutable_call()->set_tool("exec");
        const o::ExplainResponse explained = house.Explain(call);
        const Outcome live =
            house.ExecAs(sender, {"true"}, std::string("agent:main:calls:") + sender);
        CHECK((explained.verdict() == "deny") == !live.status.ok());
        CHECK((live.status.ok() || Refused(live.status, explained.rule())));
      }
    };
    check_all();
    house.ReadOnly(true);
    check_all();

    // Explaining made no code, asked nobody, and let no level fall.
    House fresh;
    REQUIRE(fresh.ExecAs(kFriendId, {"true"}).code() == 0);
    o::ExplainRequest question;
    *question.mutable_admit() = Message(kStrangerId, "", "hi");
    fresh.Explain(question);
    *question.mutable_authorize() = Tool(kStrangerId, "exec");
    fresh.Explain(question);
    *question.mutable_authorize() = Tool(kFriendId, "message");
    fresh.Explain(question);
    CHECK(fresh.Pending().empty());
    CHECK(fresh.Creel({"pairing", "list"}).second.find("nobody waits") != std::string::npos);
    CHECK(fresh.supervisor.Get(kSession).trust_level() == "friend");
  }

  TEST_CASE("a configuration that is bad changes nothing, a good one counts at once") {
    House house;
    const std::string file = house.supervisor.dir() + "/creel.yaml";
    std::ifstream before_stream(file);
    const std::string before((std::istreambuf_iterator<char>(before_stream)), {});
    REQUIRE(house.ExecAs(kFriendId, {"true"}).code() == 0);

    std::ofstream(file) << before << "read_onyl: true\n";
    const auto [bad, complaint] = house.Creel({"policy", "reload"});
    CHECK(bad == 1);
    CHECK(complaint.find("read_only") != std::string::npos);
    CHECK(house.ExecAs(kFriendId, {"true"}).code() == 0);

    std::ofstream(file) << before << "read_only: true\n";
    CHECK(house.Creel({"policy", "check", file}).first == 0);
    const auto [good, said] = house.Creel({"policy", "reload"});
    CAPTURE(said);
    REQUIRE(good == 0);
    CHECK(said.find("read_only") != std::string::npos);
    CHECK(Refused(house.ExecAs(kFriendId, {"true"}).status, "read-only.all"));
    // What the file says no command undoes.
    CHECK(house.Creel({"read-only", "off"}).first == 1);

    // Limits of a level count for what is open, and others are named.
    std::string limits = before;
    limits.insert(limits.find("levels:\n") + 8, "  friend: {limits: {pids: 99}}\n");
    std::ofstream(file) << limits << "read_only: true\n";
    const auto [again, listed] = house.Creel({"policy", "reload"});
    CHECK(again == 0);
    CHECK(listed.find(kSession) != std::string::npos);
    CHECK(Eventually([&] {
      return RunProgram({"docker", "inspect", "-f", "{{.HostConfig.PidsLimit}}",
                         house.supervisor.Get(kSession).container_id()})
                 .out == "163\n";
    }));
    CHECK(Eventually([&] {
      return house.Creel({"doctor"}).second.find("sandbox.other-limits") == std::string::npos;
    }));
    const size_t sandbox = limits.find("sandbox:\n");
    REQUIRE(sandbox != std::string::npos);
    std::string larger = limits;
    larger.insert(sandbox + 9, "  limits: {workspace: 3GiB}\n");
    std::ofstream(file) << larger << "read_only: true\n";
    CHECK(house.Creel({"policy", "reload"}).first == 0);
    const std::string found = house.Creel({"doctor"}).second;
    CHECK(found.find("sandbox.other-limits") != std::string::npos);
    CHECK(found.find(kSession) != std::string::npos);
    // The one weakness of this policy is its file, which everybody can read.
    CAPTURE(found);
    CHECK(found.find("files.readable") != std::string::npos);
    CHECK(found.find("the policy lets nobody in unasked") == std::string::npos);
    CHECK(house.Creel({"doctor", "--fix"}).second.find("files.readable") != std::string::npos);
    const std::string mended = house.Creel({"doctor"}).second;
    CAPTURE(mended);
    CHECK(mended.find("files.readable") == std::string::npos);
    CHECK(mended.find("the policy lets nobody in unasked") != std::string::npos);

    const auto [shown, values] = house.Creel({"policy", "show", "--origin"});
    CHECK(shown == 0);
    CHECK(values.find("channels.whatsapp.allow_from") != std::string::npos);
    const auto [told, prompt] = house.Creel({"prompt", "--level", "friend"});
    CHECK(told == 0);
    CHECK(prompt.find("Read-only mode is on") != std::string::npos);
    CHECK(prompt.find("directory listings") != std::string::npos);
  }
}

}  // namespace
}  // namespace creel::testing
