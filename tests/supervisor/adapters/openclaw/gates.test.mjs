// The gates on tools, replies and messages, against a supervisor that says what the test wants.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeClient, load, quiet } from "./support.mjs";

const { CreelError } = await load("errors.js");
const { createToolGate } = await load("tool_gate.js");
const { createReplyGate } = await load("reply_gate.js");
const { createAdmission } = await load("admission.js");
const { createHandshake } = await load("handshake.js");
const { shared } = await load("shared.js");
const { Writers, createListener } = await load("writers.js");

const AWAY = new CreelError("creel: nobody listens", 14);
const ready = async () => {};
const MAIN = "agent:main:main";
const GROUP = "agent:main:telegram:group:-1";
const owner = { channel: "telegram", senderId: "1", senderIsOwner: true };
const stranger = { channel: "telegram", senderId: "666", senderIsOwner: false };

function toolGate(answer, { sandboxed = (session) => session !== MAIN, checkReply = { verdict: "REPLY_VERDICT_ALLOW" } } = {}) {
  const client = new FakeClient({ Authorize: answer, CheckReply: checkReply });
  const replies = createReplyGate({ client, ready, state: shared(), log: quiet });
  return { client, gate: createToolGate({ client, ready, state: shared(), sandboxed, replies, log: quiet }) };
}
const allow = { verdict: "VERDICT_ALLOW", level: "friend", required_place: "PLACE_UNSPECIFIED" };

