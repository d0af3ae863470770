// A real creeld with its page, and what speaks to it.

import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { Supervisor, CREEL } from "../../e2e/support/supervisor.mjs";
import { eventually } from "../../e2e/support/process.mjs";

export { eventually, CREEL };

const BUILD = process.env.CREEL_BUILD_DIR;
export const SETUP = path.resolve(import.meta.dirname, "../../../docker/setup");
export const VERIFY = path.join(BUILD, "supervisor/evidence/creel-verify");
export const SCREENSHOTS = path.join(BUILD, "screenshots");

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class World {
  // `config`: YAML at top level; `friends`: senders whose sandboxes may be given work.
  static async start({ config = "", sandbox = "", hosts = [], friends = [] } = {}) {
    const world = new World();
    world.port = await freePort();
    world.base = `http://127.0.0.1:${world.port}`;
    world.supervisor = await Supervisor.start({
      sandbox,
      config: `web:\n  listen: 127.0.0.1:${world.port}\n  hosts: [${hosts.join(", ")}]\nsessions:\n  max: 400\n  opens_per_minute: 6000\n  max_per_sender: 1000\nlevels: {friend: {members: ${JSON.stringify(friends)}}}\n${config}`,
    });
    world.running = new Set();
    return world;
  }
  get dir() {
    return this.supervisor.dir;
  }
  get pid() {
    return this.supervisor.process.child.pid;
  }
  // The command line; fails unless it went well.
  async creel(...words) {
    const { code, out, err } = await this.supervisor.creel(...words);
    if (code !== 0) throw new Error(`creel ${words.join(" ")}: ${code}\n${out}\n${err}`);
    return out;
  }
  // A command in a sandbox that goes on beside the test.
  // `quiet`: nobody reads its output here.
  start(session, line, more = [], { quiet = false } = {}) {
    const child = spawn(CREEL, ["exec", ...more, session, "--", "sh", "-c", line], {
      env: { PATH: process.env.PATH, CREEL_RUN_DIR: `${this.dir}/run` },
      stdio: quiet ? "ignore" : ["ignore", "pipe", "pipe"],
    });
    const ended = new Promise((resolve) => child.once("exit", (code) => resolve(code)));
    let out = "";
    let err = "";
    child.stdout?.on("data", (piece) => (out += piece.length > 4096 ? "" : piece));
    child.stderr?.on("data", (piece) => (err += piece));
    this.running.add(child);
    child.once("exit", () => this.running.delete(child));
    return { child, ended, out: () => out, err: () => err };
  }
  async address() {
    return (await this.creel("page", "--no-open")).trim();
  }
  async stop() {
    for (const child of this.running) child.kill("SIGKILL");
    await this.supervisor.stop();
  }
}

// One request as it is written, without a browser's manners. `headers` replace the usual ones; null
// leaves one out.
export function request(port, { method = "GET", path: target = "/", headers = {}, body = "" } = {}) {
  const all = { Host: `127.0.0.1:${port}`, ...headers };
  for (const key of Object.keys(all)) if (all[key] === null) delete all[key];
  return new Promise((resolve, reject) => {
    const call = http.request({ host: "127.0.0.1", port, method, path: target, setHost: false, headers: body ? { ...all, "Content-Length": Buffer.byteLength(body) } : all }, (response) => {
      const pieces = [];
      response.on("data", (piece) => {
        pieces.push(piece);
        if ((response.headers["content-type"] ?? "").startsWith("text/event-stream")) response.destroy();
      });
      response.on("close", () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(pieces).toString() }));
    });
    call.on("error", reject);
    call.end(body);
  });
}

// A login by hand: the headers that go with every request of it.
export async function logIn(world) {
  const token = new URL(await world.address()).hash.slice("#login=".length);
  const answer = await request(world.port, {
    method: "POST", path: "/login", headers: { "Content-Type": "application/json", Origin: world.base }, body: JSON.stringify({ token }),
  });
  if (answer.status !== 200) throw new Error(`login: ${answer.status} ${answer.text}`);
  const cookie = answer.headers["set-cookie"][0].split(";")[0];
  return { token, setCookie: answer.headers["set-cookie"][0], headers: { Cookie: cookie, "X-Creel-Key": JSON.parse(answer.text).key, Origin: world.base, "Content-Type": "application/json" } };
}

export async function api(world, login, method, body = {}) {
  const answer = await request(world.port, { method: "POST", path: `/api/creel.operator.v1.${method}`, headers: login.headers, body: JSON.stringify(body) });
  return { status: answer.status, body: JSON.parse(answer.text) };
}

// Seconds of processor that a process has used.
export function cpuSeconds(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

// The same of its threads whose name begins so.
export function cpuSecondsOf(pid, prefix) {
  let sum = 0;
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/task/${task}/stat`, "utf8");
      if (!stat.slice(stat.indexOf("(") + 1).startsWith(prefix)) continue;
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      sum += (Number(fields[11]) + Number(fields[12])) / 100;
    } catch {
      // It ended meanwhile.
    }
  }
  return sum;
}

export function memoryOf(pid) {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)[1]) * 1024;
}

// Memory that nobody else shares, of a process and all it started.
export function treeMemory(pid) {
  let sum = 0;
  const all = fs.readdirSync("/proc").filter((each) => /^\d+$/.test(each));
  const parents = new Map();
  for (const each of all) {
    try {
      const stat = fs.readFileSync(`/proc/${each}/stat`, "utf8");
      parents.set(Number(each), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It ended meanwhile.
    }
  }
  const isBelow = (each) => {
    for (let at = each; at > 1; at = parents.get(at) ?? 0) if (at === pid) return true;
    return false;
  };
  for (const each of parents.keys()) {
    if (!isBelow(each)) continue;
    try {
      const rollup = fs.readFileSync(`/proc/${each}/smaps_rollup`, "utf8");
      sum += Number(/Pss:\s+(\d+)/.exec(rollup)[1]) * 1024;
    } catch {
      // It ended meanwhile.
    }
  }
  return sum;
}
