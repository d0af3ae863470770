// Programs that a test starts, and their end.

import { spawn } from "node:child_process";
import fs from "node:fs";

export async function eventually(what, condition, patienceMs = 60_000) {
  const until = Date.now() + patienceMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > until) throw new Error(`this did not come: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// In the background, its output in a file.
export class Background {
  constructor(argv, { env, logFile, cwd }) {
    const log = fs.openSync(logFile, "a");
    this.logFile = logFile;
    this.child = spawn(argv[0], argv.slice(1), { env, cwd, stdio: ["ignore", log, log] });
    fs.closeSync(log);
    this.ended = new Promise((resolve) => this.child.once("exit", (code, signal) => resolve({ code, signal })));
    this.child.once("error", () => {});
  }
  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }
  log() {
    return fs.readFileSync(this.logFile, "utf8");
  }
  async stop(signal = "SIGTERM", patienceMs = 30_000) {
    if (this.running) {
      this.child.kill(signal);
      const timer = setTimeout(() => this.child.kill("SIGKILL"), patienceMs);
      await this.ended;
      clearTimeout(timer);
    }
    return this.ended;
  }
}

// To its end; `input` is its stdin.
export async function run(argv, { env, input, cwd, timeoutMs = 120_000 } = {}) {
  const child = spawn(argv[0], argv.slice(1), { env, cwd, stdio: ["pipe", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.on("data", (piece) => (out += piece));
  child.stderr.on("data", (piece) => (err += piece));
  child.stdin.on("error", () => {});
  child.stdin.end(input ?? "");
  const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const code = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exitCode, signal) => resolve(exitCode ?? signal));
  });
  clearTimeout(timer);
  return { code, out, err };
}