describe("tool gate", () => {
  test("a call is judged with its sender, its parameters and its place", async () => {
    const { client, gate } = toolGate(allow);
    assert.equal(await gate({ toolName: "exec", params: { command: "ls" }, toolCallId: "c1" }, { sessionKey: GROUP, requester: stranger }), undefined);
    const { request } = client.asked[0];
    assert.equal(request.session, GROUP);
    assert.deepEqual(request.sender, { channel: "telegram", id: "666", account: "", is_owner_claim: false });
    assert.equal(request.parameters, '{"command":"ls"}');
    assert.equal(request.place, "PLACE_SANDBOX");
    assert.equal(request.tool_call_id, "c1");
    assert.deepEqual(shared().callOf(GROUP), { sender: "telegram:666", toolCallId: "c1" });
  });

  test("what the gateway runs itself, or is asked to run on the host, is judged as on the host", async () => {
    const { client, gate } = toolGate(allow);
    for (const event of [
      { toolName: "message", params: {} },
      { toolName: "exec", params: { command: "ls", host: "gateway" } },
      { toolName: "exec", params: { command: "ls", elevated: true } },
    ]) {
      await gate(event, { sessionKey: GROUP, requester: stranger });
      assert.equal(client.asked.at(-1).request.place, "PLACE_HOST", JSON.stringify(event));
    }
  });

  test("looking for tools is not asked about, as what is then called is", async () => {
    const { client, gate } = toolGate({ verdict: "VERDICT_DENY", reason: "no" });
    for (const toolName of ["tool_search", "tool_describe", "tool_call"]) {
      assert.equal(await gate({ toolName, params: { id: "message", args: {} } }, { sessionKey: GROUP, requester: stranger }), undefined);
    }
    assert.equal(client.asked.length, 0);
    assert.equal((await gate({ toolName: "tool_search_code", params: {} }, { sessionKey: GROUP, requester: stranger })).block, true);
  });

  test("what the message tool would send is judged whole, and where to and what is attached left alone", async () => {
    const checkReply = ({ text }) => ({ verdict: "REPLY_VERDICT_REDACT", text: text.replace(/\/home\/\S+/g, "[path]") });
    const { client, gate } = toolGate(allow, { checkReply });
    const params = {
      action: "send", channel: "telegram", target: "-100", media: "/home/gw/a.png", message: "see /home/peter/x",
      presentation: { blocks: [{ type: "buttons", buttons: [{ label: "/home/peter/y", value: "x" }] }] },
    };
    const answer = await gate({ toolName: "message", params }, { sessionKey: GROUP, requester: owner });
    assert.equal(answer.params.message, "see [path]");
    assert.equal(answer.params.presentation.blocks[0].buttons[0].label, "[path]");
    assert.equal(answer.params.media, "/home/gw/a.png");
    assert.equal(params.message, "see /home/peter/x");
    assert.equal(client.asked.at(-1).request.others_read, true);
    for (const held of [{ verdict: "REPLY_VERDICT_DENY", reason: "no" }, AWAY]) {
      const refused = await toolGate(allow, { checkReply: held }).gate({ toolName: "message", params }, { sessionKey: GROUP, requester: owner });
      assert.equal(refused.block, true);
    }
  });

  test("a refusal blocks with its reason, and an answer without a verdict is one", async () => {
    for (const answer of [
      { verdict: "VERDICT_DENY", reason: "not for strangers" },
      { verdict: "VERDICT_UNSPECIFIED", reason: "not for strangers" },
    ]) {
      const { gate } = toolGate(answer);
      assert.deepEqual(await gate({ toolName: "exec", params: {} }, { sessionKey: GROUP, requester: stranger }), {
        block: true,
        blockReason: "not for strangers",
      });
    }
  });

  test("a call that must run in a sandbox does not run on the host", async () => {
    const { gate } = toolGate({ ...allow, required_place: "PLACE_SANDBOX", rule: "placement.stranger" });
    const verdict = await gate({ toolName: "exec", params: {} }, { sessionKey: MAIN, requester: stranger });
    assert.equal(verdict.block, true);
    assert.match(verdict.blockReason, /sandbox.*placement\.stranger/);
  });

  test("an ask is a block that names the approval, and the same call carries it again", async () => {
    let answer = { verdict: "VERDICT_ASK", reason: "Somebody must look.", approval_id: "a-7" };
    const { client, gate } = toolGate(() => answer);
    const event = { toolName: "exec", params: { command: "deploy" } };
    const first = await gate(event, { sessionKey: GROUP, requester: owner });
    assert.match(first.blockReason, /creel approvals allow a-7/);
    answer = allow;
    assert.equal(await gate(event, { sessionKey: GROUP, requester: owner }), undefined);
    assert.equal(client.asked[1].request.approval_id, "a-7");
    await gate(event, { sessionKey: GROUP, requester: owner });
    assert.equal(client.asked[2].request.approval_id, "");
    await gate({ toolName: "exec", params: { command: "other" } }, { sessionKey: GROUP, requester: owner });
    assert.equal(client.asked[3].request.approval_id, "");
  });

  test("without the supervisor only the owner goes on, and only in the main session", async () => {
    const { gate } = toolGate(AWAY);
    const event = { toolName: "exec", params: {} };
    assert.equal(await gate(event, { sessionKey: MAIN }), undefined);
    assert.equal(await gate(event, { sessionKey: MAIN, requester: owner }), undefined);
    for (const context of [
      { sessionKey: MAIN, requester: stranger },
      { sessionKey: MAIN, requester: { channel: "telegram" } },
      { sessionKey: GROUP, requester: owner },
      { sessionKey: GROUP },
      {},
    ]) {
      const verdict = await gate(event, context);
      assert.equal(verdict?.block, true, JSON.stringify(context));
    }
  });

  test("an error other than its absence stops everybody", async () => {
    const { gate } = toolGate(new CreelError("broken", 13));
    assert.equal((await gate({ toolName: "exec", params: {} }, { sessionKey: MAIN }))?.block, true);
  });

  test("parameters that are too large to be judged are refused unasked", async () => {
    const { client, gate } = toolGate(allow);
    const verdict = await gate({ toolName: "write", params: { content: "x".repeat(300_000) } }, { sessionKey: GROUP });
    assert.equal(verdict.block, true);
    assert.equal(client.asked.length, 0);
  });
});

