// Who asks, and who reads: the supervisor's policy in the unmodified gateway, with people who write on
// Telegram.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { directive } from "./support/model.mjs";
import { eventually } from "./support/process.mjs";
import { World } from "./support/world.mjs";

const OWNER = 1;
const FRIEND = 5;
const STRANGER = 666;
const GROUP = -100120363;
const GROUP_SESSION = `agent:main:telegram:group:${GROUP}`;
const MAIN = "agent:main:main";
const POLICY = `levels:
  owner:
    members: ["telegram:${OWNER}"]
  friend:
    members: ["telegram:${FRIEND}"]
  stranger:
    allow: [exec]
`;
// What a listing of the owner's home would look like, of folders that are nowhere.
const LISTING = `/home/peter
/home/peter/.ssh/id_ed25519
/home/peter/Documents/taxes-2025.pdf
/home/peter/projects/lobster/secret-plan.md
/root/.openclaw/openclaw.json`;
const LEAKS = /home\/peter|taxes-2025|secret-plan|id_ed25519/;

const exec = (command) => ({ tool: "exec", args: { command } });

// Somebody writes; waits until the model has made its last step, and returns what the tools answered.
async function write(world, { from, group }, ...steps) {
  const text = directive(...steps);
  const before = world.model.requests.length;
  world.telegram.write({ from, group, text: `@claw_bot ${text}` });
  const tools = steps.filter((step) => step.tool).length;
  await eventually(
    "the model has been through its steps",
    () => world.model.requests.length > before && world.model.results(text).length === tools,
    120_000,
  );
  return world.model.results(text);
}
const sentAfter = (world, chat, count) =>
  eventually("an answer was sent", () => {
    const texts = world.telegram.textsTo(chat);
    return texts.length > count && texts.slice(count);
  });

describe("trust", () => {
  let world;
  before(async () => {
    world = await World.start({
      telegram: true,
      supervisor: { config: POLICY },
      gateway: { change: (config) => (config.agents.defaults.blockStreamingDefault = "off") },
    });
  });
  after(async () => world?.stop());

  const level = async (session) => {
    const { out } = await world.supervisor.creel("inspect", session, "--json");
    return /"trust_level": *"([^"]*)"/.exec(out)?.[1] ?? out;
  };

  test("a friend's find ~ in a group finds the sandbox, and a planted listing does not leave", async () => {
    const count = world.telegram.textsTo(GROUP).length;
    const [found] = await write(world, { from: FRIEND, group: GROUP }, exec("cd ~ && pwd && find ~"), {
      say: `Here is all I found:\n${LISTING}`,
    });
    assert.match(found, /^\/workspace/);
    assert.ok(!found.includes(world.gateway.home));
    const texts = await sentAfter(world, GROUP, count);
    assert.doesNotMatch(texts.join("\n"), LEAKS);
  });

  test("the owner reads paths in a chat of their own", async () => {
    const count = world.telegram.textsTo(OWNER).length;
    await write(world, { from: OWNER }, { say: "It lies in /home/peter/projects/lobster/secret-plan.md" });
    const texts = await sentAfter(world, OWNER, count);
    assert.match(texts.join("\n"), /secret-plan/);
  });

  test("what the message tool sends to a group is judged as well", async () => {
    const count = world.telegram.textsTo(GROUP).length;
    const [answer] = await write(
      world,
      { from: OWNER },
      { tool: "message", args: { action: "send", channel: "telegram", target: String(GROUP), message: `psst\n${LISTING}` } },
    );
    // It was sent without what must not leave, or not at all.
    const texts = world.telegram.textsTo(GROUP).slice(count);
    assert.doesNotMatch(texts.join("\n"), LEAKS, answer);
  });

  test("a friend may not have messages sent of the model's own accord without the operator", async () => {
    const count = world.telegram.textsTo(STRANGER).length;
    const [answer] = await write(
      world,
      { from: FRIEND, group: GROUP },
      { tool: "message", args: { action: "send", channel: "telegram", target: String(STRANGER), message: "spam" } },
    );
    assert.match(answer, /creel approvals allow|not|refuse|denied/i);
    assert.equal(world.telegram.textsTo(STRANGER).length, count);
  });

  test("a stranger in the group lowers the sandbox for whoever comes later", async () => {
    assert.equal(await level(GROUP_SESSION), "friend");
    await write(world, { from: STRANGER, group: GROUP }, exec("(sleep 5; curl http://169.254.169.254/) >/dev/null 2>&1 & echo left"));
    await write(world, { from: FRIEND, group: GROUP }, exec("echo friend again"));
    assert.equal(await level(GROUP_SESSION), "stranger");
  });

  test("without the supervisor other sessions' tools and replies stop, the owner's goes on, and all comes back", async () => {
    const count = world.telegram.textsTo(GROUP).length;
    await world.supervisor.process.stop("SIGKILL");
    try {
      const [own] = await world.turn(MAIN, exec("echo the owner goes on"));
      assert.match(own, /the owner goes on/);
      const text = directive(exec("echo ran anyway"), { say: "an answer that must be held" });
      world.telegram.write({ from: FRIEND, group: GROUP, text: `@claw_bot ${text}` });
      await eventually("the gateway has given up on the turn", () => /creel: .*(?:no supervisor|nobody listens)/.test(world.gateway.log()), 120_000);
      // A moment in which it could have been sent.
      await new Promise((resolve) => setTimeout(resolve, 3000));
      assert.ok(!world.model.results(text).join("\n").includes("ran anyway"));
      assert.ok(!world.telegram.textsTo(GROUP).slice(count).join("\n").includes("must be held"));
    } finally {
      await world.supervisor.begin();
    }
    // The gateway may yet come to what was written meanwhile.
    await eventually("a tool runs again", async () =>
      (await write(world, { from: FRIEND, group: GROUP }, exec("echo back again"))).join().includes("back again"),
    );
  });
});

