// Creel against the gateway's own Docker sandbox, in one gateway: per tool the milliseconds that the
// gateway measures for the call, and the programs that gateway and supervisor started for it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { describe, test } from "node:test";
import { World } from "./support/world.mjs";

const ROUNDS = 3;
const COLD_ROUNDS = 2;
const SOURCE = path.resolve(import.meta.dirname, "../..");
const MAIN = "agent:main:main";
const sessionOf = {
  creel: (number) => `agent:main:bench:group:${number}`,
  docker: (number) => `agent:docked:bench:group:${number}`,
};
const exec = { tool: "exec", args: { command: "true" } };
// In this order: each round's edit finds what its write has left.
const STEPS = {
  write: { tool: "write", args: { path: "bench.txt", content: "first\n" } },
  edit: { tool: "edit", args: { path: "bench.txt", edits: [{ oldText: "first", newText: "second" }] } },
  read: { tool: "read", args: { path: "bench.txt" } },
  ls: { tool: "ls", args: {} },
  "exec warm": exec,
};

// The best of all rounds, as whatever else the machine does only ever adds to it.
const best = (rounds, what) => Math.min(...rounds.map((each) => each[what]));
// The gateway has errands of its own now and then, of which one may fall into a call.
const median = (rounds, what) => rounds.map((each) => each[what]).toSorted((a, b) => a - b)[Math.floor(rounds.length / 2)];

// Counts the programs that these processes, and all they start, have started.
class Starts {
  static async watch(...pids) {
    const starts = new Starts();
    starts.child = spawn("python3", [path.join(import.meta.dirname, "support/starts.py"), ...pids.map(String)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    starts.lines = readline.createInterface({ input: starts.child.stdout })[Symbol.asyncIterator]();
    assert.equal((await starts.lines.next()).value, "ready");
    return starts;
  }
  async count() {
    this.child.stdin.write("\n");
    const { value, done } = await this.lines.next();
    assert.ok(!done, "nobody counts any more");
    return Number(value);
  }
  stop() {
    this.child.stdin.end();
  }
}

describe("Creel against the gateway's own Docker sandbox", () => {
  test("file tools at least 50 times, a warm command at least 10 times as fast", async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-e2e-bench-"));
    const times = path.join(dir, "times");
    fs.writeFileSync(times, "");
    const world = await World.start({
      gateway: {
        change(config) {
          config.plugins.allow.push("probe");
          config.plugins.load.paths.push(path.join(import.meta.dirname, "support/probe-plugin"));
          config.plugins.entries.probe = { enabled: true, config: { file: times } };
          const settings = { image: "creel-sandbox:latest", network: "none", containerPrefix: `creel-e2e-${process.pid}-` };
          config.agents.entries = {
            main: { default: true },
            docked: {
              workspace: path.join(dir, "docked"),
              sandbox: { mode: "all", backend: "docker", scope: "session", workspaceAccess: "none", docker: settings },
            },
          };
        },
      },
    });
    const starts = await Starts.watch(world.gateway.process.child.pid, world.supervisor.process.child.pid);
    // One call; what it cost. `turn_ms` is the whole turn, as whoever asked waits for it.
    const measure = async (session, step) => {
      const timesBefore = fs.readFileSync(times, "utf8").length;
      const startsBefore = await starts.count();
      const begun = performance.now();
      const [answer] = await world.turn(session, step);
      const turn_ms = Math.round(performance.now() - begun);
      const processes = (await starts.count()) - startsBefore;
      const lines = fs.readFileSync(times, "utf8").slice(timesBefore).trim().split("\n").map((line) => JSON.parse(line));
      const line = lines.find((each) => each.tool === step.tool);
      assert.ok(line && !line.error, `${session} ${step.tool}: ${answer}`);
      return { ms: line.ms, turn_ms, processes };
    };
    try {
      // Whatever is done once for the gateway or its image is not part of it.
      for (const session of [MAIN, sessionOf.creel(0), sessionOf.docker(0)]) {
        for (const step of Object.values(STEPS)) await measure(session, step);
      }
      // By whom, then by tool: what each round has cost. Everybody takes part in each round.
      const rounds = { host: {}, creel: {}, docker: {} };
      const note = async (name, tool, session) =>
        (rounds[name][tool] ??= []).push(await measure(session, STEPS[tool] ?? exec));
      for (let round = 0; round < ROUNDS; ++round) {
        for (const tool of Object.keys(STEPS)) {
          await note("host", tool, MAIN);
          await note("creel", tool, sessionOf.creel(0));
          await note("docker", tool, sessionOf.docker(0));
        }
      }
      for (let round = 1; round <= COLD_ROUNDS; ++round) {
        await note("creel", "exec cold", sessionOf.creel(round));
        await note("docker", "exec cold", sessionOf.docker(round));
      }
      // What the gateway needs by itself for the same tool on the host is taken off; it tells whole
      // milliseconds, so one is the least. A sandbox is made before the tool runs: of a cold command
      // the whole turn counts, as whoever asked waits for it.
      const row = (name, tool) => {
        const what = tool === "exec cold" ? "turn_ms" : "ms";
        const whole_ms = best(rounds[name][tool], what);
        const host_ms = best(rounds.host[tool] ?? rounds.host["exec warm"], what);
        return { ms: Math.max(whole_ms - host_ms, 1), whole_ms, host_ms, processes: median(rounds[name][tool], "processes") };
      };
      const tools = [...Object.keys(STEPS), "exec cold"];
      const table = Object.fromEntries(
        ["creel", "docker"].map((name) => [name, Object.fromEntries(tools.map((tool) => [tool, row(name, tool)]))]),
      );
      const rows = ["tool       host ms  Creel ms  more  processes  Docker ms  more  processes  times"];
      for (const tool of tools) {
        const creel = table.creel[tool];
        const docker = table.docker[tool];
        rows.push(
          [tool.padEnd(10), String(creel.host_ms).padStart(7), String(creel.whole_ms).padStart(9), String(creel.ms).padStart(5),
            String(creel.processes).padStart(10), String(docker.whole_ms).padStart(10), String(docker.ms).padStart(5),
            String(docker.processes).padStart(10), (docker.ms / creel.ms).toFixed(0).padStart(6)].join(" "),
        );
      }
      console.log(rows.join("\n"));
      fs.mkdirSync(path.join(SOURCE, "build"), { recursive: true });
      fs.writeFileSync(
        path.join(SOURCE, "build/gateway-bench.json"),
        `${JSON.stringify(table, null, 2)}\n`,
      );
      for (const tool of ["write", "edit", "read", "ls"]) {
        assert.equal(table.creel[tool].processes, 0, tool);
        // Or the count would count nothing.
        assert.ok(table.docker[tool].processes > 0, tool);
        assert.ok(table.docker[tool].ms >= 50 * table.creel[tool].ms, `${tool}: ${JSON.stringify([table.creel[tool], table.docker[tool]])}`);
      }
      const warm = [table.creel["exec warm"], table.docker["exec warm"]];
      assert.ok(warm[1].ms >= 10 * warm[0].ms, JSON.stringify(warm));
    } finally {
      starts.stop();
      await world.gateway.openclaw("sandbox", "recreate", "--all", "--force").catch(() => {});
      await world.stop();
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });
});