describe("those who wrote lately", () => {
  const wrote = (session, senderId) =>
    createListener({ writers: shared().writers })(
      { sessionKey: session, senderId, metadata: { senderName: `User ${senderId}` } },
      { channelId: "telegram" },
    );
  const event = { toolName: "exec", params: {} };

  test("everybody is told of who wrote there, whoever is said to have asked", async () => {
    for (const session of ["agent:shared:main", "agent:shared:telegram:group:-5"]) {
      const { client, gate } = toolGate(allow);
      const owner = { channel: "telegram", senderId: "11", senderIsOwner: true };
      wrote(session, "11");
      wrote(session, "telegram:666");
      await gate(event, { sessionKey: session, requester: owner });
      await gate(event, { sessionKey: session });
      assert.deepEqual(client.asked.map(({ request }) => request.also_heard.map((each) => each.id)), [["666"], ["11", "666"]]);
      assert.equal(client.asked[0].request.also_heard[0].name, "User telegram:666");
      // The level that comes back is not the asker's own.
      assert.equal(shared().levelOf("telegram:11"), undefined);
    }
  });

  test("a message that Creel turned away does not count, an admitted one does", async () => {
    const { writers } = shared();
    const session = "agent:main:telegram:group:-6";
    const listen = createListener({ writers, admission: "creel" });
    const say = (senderId) => listen({ sessionKey: session, senderId, metadata: { senderName: "Carla" } }, { channelId: "telegram" });
    const admit = (verdict, senderId) => {
      const client = new FakeClient({ Admit: { verdict } });
      const hook = createAdmission({ client, ready, writers, log: quiet });
      return hook({ content: "hi", channel: "telegram", senderId, sessionKey: session, isGroup: true }, {}).then(() => client);
    };
    say("666");
    await admit("ADMIT_VERDICT_IGNORE", "666");
    assert.deepEqual(writers.of(session), []);
    say("5");
    const client = await admit("ADMIT_VERDICT_ADMIT", "5");
    assert.equal(client.asked[0].request.sender.name, "Carla");
    assert.deepEqual(writers.of(session).map((each) => each.id), ["5"]);
    say("5");
    assert.equal(writers.of(session).length, 1);
  });

  test("without the supervisor nobody goes on where another wrote", async () => {
    const session = "agent:away:main";
    const { gate } = toolGate(AWAY, { sandboxed: () => false });
    assert.equal(await gate(event, { sessionKey: session, requester: owner }), undefined);
    wrote(session, "667");
    assert.equal((await gate(event, { sessionKey: session, requester: owner })).block, true);
  });

  test("after half an hour it is forgotten, and neither sessions nor senders grow without bound", () => {
    let now = 0;
    const writers = new Writers(() => now);
    writers.note("s", { channel: "telegram", id: "5", name: "Five" });
    assert.equal(writers.nameIn("s", "telegram", "5"), "Five");
    now = 29 * 60_000;
    assert.equal(writers.of("s").length, 1);
    now = 31 * 60_000;
    assert.equal(writers.of("s").length, 0);
    for (let id = 0; id < 500; ++id) writers.note("s", { channel: "telegram", id: String(id) });
    assert.ok(writers.of("s").length <= 100);
    assert.equal(writers.of("s").at(-1).id, "499");
  });

  test("a message without session, channel or sender is nobody's", () => {
    const writers = new Writers();
    const listen = createListener({ writers });
    listen({ senderId: "5" }, { channelId: "telegram" });
    listen({ sessionKey: "s" }, { channelId: "telegram" });
    listen({ sessionKey: "s", senderId: "5" }, {});
    assert.deepEqual(writers.of("s"), []);
  });
});

