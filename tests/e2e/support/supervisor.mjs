// A real creeld of its own, in folders of its own, on the machine's engine.

import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Background, eventually, run } from "./process.mjs";

const BUILD = process.env.CREEL_BUILD_DIR;
export const CREEL = path.join(BUILD, "supervisor/cli/creel");

async function listens(socket) {
  return new Promise((resolve) => {
    const probe = net.connect(socket);
    probe.once("connect", () => resolve(true));
    probe.once("error", () => resolve(false));
    probe.once("close", () => {});
    setTimeout(() => resolve(false), 1000).unref();
  }).finally(() => {});
}

export class Supervisor {
  // `config`: YAML at top level, besides the folders; `sandbox`: lines of the section of that name.
  // `wrap`: the words of a program that starts it.
  static async start({ config = "", sandbox = "", wrap = [] } = {}) {
    const supervisor = new Supervisor();
    supervisor.wrap = wrap;
    supervisor.dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-e2e-"));
    fs.chmodSync(supervisor.dir, 0o755);
    supervisor.configFile = path.join(supervisor.dir, "creel.yaml");
    fs.writeFileSync(
      supervisor.configFile,
      `paths:
  run_dir: ${supervisor.dir}/run
  state_dir: ${supervisor.dir}/state
  shim: ${BUILD}/creel-shim
sandbox:
${sandbox}  limits:
    workspace: 256MiB
${config}`,
    );
    try {
      await supervisor.begin();
    } catch (error) {
      await supervisor.process.stop();
      throw error;
    }
    return supervisor;
  }

  get socket() {
    return `${this.dir}/run/gateway.sock`;
  }

  async begin() {
    this.process = new Background(
      [...this.wrap, path.join(BUILD, "supervisor/daemon/creeld"), "--config", this.configFile],
      { env: { PATH: process.env.PATH, HOME: "/nonexistent" }, logFile: `${this.dir}/creeld.log` },
    );
    await eventually("creeld listens", async () => {
      if (!this.process.running) throw new Error(`creeld ended:\n${this.process.log()}`);
      return (await listens(`${this.dir}/run/operator.sock`)) && (await listens(this.socket));
    }, 300_000);
  }

  // The command line against this supervisor.
  async creel(...words) {
    return run([CREEL, ...words], { env: { PATH: process.env.PATH, CREEL_RUN_DIR: `${this.dir}/run` } });
  }

  async sessions() {
    const { out } = await this.creel("ps", "--json");
    return JSON.parse(out).sessions.map((each) => each.session ?? each);
  }

  // Everything it made goes; the folders stay if something is still mounted there.
  async stop() {
    if (this.process.running) {
      for (const session of await this.sessions()) {
        await this.creel("close", session.session ?? session, "--force");
      }
    }
    const wasRunning = this.process.running;
    const { code, signal } = await this.process.stop();
    if (wasRunning && code !== 0) throw new Error(`creeld did not end in order (${code ?? signal}):\n${this.process.log()}`);
    if (!fs.readFileSync("/proc/self/mounts", "utf8").includes(`${this.dir}/`)) {
      fs.rmSync(this.dir, { recursive: true, force: true });
    }
  }
}
