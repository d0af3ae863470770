import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { load } from "./support.mjs";

const { PathMap } = await load("paths.js");
const { readersOf, senderOfRequester, isMainSession, peerOfSession } = await load("senders.js");
const { readSettings } = await load("settings.js");

describe("PathMap", () => {
  const paths = new PathMap("/workspace", [{ hostRoot: "/home/gw/box", containerRoot: "/workspace" }]);

  test("all three forms of a path name the same file", () => {
    for (const [path, cwd, expected] of [
      ["/workspace/a b.txt", undefined, "/workspace/a b.txt"],
      ["a b.txt", undefined, "/workspace/a b.txt"],
      ["a b.txt", "/home/gw/box", "/workspace/a b.txt"],
      ["./d/../a b.txt", "/workspace/", "/workspace/a b.txt"],
      ["/home/gw/box/a b.txt", undefined, "/workspace/a b.txt"],
      ["x", "/home/gw/box/d", "/workspace/d/x"],
      ["/home/gw/box", undefined, "/workspace"],
      ["/tmp/x", undefined, "/tmp/x"],
      ["a\nb", undefined, "/workspace/a\nb"],
    ]) {
      assert.equal(paths.toContainer(path, cwd), expected, path);
    }
  });

  test("a folder that lies elsewhere is found under the name that the gateway gives it", () => {
    const aliased = new PathMap("/workspace", [], [{ from: "/workspace/skills", to: "/tmp/openclaw/skills" }]);
    assert.equal(aliased.toContainer("skills/a/SKILL.md"), "/tmp/openclaw/skills/a/SKILL.md");
    assert.equal(aliased.toContainer("a/SKILL.md", "/workspace/skills"), "/tmp/openclaw/skills/a/SKILL.md");
    assert.equal(aliased.toContainer("skillset"), "/workspace/skillset");
    assert.equal(aliased.toContainer("skills/../x"), "/workspace/x");
  });

  test("a path that leaves the folder is the container's, never another folder of the host", () => {
    assert.equal(paths.toContainer("../../etc/shadow"), "/etc/shadow");
    assert.equal(paths.toContainer("/home/gw/box/../secret"), "/home/gw/secret");
    assert.equal(paths.toContainer("/home/gw/boxes/a"), "/home/gw/boxes/a");
  });

  test("an empty path and a NUL byte are refused", () => {
    assert.throws(() => paths.toContainer(""));
    assert.throws(() => paths.toContainer("a\0b"));
  });

  test("the deepest folder decides", () => {
    const two = new PathMap("/workspace", [
      { hostRoot: "/h", containerRoot: "/workspace" },
      { hostRoot: "/h/skills", containerRoot: "/skills" },
    ]);
    assert.equal(two.toContainer("/h/skills/a"), "/skills/a");
  });
});

describe("senders", () => {
  test("the requester of a tool call is a sender only with channel and id", () => {
    assert.deepEqual(senderOfRequester({ channel: "Telegram", senderId: "telegram:111", senderIsOwner: true }), {
      channel: "telegram",
      id: "111",
      account: "",
      is_owner_claim: true,
    });
    assert.equal(senderOfRequester({ channel: "telegram" }), undefined);
    assert.equal(senderOfRequester({ senderId: "1" }), undefined);
    assert.equal(senderOfRequester(undefined), undefined);
  });

  test("readers of a direct message are known, those of a group are others", () => {
    const direct = readersOf({ channel: "telegram", conversation: "telegram:111", session: "agent:main:telegram:direct:111" });
    assert.deepEqual(direct, { recipients: [{ channel: "telegram", id: "111" }], others_read: false });
    for (const group of [
      { channel: "telegram", conversation: "telegram:-100123" },
      { channel: "telegram", conversation: "telegram:5", session: "agent:main:telegram:group:5" },
      { channel: "whatsapp", conversation: "12036@g.us" },
      { channel: "discord", conversation: "channel:99" },
      { channel: "slack", conversation: "x", session: "agent:main:slack:channel:c1:thread:7" },
    ]) {
      assert.deepEqual(readersOf(group), { recipients: [], others_read: true }, JSON.stringify(group));
    }
  });

  test("a session of direct messages names its sender, no other does", () => {
    assert.equal(peerOfSession("agent:main:telegram:direct:666"), "telegram:666");
    assert.equal(peerOfSession("agent:main:telegram:default:direct:666"), "telegram:666");
    assert.equal(peerOfSession("agent:main:whatsapp:dm:+15555550123"), "whatsapp:+15555550123");
    for (const other of ["agent:main:main", "agent:main:telegram:group:-1", "direct:5", "agent:main:cron:direct"]) {
      assert.equal(peerOfSession(other), undefined, other);
    }
  });

  test("only agent:ID:main is a main session", () => {
    assert.ok(isMainSession("agent:main:main"));
    assert.ok(!isMainSession("agent:main:main:x"));
    assert.ok(!isMainSession("agent:main:telegram:direct:main"));
  });
});

describe("settings", () => {
  test("defaults are the usual places", () => {
    const settings = readSettings({}, {});
    assert.equal(settings.socket, "/run/creel/gateway.sock");
    assert.equal(settings.admission, "gateway");
  });

  test("what is wrong is named", () => {
    for (const [config, words] of [
      [{ sokcet: "/x" }, /sokcet is unknown/],
      [{ socket: "relative.sock" }, /socket must be an absolute path/],
      [{ socket: `/${"x".repeat(120)}` }, /longer than the 107 bytes/],
      [{ socket: 7 }, /socket must be a non-empty text/],
      [{ admission: "nobody" }, /admission must be gateway or creel/],
      [{ callTimeoutSeconds: 0 }, /callTimeoutSeconds must be/],
      [{ protos: "/nowhere" }, /protos must name the folder/],
      [[], /must be an object/],
    ]) {
      assert.throws(() => readSettings(config, {}), words);
    }
  });
});
