// The same facts on the terminal: creel page, logs, top, events; and the gateway's trace ids.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { Gateway } from "./support/load.mjs";
import { CREEL, eventually, SETUP, World } from "./support/world.mjs";

const SESSION = "agent:main:whatsapp:group:terminal";
let world;

before(async () => {
  world = await World.start();
});
after(() => world?.stop());

function follow(...words) {
  const child = spawn(CREEL, words, { env: { PATH: process.env.PATH, CREEL_RUN_DIR: `${world.dir}/run` }, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  child.stdout.on("data", (piece) => (out += piece));
  world.running.add(child);
  return { child, out: () => out, lines: () => out.split("\n").filter(Boolean) };
}

test("logs shows what commands have printed, as text, and follows", { timeout: 120_000 }, async () => {
  await world.creel("exec", SESSION, "--", "sh", "-c", "echo first; printf 'red \\033[31mtext\\033[2J\\n'; echo bad >&2");
  const logs = await world.creel("logs", SESSION);
  assert.match(logs, /\| \$ sh -c echo first/);
  assert.match(logs, /\| first\n/);
  assert.match(logs, /\| red \\x1b\[31mtext\\x1b\[2J\n/, "nothing is obeyed");
  assert.match(logs, /\| bad\n/);
  assert.match(logs, /\| = exit 0\n/);
  assert.ok(!logs.includes("\x1b"));
  const live = follow("logs", "-f", SESSION);
  await eventually("the past is told", async () => live.out().includes("first"));
  const command = world.start(SESSION, "echo now; sleep 1; echo later; sleep 1000");
  await eventually("what comes is told", async () => /\| later\n/.test(live.out()));
  const json = (await world.creel("--json", "logs", SESSION)).trim().split("\n").map((each) => JSON.parse(each));
  assert.ok(json.some((each) => Buffer.from(each.event.output?.data ?? "", "base64").toString().includes("first")));
  const { code, err } = await world.supervisor.creel("logs", SESSION, "--command", "none");
  assert.equal(code, 1);
  assert.match(err, /no command 'none'/);
  live.child.kill();
  command.child.kill();
});

test("top shows one or all", { timeout: 60_000 }, async () => {
  const all = await world.creel("top");
  assert.match(all, /^SESSION +STATE +CPU +MEMORY/);
  assert.ok(all.includes(SESSION));
  assert.match(all, /\d+\.\d% +\d+\.\d [KM]iB/);
  const json = JSON.parse(await world.creel("--json", "top"));
  assert.ok(Number(json.sandboxes[0].usage.memory_bytes) > 100_000);
  assert.ok(Number(json.sandboxes[0].usage.processes) >= 1);
  assert.match(await world.creel("top", SESSION), /^cpu /);
});

test("events are JSON lines of all that happens", { timeout: 60_000 }, async () => {
  const live = follow("events");
  await eventually("a call is told from its decision to its end", async () => {
    await world.creel("exec", SESSION, "--", "true");
    const events = live.lines().map((line) => JSON.parse(line));
    return events.some((each) => each.event === "call.allowed" && each.session === SESSION) && events.some((each) => each.event === "call.ended" && each.outcome === "exit 0");
  });
  live.child.kill();
});

test("the page's address is printed, and nothing is drawn where there is no terminal", { timeout: 60_000 }, async () => {
  assert.match(await world.creel("page", "--no-open"), new RegExp(`^${world.base}/#login=[0-9a-f]{64}\n$`));
  assert.match(JSON.parse(await world.creel("--json", "page", "--no-open")).expires_at, /^20/);
  const opened = JSON.parse(await world.creel("--json", "incident", "open", "--session", SESSION, "--without-capture", "--reason", "a test"));
  const { code, out, err } = await world.supervisor.creel("incident", "capture", opened.incident.id);
  assert.equal(code, 0);
  assert.match(out, /SHA-256/);
  assert.equal(err, "");
  // On a terminal it says how far it is.
  assert.match(await onTerminal(`${CREEL} incident capture ${opened.incident.id}`), /collecting the evidence \[/);
  await world.creel("incident", "thaw", opened.incident.id);
});

// What a command shows on a terminal.
async function onTerminal(line, env = {}) {
  const child = spawn("script", ["-qec", line, "/dev/null"], { env: { PATH: process.env.PATH, CREEL_RUN_DIR: `${world.dir}/run`, ...env }, stdio: ["ignore", "pipe", "inherit"] });
  let shown = "";
  child.stdout.on("data", (piece) => (shown += piece));
  await new Promise((resolve) => child.once("exit", resolve));
  return shown;
}

// Programs that stand in for others, first on the path.
function pretend(programs) {
  const folder = fs.mkdtempSync(`${world.dir}/programs-`);
  for (const [name, text] of Object.entries(programs)) fs.writeFileSync(`${folder}/${name}`, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  return { folder, PATH: `${folder}:${process.env.PATH}` };
}

test("the page's address is opened where there is a desktop, and only there", { timeout: 60_000 }, async () => {
  const { folder, PATH } = pretend({ "xdg-open": `printf '%s' "$1" >"$OPENED.new" && mv "$OPENED.new" "$OPENED"` });
  const opened = (name) => `${folder}/${name}`;
  const shown = await onTerminal(`${CREEL} page`, { PATH, DISPLAY: ":7", OPENED: opened("desktop") });
  const [address] = /http:\S+/.exec(shown);
  await eventually("it is opened", async () => fs.existsSync(opened("desktop")));
  assert.equal(fs.readFileSync(opened("desktop"), "utf8"), address);
  await onTerminal(`${CREEL} page`, { PATH, OPENED: opened("console") });
  await onTerminal(`${CREEL} page --no-open`, { PATH, DISPLAY: ":7", OPENED: opened("told-not-to") });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  for (const name of ["console", "told-not-to"]) assert.equal(fs.existsSync(opened(name)), false, name);
});

test("building the sandbox's image says how far it is, on a terminal alone", { timeout: 60_000 }, async () => {
  // An engine that has no such image, and takes three steps to build it.
  const { PATH } = pretend({ docker: 'case "$*" in *build*) echo "Step 1/3 : FROM x"; echo "fetching \\033[2J"; echo "Step 2/3 : RUN y"; echo "Step 3/3 : CMD z" ;; *inspect*debian*) exit 0 ;; *inspect*) exit 1 ;; esac' });
  const script = `${SETUP}/sandbox-image.sh`;
  const shown = await onTerminal(script, { PATH, TERM: "xterm" });
  assert.match(shown, /\[=+ +\] 2\/3/);
  assert.match(shown, /\[={20}\] 3\/3/);
  assert.ok(!shown.includes("\x1b[2J"));
  const quiet = await onTerminal(`${script} 2>&1 | cat`, { PATH, TERM: "xterm" });
  assert.ok(!quiet.includes("2/3") && !quiet.includes("\x1b"), quiet);
});

test("a traceparent from the gateway stands in the record and the log", { timeout: 60_000 }, async () => {
  const gateway = new Gateway(`${world.dir}/run/gateway.sock`);
  const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  await gateway.exec(SESSION, ["true"], { traceparent: trace });
  await gateway.call("Stat", { context: { session: SESSION }, args: { path: Buffer.from("/workspace") } }, { traceparent: trace });
  for (const bad of ["00-short-00f067aa0ba902b7-01", `${trace}; rm`, trace.toUpperCase(), `00-${"0".repeat(32)}-00f067aa0ba902b7-01`]) {
    await gateway.call("Stat", { context: { session: SESSION }, args: { path: Buffer.from("/tmp") } }, { traceparent: bad }).catch(() => {});
  }
  // One that is not sampled is in the record, not in the log; the flags are hexadecimal.
  const other = (flags) => `00-4bf92f3577b34da6a3ce929d0e0e47${flags}-00f067aa0ba902b7-${flags}`;
  for (const flags of ["0a", "0b"]) await gateway.call("Stat", { context: { session: SESSION }, args: { path: Buffer.from("/workspace") } }, { traceparent: other(flags) });
  gateway.close();
  const lines = await eventually("the calls are written", async () => {
    const all = (await world.creel("audit", "show", "--json", "-n", "0", "--session", SESSION)).trim().split("\n").map((line) => JSON.parse(line));
    return all.filter((each) => each.event === "call.ended" && each.trace).length >= 4 && all;
  });
  const traced = lines.filter((each) => each.trace !== undefined);
  assert.deepEqual([...new Set(traced.map((each) => each.trace))], [trace, other("0a"), other("0b")], "one that is none is not kept");
  assert.deepEqual([...new Set(traced.map((each) => each.tool))].sort(), ["exec", "stat"]);
  assert.deepEqual([...new Set(traced.map((each) => each.event))].sort(), ["call.allowed", "call.ended"]);
  await eventually("the log tells it", async () => ["36", "0b"].every((end) => world.supervisor.process.log().includes(`trace=4bf92f3577b34da6a3ce929d0e0e47${end}`)));
  assert.ok(!world.supervisor.process.log().includes("trace=4bf92f3577b34da6a3ce929d0e0e470a"));
});
