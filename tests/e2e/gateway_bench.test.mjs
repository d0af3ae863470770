// Creel against the gateway's own Docker sandbox, in one gateway: per tool the milliseconds that the
// gateway measures for the call, and the processes that were started for it.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { CREEL } from "./support/supervisor.mjs";
import { World } from "./support/world.mjs";

const ROUNDS = 5;
const SOURCE = path.resolve(import.meta.dirname, "../..");
const sessionOf = { creel: "agent:main:bench:group:1", docker: "agent:docked:bench:group:1" };
const exec = { tool: "exec", args: { command: "true" } };
const STEPS = {
  write: { tool: "write", args: { path: "bench.txt", content: "first\n" } },
  edit: { tool: "edit", args: { path: "bench.txt", edits: [{ oldText: "first", newText: "second" }] } },
  read: { tool: "read", args: { path: "bench.txt" } },
  ls: { tool: "ls", args: {} },
  exec,
};

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

// A command that notes each start and becomes the real one.
function counting(dir, name, real, log) {
  fs.writeFileSync(path.join(dir, name), `#!/bin/sh\necho ${name} >>'${log}'\nexec '${real}' "$@"\n`, { mode: 0o755 });
  return path.join(dir, name);
}

function real(name) {
  const dir = process.env.PATH.split(":").find((each) => fs.existsSync(path.join(each, name)));
  assert.ok(dir, `there is no ${name}`);
  return path.join(dir, name);
}

describe("Creel against the gateway's own Docker sandbox", () => {
  test("file tools at least 50 times, a warm command at least 10 times as fast", async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-e2e-bench-"));
    const starts = path.join(dir, "starts");
    const times = path.join(dir, "times");
    fs.writeFileSync(starts, "");
    fs.writeFileSync(times, "");
    fs.copyFileSync(real("docker"), path.join(dir, "docker-itself"));
    const docker = counting(dir, "docker", path.join(dir, "docker-itself"), starts);
    const creel = counting(dir, "creel", CREEL, starts);
    const world = await World.start({
      gateway: {
        binds: [[docker, fs.realpathSync(real("docker"))]],
        plugin: { creel },
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
    const table = { creel: {}, docker: {} };
    // One call; what it cost.
    const measure = async (session, step) => {
      const startsBefore = fs.readFileSync(starts, "utf8").split("\n").length;
      const timesBefore = fs.readFileSync(times, "utf8").length;
      const [answer] = await world.turn(session, step);
      const lines = fs.readFileSync(times, "utf8").slice(timesBefore).trim().split("\n").map((line) => JSON.parse(line));
      const line = lines.find((each) => each.tool === step.tool);
      assert.ok(line && !line.error, `${session} ${step.tool}: ${answer}`);
      return { ms: line.ms, processes: fs.readFileSync(starts, "utf8").split("\n").length - startsBefore, answer };
    };
    try {
      const host = [];
      for (let round = 0; round < ROUNDS + 1; ++round) {
        const { ms } = await measure("agent:main:main", exec);
        if (round > 0) host.push(ms);
      }
      const own = median(host);
      for (const [name, session] of Object.entries(sessionOf)) {
        // The whole turn: the sandbox is made before the tool runs.
        const begun = performance.now();
        const cold = await measure(session, exec);
        table[name]["exec cold"] = { ms: Math.round(performance.now() - begun), processes: cold.processes };
        for (const [tool, step] of Object.entries(STEPS)) {
          const rounds = [];
          for (let round = 0; round < ROUNDS; ++round) {
            if (tool === "edit") await world.turn(session, STEPS.write);
            rounds.push(await measure(session, step));
          }
          const ms = median(rounds.map((each) => each.ms));
          table[name][tool] = {
            // What the gateway needs by itself is taken off; what is left is never nothing.
            ms: Math.max(ms - own, 1),
            whole_ms: ms,
            processes: median(rounds.map((each) => each.processes)),
          };
        }
      }
      const rows = [`a command on the host, taken off all but exec cold: ${own} ms`, "tool        Creel ms  processes   Docker ms  processes   times"];
      for (const tool of [...Object.keys(STEPS), "exec cold"]) {
        const creel = table.creel[tool];
        const docker = table.docker[tool];
        const factor = docker.ms / creel.ms;
        rows.push(
          [tool.padEnd(10), creel.ms.toFixed(1).padStart(9), String(creel.processes).padStart(10),
            docker.ms.toFixed(1).padStart(11), String(docker.processes).padStart(10), factor.toFixed(0).padStart(7)].join(" "),
        );
      }
      console.log(rows.join("\n"));
      fs.mkdirSync(path.join(SOURCE, "build"), { recursive: true });
      fs.writeFileSync(path.join(SOURCE, "build/gateway-bench.json"), `${JSON.stringify({ ...table, host_exec_ms: own }, null, 2)}\n`);
      for (const tool of ["write", "edit", "read", "ls"]) {
        assert.equal(table.creel[tool].processes, 0, tool);
        assert.ok(table.docker[tool].ms >= 50 * table.creel[tool].ms, `${tool}: ${JSON.stringify([table.creel[tool], table.docker[tool]])}`);
      }
      assert.ok(table.docker.exec.ms >= 10 * table.creel.exec.ms, JSON.stringify([table.creel.exec, table.docker.exec]));
    } finally {
      await world.gateway.openclaw("sandbox", "recreate", "--all", "--force").catch(() => {});
      await world.stop();
      fs.rmSync(dir, { recursive: true, force: true });
    }
  });
});