describe("reply gate", () => {
  const replies = (answer) => {
    const client = new FakeClient({ CheckReply: answer });
    return { client, gate: createReplyGate({ client, ready, state: shared(), log: quiet }) };
  };
  const context = { channelId: "telegram", conversationId: "telegram:5", senderId: "5" };
  const event = (payload) => ({ payload, kind: "final", channel: "telegram", sessionKey: "agent:main:telegram:direct:5" });
  const masked = ({ text }) =>
    text.includes("/home/") ? { verdict: "REPLY_VERDICT_REDACT", text: text.replace(/\/home\/\S+/g, "[path]") } : { verdict: "REPLY_VERDICT_ALLOW", text };

  test("every text that people would see is masked, what names things is left alone", async () => {
    const { gate } = replies(masked);
    const { payload } = await gate.payload(
      event({
        text: "see /home/peter/x",
        mediaUrl: "/home/gw/media/a.png",
        presentation: { blocks: [{ type: "text", text: "or /home/peter/y" }] },
      }),
      context,
    );
    assert.equal(payload.text, "see [path]");
    assert.equal(payload.presentation.blocks[0].text, "or [path]");
    assert.equal(payload.mediaUrl, "/home/gw/media/a.png");
  });

  test("a reply that is allowed is not touched", async () => {
    const { client, gate } = replies(masked);
    assert.equal(await gate.payload(event({ text: "hello" }), context), undefined);
    assert.deepEqual(client.asked[0].request.recipients, [{ channel: "telegram", id: "5" }]);
    assert.equal(client.asked[0].request.kind, "REPLY_KIND_ANSWER");
  });

  test("a denied reply, a broken supervisor and an unknown verdict send nothing", async () => {
    for (const answer of [{ verdict: "REPLY_VERDICT_DENY" }, { verdict: "REPLY_VERDICT_UNSPECIFIED", text: "x" }, AWAY, new Error("bug")]) {
      const { gate } = replies(answer);
      assert.equal((await gate.payload(event({ text: "hello" }), context)).cancel, true);
      assert.equal((await gate.message({ to: "telegram:5", content: "hello" }, context)).cancel, true);
    }
  });

  test("without the supervisor the owner's main session answers the owner, and nobody else", async () => {
    shared().setLevel("telegram:1", "owner");
    const { gate } = replies(AWAY);
    const say = (conversationId) =>
      gate.payload({ payload: { text: "hi" }, channel: "telegram", sessionKey: MAIN }, { channelId: "telegram", conversationId });
    assert.equal(await say("telegram:1"), undefined);
    assert.equal((await say("telegram:5")).cancel, true);
    assert.equal((await say("telegram:-100")).cancel, true);
  });

  test("a message's text is judged with its readers, in a group as for strangers", async () => {
    const { client, gate } = replies(masked);
    assert.deepEqual(await gate.message({ to: "telegram:-100", content: "ls /home/peter" }, { channelId: "telegram" }), { content: "ls [path]" });
    assert.equal(client.asked[0].request.others_read, true);
    assert.equal(client.asked[0].request.kind, "REPLY_KIND_MESSAGE");
  });

  test("a reply of more parts than are judged is held", async () => {
    const { client, gate } = replies(masked);
    const many = { blocks: Array.from({ length: 100 }, () => ({ text: "x" })) };
    assert.equal((await gate.payload(event(many), context)).cancel, true);
    assert.equal(client.asked.length, 0);
  });
});

describe("admission", () => {
  const ask = async (answer) => {
    const client = new FakeClient({ Admit: answer });
    const verdict = await createAdmission({ client, ready, writers: new Writers(), log: quiet })(
      { content: "/status now", channel: "telegram", senderId: "666", sessionKey: "agent:main:telegram:direct:666", isGroup: false },
      { channelId: "telegram", conversationId: "telegram:666" },
    );
    return { verdict, request: client.asked[0]?.request };
  };

  test("only an admitted message goes on", async () => {
    const { verdict, request } = await ask({ verdict: "ADMIT_VERDICT_ADMIT" });
    assert.equal(verdict, undefined);
    assert.deepEqual(request.sender, { channel: "telegram", id: "666", account: "", name: "" });
    assert.equal(request.is_command, true);
    for (const answer of [{ verdict: "ADMIT_VERDICT_DENY" }, { verdict: "ADMIT_VERDICT_IGNORE" }, { verdict: "ADMIT_VERDICT_UNSPECIFIED" }, AWAY]) {
      assert.deepEqual((await ask(answer)).verdict, { handled: true });
    }
  });

  test("a pairing's words go to the sender, and the message nowhere", async () => {
    const { verdict } = await ask({ verdict: "ADMIT_VERDICT_PAIR", reply: "Your code: ABCD2345" });
    assert.deepEqual(verdict, { handled: true, text: "Your code: ABCD2345" });
  });
});

describe("handshake", () => {
  test("it is asked again after a while, and after a failure at once", async () => {
    let now = 0;
    let answer = { compatible: true };
    const client = new FakeClient({ GetInfo: () => answer });
    const handshake = createHandshake({ client, gatewayVersion: "2026.9.6", now: () => now });
    await handshake();
    await handshake();
    assert.equal(client.asked.length, 1);
    now = 11_000;
    answer = AWAY;
    await assert.rejects(handshake());
    answer = { compatible: true };
    await handshake();
    assert.equal(client.asked.length, 3);
  });

  test("what does not fit is one line that says what to do", async () => {
    for (const [answer, words] of [
      [{ compatible: false, version: "9.0.0", reason: "update the plugin to 9" }, /supervisor 9\.0\.0 and this plugin do not fit: update the plugin to 9$/],
      [new CreelError("", 12), /older than this plugin.*update creeld$/],
    ]) {
      const client = new FakeClient({ GetInfo: answer });
      await assert.rejects(createHandshake({ client, gatewayVersion: "" })(), words);
    }
  });
});
