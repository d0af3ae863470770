#include "supervisor/session/call_gate.h"

#include <doctest/doctest.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/line.h"
#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

using TicketOr = absl::StatusOr<std::shared_ptr<CallTicket>>;

// A gate with session "s" open.
struct GateWorld : SessionWorld {
  explicit GateWorld(const std::function<void(Config&)>& change = {})
      : SessionWorld([&](Config& c) {
          c.policy.levels[kOwner].members = {"whatsapp:0"};
          c.policy.levels[kFriend].members = {"whatsapp:1"};
          if (change) {
            change(c);
          }
        }),
        audit(OpenAudit()),
        gate(CallGate::Create(*manager, *desk, *audit)) {
    sandbox = sandboxes.living(MustOpen("s").identity.id);
  }
  TicketOr Begin(ToolCall call) {
    std::optional<TicketOr> answer;
    gate->Begin(std::move(call), [&](TicketOr ticket) { answer = std::move(ticket); });
    REQUIRE(answer.has_value());
    return *std::move(answer);
  }

  std::unique_ptr<AuditLog> OpenAudit() {
    absl::StatusOr<std::unique_ptr<AuditLog>> opened = AuditLog::Open(
        {.directory = config.paths.state_dir + "/record", .install_id = "0123456789abcdef"}, clock);
    REQUIRE(opened.ok());
    return *std::move(opened);
  }
  // What the record tells of calls, as "event tool verdict outcome".
  std::vector<std::string> Told() const {
    const auto lines = NewestRecords(config.paths.state_dir + "/record", {.event = "call."}, 1000);
    REQUIRE(lines.ok());
    std::vector<std::string> told;
    for (const std::string& line : *lines) {
      const auto field = [&](const char* key) { return FieldOf(line, key).value_or("-"); };
      told.push_back(field("event") + " " + field("call") + " " + field("tool") + " " +
                     field("outcome"));
    }
    return told;
  }

  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<CallGate> gate;
  std::shared_ptr<FakeSandbox> sandbox;
};

const ToolCall kCall{.session = "s",
                     .sender = "whatsapp:1",
                     .tool = "exec",
                     .summary = "ls \x1b[31m",
                     .tool_call_id = "c1"};

