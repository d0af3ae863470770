#include "supervisor/session/call_gate.h"

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "tests/supervisor/session/session_world.h"

namespace creel {
namespace {

using TicketOr = absl::StatusOr<std::shared_ptr<CallTicket>>;

// A gate with session "s" open.
struct GateWorld : SessionWorld {
  GateWorld() : gate(CallGate::Create(*manager, config)) {
    sandbox = sandboxes.living(MustOpen("s").identity.id);
  }
  TicketOr Begin(ToolCall call) {
    std::optional<TicketOr> answer;
    gate->Begin(std::move(call), [&](TicketOr ticket) { answer = std::move(ticket); });
    REQUIRE(answer.has_value());
    return *std::move(answer);
  }

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
    CHECK(absl::IsFailedPrecondition(refused([](ToolCall& c) { c.session = "agent:main:main"; })));
    CHECK(world.sandboxes.created().size() == 1);
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

  TEST_CASE("a call costs little") {
    GateWorld world;
    constexpr int kCalls = 2000;
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) {
      const TicketOr ticket = world.Begin(kCall);
      (*ticket)->OnLost([](const absl::Status&) {});
      (*ticket)->Finish("exit 0");
    }
    const double micros =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began)
            .count() /
        kCalls;
    MESSAGE("microseconds per call: " << micros);
    // Twenty in a release build; a debug build under load takes its time.
    CHECK(micros < 500);
  }
}

}  // namespace
}  // namespace creel
