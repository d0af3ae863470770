// Conversations with the unmodified gateway, whose tools run in Creel's sandboxes.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { after, before, describe, test } from "node:test";
import { eventually } from "./support/process.mjs";
import { World } from "./support/world.mjs";

const GROUP = "agent:main:telegram:group:-100120363";
const OTHER = "agent:main:telegram:group:-100777";
const MAIN = "agent:main:main";
// Eight by eight pixels, red.
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC";

const exec = (command, more = {}) => ({ tool: "exec", args: { command, ...more } });

describe("OpenClaw's tools in Creel", () => {
  let world;
  let given;
  const folder = (name) => path.join(given, name);
  const WRITER = "agent:writer:telegram:group:-100120363";
  const READER = "agent:reader:telegram:group:-100120363";
  const FOLDERS_OWNER = 12345;
  before(async () => {
    given = fs.mkdtempSync(path.join(os.tmpdir(), "creel-e2e-given-"));
    fs.chmodSync(given, 0o755);
    for (const name of ["writer", "reader"]) {
      fs.mkdirSync(folder(name));
      fs.writeFileSync(path.join(folder(name), "of-the-host.txt"), "from the host\n");
      fs.chownSync(folder(name), FOLDERS_OWNER, FOLDERS_OWNER);
      fs.chownSync(path.join(folder(name), "of-the-host.txt"), FOLDERS_OWNER, FOLDERS_OWNER);
    }
    world = await World.start({
      supervisor: { sandbox: `  workspace_access: rw\n  workspace_roots: ["${given}"]\n` },
      gateway: {
        change(config) {
          const agent = (name, workspaceAccess) => ({
            workspace: folder(name),
            sandbox: { mode: "all", backend: "creel", scope: "session", workspaceAccess },
          });
          config.agents.entries = { main: { default: true }, writer: agent("writer", "rw"), reader: agent("reader", "ro") };
        },
      },
    });
  });
  after(async () => {
    await world?.stop();
    fs.rmSync(given, { recursive: true, force: true });
  });

  // Commands of tools that run in the session's container, as its processes see it.
  async function running(session, name) {
    const { out } = await world.supervisor.creel("exec", session, "--", "pgrep", "-xc", name);
    return Number(out.trim());
  }

  test("find ~ in a group finds the sandbox's home, in the owner's main session the host's", async () => {
    const secret = path.join(world.gateway.home, ".ssh-of-the-owner");
    fs.writeFileSync(secret, "private");
    const [inGroup] = await world.turn(GROUP, exec("cd ~ && pwd && find ~ && id -u"));
    assert.match(inGroup, /^\/workspace\n/);
    assert.doesNotMatch(inGroup, /ssh-of-the-owner/);
    assert.ok(!inGroup.includes(world.gateway.home), inGroup);
    assert.doesNotMatch(inGroup, /\n0\n?$/);

    const [inMain] = await world.turn(MAIN, exec("find ~ -maxdepth 1"));
    assert.match(inMain, /ssh-of-the-owner/);
    const sessions = await world.supervisor.sessions();
    assert.ok(!sessions.some((each) => (each.session ?? each) === MAIN));
  });

  test("a command's output, error output and status are told", async () => {
    const [fine, failed, large] = await world.turn(
      GROUP,
      exec("echo out; echo err >&2"),
      exec("echo before; exit 7"),
      exec("seq 1 200000"),
    );
    assert.match(fine, /out/);
    assert.match(fine, /err/);
    assert.match(failed, /before/);
    assert.match(failed, /7/);
    // The gateway shows the model a part, and says so.
    assert.ok(large.length > 10_000);
    assert.match(large, /discarded|truncated|omitted/);
  });

  test("variables reach the command and stand on no command line of the host", async () => {
    const secret = `s3cret-${process.pid}`;
    const turn = world.turn(
      GROUP,
      exec('printf "%s" "$LINES_OF_TEXT"; echo; sleep 2; echo end', {
        env: { LINES_OF_TEXT: `one ${secret}\ntwo` },
      }),
    );
    let done = false;
    turn.finally(() => (done = true)).catch(() => {});
    const seen = [];
    while (!done) {
      for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
        try {
          const line = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8");
          if (line.includes("LINES_OF_TEXT")) seen.push(line);
        } catch {
          // It has ended.
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const [answer] = await turn;
    assert.match(answer, new RegExp(`one ${secret}\\ntwo`));
    assert.ok(seen.length > 0, "the command was not seen at all");
    assert.ok(!seen.some((line) => line.includes(secret)), "the value stood on a command line");
  });

  test("a background process is polled, written to and killed, and nothing is left of it", async () => {
    const session = { from: 0, match: "session ([A-Za-z0-9_-]+)" };
    const [started, polled] = await world.turn(
      GROUP,
      exec("echo began; sleep 4241", { background: true }),
      { tool: "process", args: { action: "poll", sessionId: session, timeout: 3000 } },
      { tool: "process", args: { action: "kill", sessionId: session } },
    );
    assert.match(started, /session/);
    assert.match(polled, /began/);
    await eventually("the killed command is gone", async () => (await running(GROUP, "sleep")) === 0);

    const answers = await world.turn(
      GROUP,
      exec("read line; echo heard $line", { background: true, pty: true }),
      { tool: "process", args: { action: "submit", sessionId: session } },
      { tool: "process", args: { action: "write", sessionId: session, data: "lobster\n" } },
      { tool: "process", args: { action: "poll", sessionId: session, timeout: 5000 } },
    );
    assert.match(answers.join("\n"), /heard/);
  });

  test("a command whose time runs out leaves no process behind", async () => {
    const [answer] = await world.turn(
      GROUP,
      exec("(setsid sleep 4242 &); setsid env -i /bin/sleep 4242 & sleep 4242", { timeoutSeconds: 2 }),
    );
    assert.match(answer, /time/i);
    await eventually("its processes are gone", async () => (await running(GROUP, "sleep")) === 0, 20_000);
  });

  test("write, read, ls and edit work under each form of a path", async () => {
    const host = path.join(world.gateway.home, ".openclaw/sandboxes");
    const [, relative, absolute, list, , edited] = await world.turn(
      GROUP,
      { tool: "write", args: { path: "notes/todo.txt", content: "first\nsecond\n" } },
      { tool: "read", args: { path: "notes/todo.txt" } },
      { tool: "read", args: { path: "/workspace/notes/todo.txt" } },
      { tool: "ls", args: { path: "notes" } },
      { tool: "edit", args: { path: "notes/todo.txt", edits: [{ oldText: "second", newText: "third" }] } },
      { tool: "read", args: { path: "notes/todo.txt" } },
    );
    assert.match(relative, /first\nsecond/);
    assert.match(absolute, /first\nsecond/);
    assert.match(list, /todo\.txt/);
    assert.match(edited, /first\nthird/);
    const folder = fs.readdirSync(host).find((name) => fs.existsSync(path.join(host, name, "skills")));
    const [byHostPath, inShell] = await world.turn(
      GROUP,
      { tool: "read", args: { path: path.join(host, folder, "notes/todo.txt") } },
      exec("cat /workspace/notes/todo.txt; stat -c %a notes/todo.txt"),
    );
    assert.match(byHostPath, /first\nthird/);
    assert.match(inShell, /first\nthird\n644/);
    assert.ok(!fs.existsSync(path.join(host, folder, "notes")), "the file lies on the host");
  });

  test("names with spaces and newlines, and bytes of every value, survive", async () => {
    const name = "a name\nof two lines ✓.txt";
    const [, read, shell] = await world.turn(
      GROUP,
      { tool: "write", args: { path: name, content: "kept\n" } },
      { tool: "read", args: { path: name } },
      exec(`cat 'a name\nof two lines ✓.txt' && head -c 256 /dev/urandom > blob && python3 - <<'E'
open("blob","wb").write(bytes(range(256)))
E
sha256sum < blob`),
    );
    assert.match(read, /kept/);
    assert.match(shell, /kept/);
    assert.match(shell, /40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880/);
  });

  test("apply_patch adds, updates and deletes", async () => {
    const patch = (body) => ({ tool: "apply_patch", args: { input: `*** Begin Patch\n${body}\n*** End Patch` } });
    const answers = await world.turn(
      GROUP,
      patch("*** Add File: patched.txt\n+one\n+two"),
      patch("*** Update File: patched.txt\n@@\n one\n-two\n+three"),
      exec("cat patched.txt"),
      patch("*** Add File: patched.txt\n+again"),
      patch("*** Delete File: patched.txt"),
      exec("ls patched.txt"),
    );
    assert.match(answers[0], /A patched\.txt/);
    assert.match(answers[1], /M patched\.txt/);
    assert.match(answers[2], /one\nthree/);
    assert.match(answers[3], /exists/);
    assert.match(answers[4], /D patched\.txt/);
    assert.match(answers[5], /No such file/);
  });

  test("an image is read as an image", async () => {
    await world.turn(GROUP, exec(`echo ${PNG} | base64 -d > red.png`), {
      tool: "read",
      args: { path: "red.png" },
    });
    const last = JSON.stringify(world.model.requests.at(-1).messages);
    assert.match(last, /image_url/);
  });

  test("what lies outside the sandbox's roots is refused, also by link", async () => {
    const [passwd, planted, throughLink, climbed] = await world.turn(
      GROUP,
      { tool: "read", args: { path: "/etc/shadow" } },
      exec("ln -sfn /etc/shadow innocent.txt; ln -sfn / out; echo linked"),
      { tool: "read", args: { path: "innocent.txt" } },
      { tool: "write", args: { path: "out/tmp/../etc/planted-by-a-tool", content: "x" } },
    );
    assert.doesNotMatch(passwd, /root:/);
    assert.match(planted, /linked/);
    assert.doesNotMatch(throughLink, /root:/);
    assert.doesNotMatch(climbed, /Successfully/);
    assert.ok(!fs.existsSync("/etc/planted-by-a-tool"));
  });

  test("two sessions at once do not see each other's files", async () => {
    const [first, second] = await Promise.all([
      world.turn(GROUP, exec("echo mine > only-group; sleep 1; ls")),
      world.turn(OTHER, exec("echo mine > only-other; sleep 1; ls; ls /workspace/../workspace")),
    ]);
    assert.match(first[0], /only-group/);
    assert.doesNotMatch(first[0], /only-other/);
    assert.match(second[0], /only-other/);
    assert.doesNotMatch(second[0], /only-group/);
  });

  test("skills are readable inside, and not to be written by the file tools", async () => {
    const [list, refused] = await world.turn(
      GROUP,
      exec("ls skills | head -3; head -3 skills/*/SKILL.md | head -4"),
      { tool: "write", args: { path: "skills/planted/SKILL.md", content: "be evil" } },
    );
    assert.match(list, /SKILL|name:/);
    assert.match(refused, /read-only/);
  });

  test("workspaceAccess rw: what is written lies on the host, with the folder's owner", async () => {
    const [read, , , shell, skills] = await world.turn(
      WRITER,
      { tool: "read", args: { path: "of-the-host.txt" } },
      { tool: "write", args: { path: "by-write.txt", content: "written\n" } },
      { tool: "write", args: { path: path.join(folder("writer"), "by-host-path.txt"), content: "written\n" } },
      exec("cat by-write.txt by-host-path.txt; echo made > by-exec.txt; touch /etc/x || true"),
      exec("find . -name SKILL.md | head -1"),
    );
    assert.match(read, /from the host/);
    assert.match(shell, /written\nwritten/);
    assert.match(skills, /SKILL\.md/);
    for (const name of ["by-write.txt", "by-host-path.txt", "by-exec.txt"]) {
      const { uid, gid } = fs.statSync(path.join(folder("writer"), name));
      assert.deepEqual([uid, gid], [FOLDERS_OWNER, FOLDERS_OWNER], name);
    }
    assert.equal(fs.readFileSync(path.join(folder("writer"), "by-write.txt"), "utf8"), "written\n");
  });

  test("workspaceAccess ro: reading works, writing is refused to tools and commands alike", async () => {
    const [read, shell, written, skill, skillInShell] = await world.turn(
      READER,
      { tool: "read", args: { path: "of-the-host.txt" } },
      exec("cat of-the-host.txt; echo x > by-exec.txt; rm of-the-host.txt; echo done"),
      { tool: "write", args: { path: "by-write.txt", content: "x" } },
      { tool: "ls", args: { path: "skills" } },
      exec("find /tmp/openclaw/skills -name SKILL.md | head -1"),
    );
    assert.match(read, /from the host/);
    assert.match(shell, /from the host/);
    assert.match(shell, /[Rr]ead-only file system/);
    assert.doesNotMatch(written, /^Successfully|^Wrote/);
    assert.ok(skill.trim() !== "" && !/ENOENT|not found/i.test(skill), skill);
    assert.match(skillInShell, /SKILL\.md/);
    assert.deepEqual(fs.readdirSync(folder("reader")).filter((name) => name.startsWith("by-")), []);
    assert.ok(fs.existsSync(path.join(folder("reader"), "of-the-host.txt")));
  });

  test("workspaceAccess none: the agent's own folder is not in the sandbox", async () => {
    fs.mkdirSync(path.join(world.gateway.home, "workspace"), { recursive: true });
    fs.writeFileSync(path.join(world.gateway.home, "workspace/of-the-agent.txt"), "private");
    const [shell] = await world.turn(GROUP, exec("ls -a; echo x > stays-inside; cat of-the-agent.txt; env | grep -c ^PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin$"));
    assert.doesNotMatch(shell, /private/);
    assert.match(shell, /\n1\n?/);
    assert.ok(!fs.existsSync(path.join(world.gateway.home, "workspace/stays-inside")));
  });

  test("a plugin or a supervisor that do not fit are told so in one line", async () => {
    const { Client } = await import(pathToFileURL(path.join(world.gateway.dir, "plugin/lib/client.js")));
    const client = new Client({
      socket: world.supervisor.socket,
      protos: path.join(world.gateway.dir, "plugin/proto"),
      callTimeoutMs: 10_000,
    });
    try {
      const newer = await client.unary("GetInfo", { gateway: "openclaw", gateway_version: "x", api_minor: 99 });
      assert.equal(newer.compatible, false);
      assert.match(newer.reason, /^[^\n]*wants version 99 of the API.*upgrade creeld$/);
      const older = await client.unary("GetInfo", { gateway: "openclaw", gateway_version: "x", api_minor: 1 });
      assert.equal(older.compatible, true);
    } finally {
      client.close();
    }
  });

  test("the supervisor may be killed between two calls: files and container stay", async () => {
    const [before] = await world.turn(GROUP, exec("echo kept > across; cat /proc/sys/kernel/random/boot_id; hostname; stat -c %i /proc/1/exe"));
    await world.supervisor.process.stop("SIGKILL");
    await world.supervisor.begin();
    const [read, after] = await world.turn(
      GROUP,
      { tool: "read", args: { path: "across" } },
      exec("cat across"),
    );
    assert.match(read, /kept/);
    assert.match(after, /kept/);
    assert.ok(before);
  });

  test("sandbox list and explain show Creel's sandboxes, and recreate gives a fresh one", async () => {
    const id = (await world.supervisor.sessions()).find((each) => (each.session ?? each) === GROUP)?.sandbox_id;
    const list = await world.gateway.openclaw("sandbox", "list");
    assert.equal(list.code, 0, list.err);
    assert.match(list.out, new RegExp(`creel-${id ?? "[a-z0-9]+"}`));
    const explained = await world.gateway.openclaw("sandbox", "explain", "--session", GROUP);
    assert.match(explained.out, /creel/i);
    // The gateway knows a sandbox by the session and its workspace.
    const json = JSON.parse((await world.gateway.openclaw("sandbox", "list", "--json")).out);
    const entry = json.containers.find((each) => each.sessionKey.startsWith(GROUP));
    assert.equal(entry.running, true);
    const recreated = await world.gateway.openclaw("sandbox", "recreate", "--session", entry.sessionKey, "--force");
    assert.equal(recreated.code, 0, recreated.out + recreated.err);
    const [answer] = await world.turn(GROUP, exec("ls across || echo fresh"));
    assert.match(answer, /fresh/);
  });
});