TEST_SUITE("CallGate") {
  TEST_CASE("a call that is let through holds its sandbox and the stub") {
    GateWorld world;
    const TicketOr ticket = world.Begin(kCall);
    REQUIRE(ticket.ok());
    CHECK(&(*ticket)->sandbox() == world.sandbox.get());
    CHECK(&(*ticket)->shim() == (*ticket)->shared_shim().get());
    (*ticket)->Finish("exit 0");
    (*ticket)->Finish("twice is as once");
  }

  TEST_CASE("what is refused says why, and no sandbox is asked") {
    GateWorld world;
    const auto refused = [&](auto change) {
      ToolCall call = kCall;
      change(call);
      return world.Begin(std::move(call)).status();
    };
    CHECK(absl::IsInvalidArgument(refused([](ToolCall& c) { c.session.clear(); })));
    CHECK(absl::IsInvalidArgument(refused([](ToolCall& c) { c.session = "a\x01"; })));
    CHECK(absl::IsInvalidArgument(refused([](ToolCall& c) { c.sender = "\xff"; })));
    CHECK(absl::IsInvalidArgument(refused([](ToolCall& c) { c.tool.clear(); })));
    CHECK(absl::IsInvalidArgument(refused([](ToolCall& c) { c.tool = std::string(65, 'x'); })));
    CHECK(absl::IsInvalidArgument(
        refused([](ToolCall& c) { c.tool_call_id = std::string(129, 'x'); })));
    const auto in_main = [&](const std::string& sender) {
      return refused([&](ToolCall& c) {
        c.session = "agent:main:main";
        c.sender = sender;
      });
    };
    CHECK(absl::IsFailedPrecondition(in_main("whatsapp:0")));
    CHECK(absl::IsPermissionDenied(in_main("whatsapp:1")));
    CHECK(absl::IsPermissionDenied(in_main("whatsapp:2")));
    CHECK(world.sandboxes.created().size() == 1);
  }

  TEST_CASE("the operator is asked, and the call waits for the answer") {
    GateWorld world([](Config& c) { c.policy.levels[kFriend].ask = {"exec"}; });
    const auto begin = [&](std::optional<TicketOr>& answer) {
      world.gate->Begin(kCall, [&](TicketOr ticket) { answer = std::move(ticket); });
    };
    const auto pending = [&] {
      const auto list = world.desk->approvals().List();
      const auto found = std::find_if(list.begin(), list.end(),
                                      [](const auto& each) { return each.state == "pending"; });
      REQUIRE(found != list.end());
      return *found;
    };
    std::optional<TicketOr> first;
    begin(first);
    CHECK(!first.has_value());
    CHECK(pending().tool == "exec");
    CHECK(pending().summary == "ls \\x1b[31m");
    // A second call that looks the same is another question.
    std::optional<TicketOr> second;
    const std::string id = pending().id;
    begin(second);
    REQUIRE(world.desk->approvals().Answer(id, true).ok());
    REQUIRE(first.has_value());
    CHECK(first->ok());
    CHECK(!second.has_value());
    REQUIRE(world.desk->approvals().Answer(pending().id, false).ok());
    REQUIRE(second.has_value());
    CHECK(absl::IsPermissionDenied(second->status()));
    // Stopping lets go who waits.
    std::optional<TicketOr> third;
    begin(third);
    world.desk->approvals().Stop();
    REQUIRE(third.has_value());
    CHECK(absl::IsPermissionDenied(third->status()));
  }

  TEST_CASE(
      "the operator is shown how much of a command is not shown, and all of it is what counts") {
    GateWorld world([](Config& c) { c.policy.levels[kFriend].ask = {"exec"}; });
    std::vector<std::string> hashes;
    const auto asked = [&](const shim::v1::CommandSpec& spec) {
      ToolCall call = kCall;
      call.command = &spec;
      call.summary = spec.shell().substr(0, 256);
      world.gate->Begin(call, [](const TicketOr&) {});
      const auto list = world.desk->approvals().List();
      const auto found = std::find_if(list.begin(), list.end(),
                                      [](const auto& each) { return each.state == "pending"; });
      REQUIRE(found != list.end());
      REQUIRE(world.desk->approvals().Answer(found->id, false).ok());
      hashes.push_back(found->parameters_sha256);
      return found->summary;
    };
    shim::v1::CommandSpec spec;
    spec.set_shell("date");
    CHECK(asked(spec) == "date");
    (*spec.mutable_env())["PATH"] = "/evil";
    CHECK(asked(spec) == "date, env: PATH");
    (*spec.mutable_env())["PATH"] = "/worse";
    spec.set_cwd("a\x1b");
    spec.set_stdin(true);
    CHECK(asked(spec) == "date, in: a\\x1b, env: PATH, with input that is not shown");
    spec.clear_env();
    spec.clear_cwd();
    spec.clear_stdin();
    spec.set_shell(std::string(1024, '#') + "\nrm -r .");
    const std::string cut = asked(spec);
    CHECK(cut.starts_with(std::string(1024, '#')));
    CHECK(cut.ends_with("and 8 bytes more"));
    spec.set_shell(std::string(1024, '#') + "\nls -l .");
    CHECK(asked(spec) == cut);
    for (int i = 0; i < 500; ++i) {
      (*spec.mutable_env())["SOME_VARIABLE_" + std::to_string(i)] = "";
    }
    CHECK(asked(spec).ends_with(" more"));
    std::sort(hashes.begin(), hashes.end());
    CHECK(std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end());
    // A gateway's parameters likewise.
    const auto held = world.desk->Authorize({.session = "s",
                                             .sender = ParseSender("whatsapp:1"),
                                             .tool = "exec",
                                             .place = ToolPlace::kSandbox},
                                            std::string(2000, 'x'), "c9", "");
    REQUIRE(held.ok());
    const auto list = world.desk->approvals().List();
    CHECK(std::any_of(list.begin(), list.end(), [](const auto& each) {
      return each.state == "pending" && each.summary.ends_with("and 976 bytes more");
    }));
    world.desk->approvals().Stop();
  }

  TEST_CASE("what the gateway was allowed runs as it was allowed, and nothing else does") {
    GateWorld world([](Config& c) {
      c.policy.levels[kFriend].members = {"whatsapp:1", "whatsapp:2"};
      c.policy.levels[kFriend].ask = {"exec"};
    });
    int number = 0;
    // A gateway's call that the operator allows; its id.
    const auto allow = [&](const std::string& tool, const std::string& parameters) {
      const std::string id = "call_" + std::to_string(number++);
      const CallQuestion question{.session = "s",
                                  .sender = ParseSender("whatsapp:1"),
                                  .tool = tool,
                                  .place = ToolPlace::kSandbox};
      const auto asked = world.desk->Authorize(question, parameters, id, "");
      REQUIRE(asked.ok());
      REQUIRE(world.desk->approvals().Answer(asked->approval_id, true).ok());
      const auto allowed = world.desk->Authorize(question, parameters, id, asked->approval_id);
      REQUIRE(allowed.ok());
      REQUIRE(allowed->call.decision.verdict == Verdict::kAllow);
      return id;
    };
    const auto runs = [&](const std::string& id, const std::vector<std::string>& argv,
                          const std::string& sender = "whatsapp:1") {
      shim::v1::CommandSpec spec;
      spec.mutable_argv()->Assign(argv.begin(), argv.end());
      ToolCall call = kCall;
      call.tool_call_id = id;
      call.sender = sender;
      call.command = &spec;
      const auto answer = std::make_shared<std::optional<TicketOr>>();
      world.gate->Begin(call, [answer](TicketOr ticket) { *answer = std::move(ticket); });
      return answer->has_value() && (*answer)->ok();
    };
    const std::string id = allow("exec", R"({"command":"date","workdir":"a"})");
    CHECK_FALSE(runs(id, {"sh", "-c", "echo NOT what was approved"}));
    CHECK_FALSE(runs(id, {"sh", "-c", "date", "more"}));
    CHECK_FALSE(runs(id, {"sh", "-x", "date"}));
    CHECK_FALSE(runs(id, {"./sh", "-c", "date"}));
    CHECK_FALSE(runs(id, {"/bin/sh", "-c", "date"}, "whatsapp:2"));
    CHECK(runs(id, {"/bin/sh", "-c", "date"}));
    CHECK_FALSE(runs(id, {"/bin/sh", "-c", "date"}));
    // The adapter for OpenClaw has folders to add to the PATH.
    CHECK(runs(allow("exec", R"({"command":"date"})"),
               {"/bin/sh", "-c",
                "export PATH=\"$CREEL_PREPEND_PATH:$PATH\"; unset CREEL_PREPEND_PATH; date"}));
    for (const char* const parameters : {R"(["date"])", R"({"command":["date"]})", "date", "{"}) {
      CAPTURE(parameters);
      CHECK_FALSE(runs(allow("exec", parameters), {"/bin/sh", "-c", "date"}));
    }
    world.desk->approvals().Stop();
  }

  TEST_CASE("the level of the one who asks falls on the sandbox, and closing it starts afresh") {
    GateWorld world;
    const std::string id = world.sandbox->identity().id;
    std::vector<std::string> falls;
    world.manager->OnLevelChange([&](const std::string& which, const std::string& level) {
      falls.push_back(which + level);
    });
    CHECK(world.Begin(kCall).ok());
    CHECK(world.manager->LevelOf(id) == "friend");
    CHECK(world.manager->Get("s")->trust_level == "friend");
    ToolCall stranger = kCall;
    stranger.sender = "whatsapp:2";
    CHECK(absl::IsPermissionDenied(world.Begin(stranger).status()));
    CHECK(world.manager->LevelOf(id) == "stranger");
    CHECK(absl::IsPermissionDenied(world.Begin(kCall).status()));
    CHECK(falls == std::vector<std::string>{id + "friend", id + "stranger"});
    REQUIRE(world.manager->Close("s", false, SessionWorld::Soon()).ok());
    CHECK(world.manager->LevelOf(id).empty());
    CHECK(world.desk->trust().Kept("s").empty());
  }

  TEST_CASE("an opening is decided too: a stranger gets none, and counts all the same") {
    GateWorld world;
    CHECK(world.gate->DecideOpening("new", "whatsapp:1").ok());
    CHECK(world.gate->DecideOpening("new", "").ok());
    const absl::Status refused = world.gate->DecideOpening("s", "whatsapp:9");
    CHECK(absl::IsPermissionDenied(refused));
    CHECK(std::string(refused.message()).find("levels.stranger") != std::string::npos);
    CHECK(world.desk->LevelOfName("s") == "stranger");
    CHECK(absl::IsPermissionDenied(world.gate->DecideOpening("s", "whatsapp:1")));
    CHECK(absl::IsInvalidArgument(world.gate->DecideOpening("", "whatsapp:1")));
    CHECK(world.Told().back().starts_with("call.denied"));
    CHECK(world.sandboxes.created().size() == 1);
  }

  TEST_CASE("where every tool wants the operator asked, so does the opening") {
    GateWorld world([](Config& c) {
      c.policy.levels[kFriend].allow.clear();
      c.policy.levels[kStranger].ask = c.policy.levels[kFriend].ask = {"exec", "read"};
    });
    const auto open = [&] { return world.gate->DecideOpening("new", "whatsapp:9"); };
    const absl::Status asked = open();
    CHECK(absl::IsPermissionDenied(asked));
    const auto pending = [&] {
      std::vector<std::string> ids;
      for (const ApprovalRecord& each : world.desk->approvals().List()) {
        if (each.state == "pending") {
          ids.push_back(each.id);
        }
      }
      return ids;
    };
    REQUIRE(pending().size() == 1);
    const std::string id = pending()[0];
    CHECK(std::string(asked.message()).find(id) != std::string::npos);
    CHECK_FALSE(open().ok());
    CHECK(pending().size() == 1);
    REQUIRE(world.desk->approvals().Answer(id, true).ok());
    CHECK_FALSE(world.gate->DecideOpening("other", "whatsapp:9").ok());
    CHECK(open().ok());
    // Once.
    CHECK_FALSE(open().ok());
  }

  TEST_CASE("who brings the question to the operator while the sandbox opens is not passed by") {
    GateWorld world([](Config& c) { c.policy.levels[kFriend].ask = {"exec"}; });
    world.sandboxes.Hold();
    ToolCall call = kCall;
    call.session = "late";
    call.sender = "whatsapp:0";
    std::promise<absl::Status> answered;
    world.gate->Begin(call, [&](const TicketOr& ticket) { answered.set_value(ticket.status()); });
    world.sandboxes.AwaitCreating(2);
    REQUIRE(world.desk->Reached("late", ParseSender("whatsapp:1")).ok());
    world.sandboxes.Release();
    const absl::Status refused = answered.get_future().get();
    CHECK(absl::IsPermissionDenied(refused));
    CHECK(std::string(refused.message()).find("make the call again") != std::string::npos);
  }

  TEST_CASE("a link that is down is an error that says so") {
    GateWorld world;
    world.sandbox->DropLink();
    CHECK(absl::IsUnavailable(world.Begin(kCall).status()));
  }

  TEST_CASE("a frozen session refuses") {
    GateWorld world;
    REQUIRE(world.manager->Freeze("s", "odd", SessionWorld::Soon()).ok());
    CHECK(absl::IsFailedPrecondition(world.Begin(kCall).status()));
  }

  TEST_CASE("a call under way is told once when its sandbox goes away") {
    GateWorld world;
    const TicketOr ticket = world.Begin(kCall);
    REQUIRE(ticket.ok());
    int told = 0;
    std::string why;
    (*ticket)->OnLost([&](const absl::Status& status) {
      ++told;
      why = std::string(status.message());
    });
    world.sandbox->ContainerGone("container ended with exit code 137");
    world.sandbox->ContainerGone("again");
    CHECK(told == 1);
    CHECK(why == "container ended with exit code 137");
  }

  TEST_CASE("freezing tells the calls under way; one that has finished is not told") {
    GateWorld world;
    const TicketOr runs = world.Begin(kCall);
    const TicketOr done = world.Begin(kCall);
    REQUIRE(runs.ok());
    REQUIRE(done.ok());
    int told = 0;
    int told_late = 0;
    (*runs)->OnLost([&](const absl::Status&) { ++told; });
    (*done)->OnLost([&](const absl::Status&) { ++told_late; });
    (*done)->Finish("exit 0");
    REQUIRE(world.manager->Freeze("s", "odd", SessionWorld::Soon()).ok());
    CHECK(told == 1);
    CHECK(told_late == 0);
  }

  TEST_CASE("the decision is in the record before the effect, and the outcome after it") {
    GateWorld world;
    std::vector<std::string> at_begin;
    world.gate->Begin(kCall, [&](TicketOr ticket) {
      at_begin = world.Told();
      (*ticket)->Finish("exit 3");
    });
    REQUIRE(at_begin.size() == 1);
    CHECK(at_begin[0] == "call.allowed 2 exec -");
    CHECK(world.Told()[1] == "call.ended 2 exec exit 3");
    ToolCall refused = kCall;
    refused.session = "agent:main:main";
    CHECK_FALSE(world.Begin(refused).ok());
    CHECK(world.Told()[2] == "call.denied 3 exec -");
    { const TicketOr left = world.Begin(kCall); }
    CHECK(world.Told()[4] == "call.ended 4 exec the caller went away");
  }

  TEST_CASE("a call whose decision cannot be written is refused, and no sandbox is asked") {
    GateWorld world;
    const std::string record = world.config.paths.state_dir + "/record";
    REQUIRE(world.Begin(kCall).ok());
    // The next day's file cannot be made: something else has its name.
    world.clock.Move(std::chrono::hours(24));
    for (uint64_t seq = 1; seq < 12; ++seq) {
      std::filesystem::create_directory(record + "/" + RecordFileName(world.clock.Now(), seq));
    }
    const absl::Status refused = world.Begin(kCall).status();
    CHECK(absl::IsUnavailable(refused));
    CHECK(std::string(refused.message()).find("record") != std::string::npos);
    ToolCall other = kCall;
    other.session = "another";
    CHECK_FALSE(world.Begin(other).ok());
    CHECK(world.sandboxes.created().size() == 1);
    for (uint64_t seq = 1; seq < 12; ++seq) {
      std::filesystem::remove(record + "/" + RecordFileName(world.clock.Now(), seq));
    }
    CHECK(world.Begin(kCall).ok());
  }

  TEST_CASE("an incident keeps out whom it is about, and nobody else") {
    GateWorld world([](Config& c) {
      c.policy.levels[kFriend].members = {"whatsapp:1", "whatsapp:2"};
    });
    ToolCall other = kCall;
    other.session = "other";
    other.sender = "whatsapp:2";
    world.MustOpen("other");
    const auto gets_in = [&](const ToolCall& call) {
      const TicketOr ticket = world.Begin(call);
      CHECK((ticket.ok() || absl::IsFailedPrecondition(ticket.status())));
      return ticket.ok();
    };
    world.manager->SetHolds({{HoldRule::Scope::kSession, "s", "7", "odd"}});
    CHECK_FALSE(gets_in(kCall));
    CHECK(gets_in(other));
    CHECK_FALSE(world.OpenStatus("s").ok());
    world.manager->SetHolds({{HoldRule::Scope::kSender, "whatsapp:2", "7", "odd"}});
    CHECK(gets_in(kCall));
    CHECK_FALSE(gets_in(other));
    CHECK_FALSE(world.OpenStatus("new", "whatsapp:2").ok());
    world.manager->SetHolds({{HoldRule::Scope::kAll, "", "7", "odd"}});
    CHECK_FALSE(gets_in(kCall));
    CHECK_FALSE(gets_in(other));
    CHECK_FALSE(world.OpenStatus("new").ok());
    world.manager->SetHolds({});
    CHECK(gets_in(kCall));
    CHECK(gets_in(other));
  }

  TEST_CASE("a call costs little") {
    GateWorld world;
    constexpr int kCalls = 2000;
    // Of the processor, so that other work of the machine does not count.
    const auto now = [] {
      timespec used{};
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
      return static_cast<double>(used.tv_sec) * 1e6 + static_cast<double>(used.tv_nsec) / 1e3;
    };
    const double began = now();
    for (int i = 0; i < kCalls; ++i) {
      const TicketOr ticket = world.Begin(kCall);
      (*ticket)->OnLost([](const absl::Status&) {});
      (*ticket)->Finish("exit 0");
    }
    const double micros = (now() - began) / kCalls;
    MESSAGE("microseconds per call: " << micros);
    CHECK(micros < 500);
  }
}

}  // namespace
}  // namespace creel