describe("the trap of dmScope main", () => {
  let world;
  before(async () => {
    world = await World.start({
      telegram: true,
      supervisor: { config: POLICY },
      gateway: { change: (config) => (config.session.dmScope = "main") },
    });
  });
  after(async () => world?.stop());

  test("a direct message of anybody but the owner never reaches the host", async () => {
    for (const from of [STRANGER, FRIEND]) {
      const mark = path.join(world.gateway.home, `reached-by-${from}`);
      const [answer] = await write(world, { from }, exec(`touch ${mark}; echo done`));
      assert.ok(!fs.existsSync(mark), `${from} reached the host: ${answer}`);
      assert.doesNotMatch(answer, /^done/);
    }
    // The gateway gives even the owner's direct message a sandbox; it is not refused.
    const [answer] = await write(world, { from: OWNER }, exec("echo for the owner"));
    assert.match(answer, /for the owner/);
  });
});

describe("admission by Creel", () => {
  let world;
  before(async () => {
    world = await World.start({
      telegram: true,
      supervisor: { config: POLICY },
      gateway: { plugin: { admission: "creel" } },
    });
  });
  after(async () => world?.stop());

  test("a stranger gets a pairing code, and the model nothing until it is approved", async () => {
    const hello = `hello-${Date.now()}`;
    world.telegram.write({ from: STRANGER, text: hello });
    const [words] = await sentAfter(world, STRANGER, 0);
    const code = /\b([A-HJ-NP-Z2-9]{8})\b/.exec(words)?.[1];
    assert.ok(code, words);
    assert.ok(!world.model.hasSeen(hello));
    assert.ok(!world.model.hasSeen(code));
    const approved = await world.supervisor.creel("pairing", "approve", code);
    assert.equal(approved.code, 0, approved.err);
    world.telegram.write({ from: STRANGER, text: `again ${hello}` });
    await eventually("the model was asked", () => world.model.hasSeen(`again ${hello}`));
  });
});
