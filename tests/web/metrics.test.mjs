// What Prometheus gets.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { run } from "../e2e/support/process.mjs";
import { Gateway } from "./support/load.mjs";
import { eventually, memoryOf, request, World } from "./support/world.mjs";

const PROMTOOL = process.env.CREEL_PROMTOOL;
const DOCS = path.resolve(import.meta.dirname, "../../docs");
const SESSION = "agent:main:whatsapp:group:secret-of-the-family";
const SENDER = "whatsapp:+15555550123";
let world;

before(async () => {
  world = await World.start({
    friends: [SENDER],
    config: `rules:\n  no-removing: {tools: [remove], verdict: deny, reason: "nothing is removed here"}\negress: {hosts: [{name: allowed.test, levels: [friend]}]}\n`,
  });
});
after(() => world?.stop());

const scrape = async () => {
  const answer = await request(world.port, { path: "/metrics" });
  assert.equal(answer.status, 200);
  return answer.text;
};
// The value of a series, 0 if it is not there.
const value = (text, series) => {
  const line = text.split("\n").find((each) => each.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
};

test("promtool likes them; names are the ecosystem's, labels are bounded and name nobody", { timeout: 200_000 }, async () => {
  assert.equal((await world.supervisor.creel("exec", "--sender", SENDER, SESSION, "--", "sh", "-c", "exit 3")).code, 3);
  await world.creel("open", SESSION).catch(() => {});
  const gateway = new Gateway(`${world.dir}/run/gateway.sock`);
  await gateway.call("Stat", { context: { session: SESSION }, args: { path: Buffer.from("/workspace") } });
  await assert.rejects(gateway.call("Remove", { context: { session: SESSION }, args: { path: Buffer.from("/workspace/x") } }));
  gateway.close();
  const text = await eventually("the calls are counted", async () => {
    const now = await scrape();
    return value(now, 'creel_calls_total{tool="remove",verdict="deny"}') === 1 && now;
  });
  const checked = await run([PROMTOOL, "check", "metrics"], { input: text, env: { PATH: process.env.PATH } });
  assert.equal(checked.code, 0, checked.out + checked.err);
  assert.equal(checked.err.trim(), "", "not even a hint");
  assert.equal(value(text, 'creel_calls_total{tool="exec",verdict="allow"}'), 1);
  assert.equal(value(text, 'creel_calls_total{tool="stat",verdict="allow"}'), 1);
  assert.equal(value(text, "creel_exec_duration_seconds_count"), 1);
  assert.equal(value(text, 'creel_exec_exits_total{outcome="nonzero"}'), 1);
  assert.equal(value(text, 'creel_sandbox_events_total{event="opened"}'), 1);
  assert.equal(value(text, 'creel_sandboxes{state="running"}'), 1);
  assert.equal(value(text, 'creel_egress_requests_total{kind="tunnel",verdict="allow"}'), 0, "there from the beginning");
  assert.equal(value(text, "creel_record_writable"), 1);
  assert.ok(value(text, "process_cpu_seconds_total") > 0);
  assert.ok(value(text, "process_open_fds") > 5);
  assert.ok(Math.abs(value(text, "process_start_time_seconds") - Date.now() / 1000) < 600);
  for (const secret of [SESSION, "secret-of", SENDER, "5555550123"]) assert.ok(!text.includes(secret), `${secret} is told`);
  // However many names are made up, there is no more to store.
  const series = text.split("\n").filter((each) => each && !each.startsWith("#")).length;
  assert.ok(series < 250, `${series} series`);
  const other = new Gateway(`${world.dir}/run/gateway.sock`);
  for (let i = 0; i < 20; ++i) await other.call("Authorize", { session: `agent:main:made-up:${i}`, tool: `tool-${i}` }).catch(() => {});
  other.close();
  assert.equal((await scrape()).split("\n").filter((each) => each && !each.startsWith("#")).length, series);
});

test("the alert rules and the dashboard are about series that there are", { timeout: 100_000 }, async () => {
  const tested = await run([PROMTOOL, "test", "rules", "creel.rules.test.yml"], { cwd: path.join(DOCS, "prometheus"), env: { PATH: process.env.PATH } });
  assert.equal(tested.code, 0, tested.out + tested.err);
  const text = await scrape();
  const known = new Set([...text.matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name, type]) => (type === "histogram" ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name])));
  const used = (source) => new Set([...source.matchAll(/\b(creel|process)_[a-z_]+/g)].map((each) => each[0]));
  const dashboard = JSON.parse(fs.readFileSync(path.join(DOCS, "grafana/creel.json"), "utf8"));
  const queries = dashboard.panels.flatMap((panel) => panel.targets.map((target) => target.expr)).join("\n");
  assert.ok(dashboard.panels.length > 10);
  for (const source of [queries, fs.readFileSync(path.join(DOCS, "prometheus/creel.rules.yml"), "utf8").replace(/^#.*$/gm, "")]) {
    for (const name of used(source)) assert.ok(known.has(name), `${name} is not served`);
  }
  // And every series is explained.
  const explained = fs.readFileSync(path.join(DOCS, "metrics.md"), "utf8");
  for (const [, name] of text.matchAll(/^# TYPE (creel_\S+)/gm)) assert.ok(explained.includes(`\`${name}`), `${name} is not in docs/metrics.md`);
});

test("counters begin anew with the supervisor and what is adopted is not counted as opened", { timeout: 200_000 }, async () => {
  const long = world.start(SESSION, "sleep 600");
  await eventually("it runs", async () => value(await scrape(), "creel_commands_running") === 1);
  const earlier = await scrape();
  await world.supervisor.process.stop("SIGKILL");
  await long.ended;
  await world.supervisor.begin();
  const later = await eventually("it is adopted", async () => {
    const now = await scrape();
    return value(now, 'creel_sandboxes{state="running"}') === 1 && now;
  });
  // What lives is what it was; a counter that goes back to zero is how Prometheus knows a restart.
  assert.equal(value(later, "creel_commands_running"), 1);
  assert.equal(value(later, 'creel_sandbox_events_total{event="opened"}'), 0);
  assert.equal(value(later, 'creel_calls_total{tool="exec",verdict="allow"}'), 0);
  assert.ok(value(later, "process_start_time_seconds") > value(earlier, "process_start_time_seconds"));
  await world.creel("exec", SESSION, "--", "true");
  await eventually("it counts on", async () => value(await scrape(), 'creel_calls_total{tool="exec",verdict="allow"}') === 1);
  assert.equal(value(await scrape(), 'creel_sandbox_events_total{event="opened"}'), 0);
});

test("10,000 scrapes leak nothing", { timeout: 300_000 }, async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  const once = () => new Promise((resolve, reject) => {
    http.get({ host: "127.0.0.1", port: world.port, path: "/metrics", agent }, (response) => {
      response.resume();
      response.on("end", () => (response.statusCode === 200 ? resolve() : reject(new Error(String(response.statusCode)))));
    }).on("error", reject);
  });
  const many = async (count) => {
    let left = count;
    await Promise.all(Array.from({ length: 8 }, async () => {
      while (left-- > 0) await once();
    }));
  };
  const fds = () => fs.readdirSync(`/proc/${world.pid}/fd`).length;
  await many(1000);
  const memory = memoryOf(world.pid);
  const open = fds();
  await many(10_000);
  // Some without keeping the connection.
  for (let i = 0; i < 200; ++i) await request(world.port, { path: "/metrics", headers: { Connection: "close" } });
  agent.destroy();
  await eventually("connections are closed", async () => fds() <= open);
  const grown = memoryOf(world.pid) - memory;
  assert.ok(grown < 6 << 20, `grown by ${(grown / 1e6).toFixed(1)} MB`);
  console.log(`memory after 11,000 scrapes: ${(grown / 1e3).toFixed(0)} kB more than after 1,000; ${fds()} descriptors, ${open} before`);
});
