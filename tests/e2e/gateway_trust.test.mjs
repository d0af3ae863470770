// Who asks, and who reads: the supervisor's policy in the unmodified gateway, with people who write on
// Telegram.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
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
/home/peter/.openclaw/openclaw.json`;
// Eight by eight pixels, red.
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC";
const LEAKS = /home\/peter|taxes-2025|secret-plan|id_ed25519/;

const exec = (command) => ({ tool: "exec", args: { command } });
// The gateway has most of its tools called through one.
const message = (args) => ({ tool: "tool_call", args: { id: "message", args } });

// Somebody writes; waits until the model has made its last step, and returns what the tools answered.
async function write(world, { from, group }, ...steps) {
  const text = directive(...steps);
  const before = world.model.requests.length;
  world.telegram.write({ from, group, text: `@claw_bot ${text}` });
  const tools = steps.filter((step) => step.tool).length;
  await eventually(
    "the model has been through its steps",
    () => world.model.requests.length > before && world.model.results(text).length === tools,
    240_000,
  );
  return world.model.results(text);
}
const sentAfter = (world, chat, count) =>
  eventually("an answer was sent", () => {
    const texts = world.telegram.textsTo(chat);
    return texts.length > count && texts.slice(count);
  });

// The planted listing, sent in each way that the gateway has; nothing of it may arrive anywhere.
async function nothingLeaks(world, chat, act) {
  const before = world.telegram.sent.length;
  const count = world.telegram.textsTo(chat).length;
  await act();
  const texts = await sentAfter(world, chat, count);
  // A stream goes on after its first piece.
  await eventually("the last piece has come", () => {
    const now = world.telegram.textsTo(chat).slice(count).join("\n");
    return now.includes("the end.") && now;
  });
  const all = JSON.stringify(world.telegram.sent.slice(before).map(({ raw, ...rest }) => [rest, raw?.toString("latin1")]));
  assert.doesNotMatch(all, LEAKS);
  return texts;
}

describe("trust", () => {
  let world;
  before(async () => {
    world = await World.start({
      telegram: true,
      supervisor: { config: POLICY },
      gateway: {
        change(config) {
          config.agents.defaults.blockStreamingDefault = "off";
          config.tools.sandbox = { tools: { alsoAllow: ["message"] } };
        },
      },
    });
  });
  after(async () => world?.stop());

  const level = async (session) => {
    const { out } = await world.supervisor.creel("inspect", session, "--json");
    return /"trust_level": *"([^"]*)"/.exec(out)?.[1] ?? out;
  };

  test("a friend's find ~ in a group finds the sandbox, and a planted listing does not leave", async () => {
    let found;
    await nothingLeaks(world, GROUP, async () => {
      [found] = await write(world, { from: FRIEND, group: GROUP }, exec("cd ~ && pwd && find ~"), {
        say: `Here is all I found:\n${LISTING}\nthe end.`,
      });
    });
    assert.match(found, /^\/workspace/);
    assert.ok(!found.includes(world.gateway.home));
  });

  test("a friend's direct message has a session of its own, and the listing does not leave there either", async () => {
    let found;
    await nothingLeaks(world, FRIEND, async () => {
      [found] = await write(world, { from: FRIEND }, exec("find ~"), { say: `All of it:\n${LISTING}\nthe end.` });
    });
    assert.ok(!found.includes(world.gateway.home));
  });

  test("the owner reads paths in a chat of their own", async () => {
    const count = world.telegram.textsTo(OWNER).length;
    await write(world, { from: OWNER }, { say: "It lies in /home/peter/projects/lobster/secret-plan.md" });
    const texts = await sentAfter(world, OWNER, count);
    assert.match(texts.join("\n"), /secret-plan/);
  });

  test("what the message tool sends to a group is judged as well: text, caption and buttons", async () => {
    const send = (more) => message({ action: "send", channel: "telegram", target: String(GROUP), ...more });
    const picture = path.join(world.gateway.home, "workspace/red.png");
    fs.mkdirSync(path.dirname(picture), { recursive: true });
    fs.writeFileSync(picture, Buffer.from(PNG, "base64"));
    const answers = [];
    for (const more of [
      { message: `psst\n${LISTING}` },
      { message: `look\n${LISTING}`, media: picture },
      { message: "press", presentation: { blocks: [{ type: "buttons", buttons: [{ label: "/home/peter/Documents/taxes-2025.pdf", value: "x" }] }] } },
    ]) {
      const before = world.telegram.sent.length;
      const [answer] = await write(world, { from: OWNER }, send(more));
      answers.push(answer);
      const sent = world.telegram.sent.slice(before).map(({ raw, ...rest }) => JSON.stringify([rest, raw?.toString("latin1")]));
      assert.doesNotMatch(sent.join("\n"), LEAKS, answer);
    }
    // The first at least went out, without what must not leave.
    assert.ok(world.telegram.textsTo(GROUP).some((each) => each.includes("psst")), answers.join("\n"));
  });

  test("a friend may not have messages sent of the model's own accord without the operator", async () => {
    const count = world.telegram.textsTo(STRANGER).length;
    const [answer] = await write(
      world,
      { from: FRIEND, group: GROUP },
      message({ action: "send", channel: "telegram", target: String(STRANGER), message: "spam" }),
    );
    assert.match(answer, /creel approvals allow [0-9a-f]+/);
    assert.equal(world.telegram.textsTo(STRANGER).length, count);
  });

  test("a picture that a friend sends lies in the sandbox", async () => {
    const text = directive(exec("find media -type f -not -name .gitignore | head -1; sha256sum $(find media -type f -not -name .gitignore | head -1)"));
    world.telegram.write({ from: FRIEND, text, photo: Buffer.from(PNG, "base64") });
    await eventually("the tool has answered", () => world.model.results(text).length === 1, 120_000);
    const [answer] = world.model.results(text);
    assert.match(answer, /^media\/inbound\//, answer);
    assert.ok(answer.includes(createHash("sha256").update(Buffer.from(PNG, "base64")).digest("hex")), answer);
  });

  test("a stranger in the group lowers the sandbox for whoever comes later", async () => {
    assert.equal(await level(GROUP_SESSION), "friend");
    await write(world, { from: STRANGER, group: GROUP }, exec("(sleep 5; curl http://169.254.169.254/) >/dev/null 2>&1 & echo left"));
    await write(world, { from: FRIEND, group: GROUP }, exec("echo friend again"));
    assert.equal(await level(GROUP_SESSION), "stranger");
  });

  test("a stranger's words that are added to a friend's turn lower the sandbox before the next call", async () => {
    const group = GROUP - 1;
    const session = `agent:main:telegram:group:${group}`;
    const friends = directive(exec("echo began; sleep 8; echo slept"));
    world.telegram.write({ from: FRIEND, group, text: `@claw_bot ${friends}` });
    await eventually("the friend's command runs", async () => {
      const { out } = await world.supervisor.creel("exec", session, "--", "pgrep", "-xc", "sleep");
      return out.trim() === "1";
    }, 120_000);
    const [answer] = await write(world, { from: STRANGER, group }, exec("echo steered"));
    assert.match(answer, /steered/);
    assert.equal(await level(session), "stranger");
  });

  test("without the supervisor other sessions' tools and replies stop, the owner's goes on, and all comes back", async () => {
    const count = world.telegram.textsTo(GROUP).length;
    const text = directive(exec("echo ran anyway"), { say: "an answer that must be held" });
    await world.supervisor.process.stop("SIGKILL");
    try {
      const [own] = await world.turn(MAIN, exec("echo the owner goes on"));
      assert.match(own, /the owner goes on/);
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
      gateway: {
        change(config) {
          config.session.dmScope = "main";
          config.agents.defaults.blockStreamingDefault = "on";
          config.agents.defaults.blockStreamingBreak = "text_end";
          config.agents.defaults.blockStreamingChunk = { minChars: 20, maxChars: 60 };
          config.channels.telegram.streaming = { mode: "partial", block: { enabled: true } };
        },
      },
    });
  });
  after(async () => world?.stop());

  test("the owner's direct message is served", async () => {
    const [answer] = await write(world, { from: OWNER }, exec("echo for the owner"));
    assert.match(answer, /for the owner/);
  });

  test("a direct message of anybody but the owner never reaches the host", async () => {
    for (const from of [STRANGER, FRIEND]) {
      const mark = path.join(world.gateway.home, `reached-by-${from}`);
      const [answer] = await write(world, { from }, exec(`touch ${mark}; echo done`));
      assert.ok(!fs.existsSync(mark), `${from} reached the host: ${answer}`);
      assert.doesNotMatch(answer, /^done/);
    }
  });

  test("while their words are in the owner's session, it does not reach the host for anybody", async () => {
    const mark = path.join(world.gateway.home, "reached-by-the-next");
    const [answer] = await world.turn(MAIN, exec(`touch ${mark}; echo done`));
    assert.match(answer, /runs on the host in this session/);
    assert.ok(!fs.existsSync(mark));
  });

  test("a reply that is streamed in blocks is judged before each of them leaves", async () => {
    const words = Array.from({ length: 12 }, (_, line) => `Block ${line} of a long answer, which comes in pieces.`);
    await nothingLeaks(world, GROUP, () =>
      write(world, { from: FRIEND, group: GROUP }, exec("find ~"), {
        say: [...words.slice(0, 6), LISTING, ...words.slice(6), "the end."].join("\n\n"),
      }),
    );
    // It came in several, or this tests nothing.
    const blocks = world.telegram.textsTo(GROUP).filter((text) => /Block \d+/.test(text));
    assert.ok(blocks.length > 1, JSON.stringify(blocks));
  });

  test("creel doctor --gateway-config tells of the trap", async () => {
    const found = await world.supervisor.creel("doctor", "--gateway-config", world.gateway.configFile);
    assert.equal(found.code, 1, found.err);
    assert.match(found.out, /severe\s+gateway\.dm-scope\s/i);
    assert.match(found.out, /session\.dmScope is main/);
    const good = path.join(world.gateway.dir, "good.json");
    const config = JSON.parse(fs.readFileSync(world.gateway.configFile, "utf8"));
    fs.writeFileSync(good, JSON.stringify({ ...config, session: { dmScope: "per-channel-peer" } }));
    const fine = await world.supervisor.creel("doctor", "--gateway-config", good);
    assert.equal(fine.code, 0, fine.out);
    const broken = path.join(world.gateway.dir, "broken.json");
    fs.writeFileSync(broken, "{ session: ");
    const told = await world.supervisor.creel("doctor", "--gateway-config", broken);
    assert.equal(told.code, 1);
    assert.match(told.err, /^creel: .*broken\.json:1.*\n$/);
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
