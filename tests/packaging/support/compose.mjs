// A topology of compose/, under a name, in folders and with images of its own.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { eventually, run } from "../../e2e/support/process.mjs";

export const BUILD = process.env.CREEL_BUILD_DIR;
export const SOURCE = path.resolve(import.meta.dirname, "../../..");
const CREEL = path.join(BUILD, "supervisor/cli/creel");

export async function good(argv, options) {
  const { code, out, err } = await run(argv, options);
  assert.equal(code, 0, `${argv.join(" ")}\n${out}\n${err}`);
  return out;
}

export const docker = (...words) => good(["docker", ...words], { timeoutMs: 300_000 });

// A folder that is a shared mount, as every folder is under systemd: the engine must see what the
// supervisor mounts there.
export async function sharedFolder(dir) {
  fs.mkdirSync(dir, { recursive: true });
  await good(["mount", "--bind", dir, dir]);
  await good(["mount", "--make-shared", dir]);
}

export function mountsBelow(dir) {
  return fs
    .readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1])
    .filter((each) => each?.startsWith(`${dir}/`));
}

// What docker/Dockerfile is given instead of sources to compile; made once for each build.
async function imageContext(npmMounted) {
  const context = path.join(BUILD, `tests/packaging/context${npmMounted ? "-npm" : ""}`);
  const made = path.join(context, "LICENSE");
  const programs = ["supervisor/daemon/creeld", "supervisor/cli/creel", "creel-shim", "supervisor/evidence/creel-verify"].map((each) => path.join(BUILD, each));
  const parts = ["docker", "supervisor/adapters/openclaw"].map((each) => path.join(SOURCE, each));
  const newest = Number(await good(["sh", "-c", 'find "$@" -printf "%T@\\n" | sort -n | tail -n 1', "sh", ...programs, ...parts]));
  if (!fs.existsSync(made) || fs.statSync(made).mtimeMs < newest * 1000) {
    fs.rmSync(context, { recursive: true, force: true });
    await good([path.join(SOURCE, "docker/setup/image-context.sh"), context, ...(npmMounted ? ["--npm-mounted"] : [])], { timeoutMs: 600_000 });
    fs.utimesSync(made, new Date(), new Date());
  }
  return context;
}

export class Topology {
  // `files`: names in compose/, or absolute paths; `config(dirs)`: the supervisor's creel.yaml.
  static async prepare({ files, config, npmMounted = false }) {
    const topology = new Topology();
    topology.dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-compose-"));
    fs.chmodSync(topology.dir, 0o755);
    topology.name = path.basename(topology.dir).toLowerCase().replaceAll("-", "");
    topology.runDir = path.join(topology.dir, "run");
    topology.stateDir = path.join(topology.dir, "state");
    topology.files = files.map((each) => (path.isAbsolute(each) ? each : path.join(SOURCE, "compose", each)));
    const etc = path.join(topology.dir, "etc");
    fs.mkdirSync(etc);
    fs.writeFileSync(path.join(etc, "creel.yaml"), config(topology));
    const context = await imageContext(npmMounted);
    topology.env = {
      PATH: process.env.PATH,
      HOME: topology.dir,
      CREEL_CONTEXT: context,
      // Nothing is fetched: what it takes is in the context.
      CREEL_BUILD_NETWORK: "none",
      CREEL_VERSION: topology.name,
      CREEL_RUN_DIR: topology.runDir,
      CREEL_STATE_DIR: topology.stateDir,
      CREEL_CONFIG_DIR: etc,
      CREEL_ENGINE_DIR: (await docker("info", "--format", "{{.DockerRootDir}}")).trim(),
    };
    return topology;
  }

  async compose(...words) {
    const files = this.files.flatMap((file) => ["-f", file]);
    return good(["docker-compose", "-p", this.name, ...files, ...words], { env: this.env, timeoutMs: 600_000 });
  }

  async container(service) {
    return (await this.compose("ps", "-q", service)).trim();
  }

  async healthy(service, patienceMs = 180_000) {
    const id = await this.container(service);
    try {
      await eventually(
        `${service} is healthy`,
        async () => {
          const [health, restarts] = (await docker("inspect", "--format", "{{.State.Health.Status}} {{.RestartCount}}", id)).trim().split(" ");
          if (Number(restarts) > 1) throw new Error(`${service} ends again and again`);
          return health === "healthy";
        },
        patienceMs,
      );
    } catch (error) {
      throw new Error(`${error.message}\n${await this.log(service)}`);
    }
    return id;
  }

  // The command line of the host.
  async creel(...words) {
    return run([CREEL, ...words], { env: { PATH: process.env.PATH, CREEL_RUN_DIR: this.hostRunDir ?? this.runDir } });
  }

  // The containers of this supervisor's sandboxes, running or not, those that wait for sessions too.
  async sandboxes() {
    const all = (await docker("ps", "-a", "--no-trunc", "--filter", "label=creel.sandbox", "--format", "{{.ID}}")).split("\n").filter(Boolean);
    const ours = [];
    for (const id of all) {
      const { out } = await run(["docker", "inspect", "--format", "{{json .HostConfig.Binds}}{{json .Mounts}}", id]);
      if (out.includes(`${this.dir}/`)) ours.push(id);
    }
    return ours;
  }

  // Those of them that serve a session, by the supervisor's own list.
  async sessionSandboxes() {
    const { code, out, err } = await this.creel("ps", "--json");
    assert.equal(code, 0, err);
    const served = new Set(JSON.parse(out).sessions.map((each) => each.session.container_id));
    return (await this.sandboxes()).filter((id) => served.has(id));
  }

  // Those that wait for sessions, once there are as many as there should be.
  async waiting() {
    await eventually("a sandbox is ready for sessions to come", async () => {
      const [, ready, wanted] = /(\d+) of (\d+) sandboxes are ready/.exec((await this.creel("doctor")).out) ?? [];
      return Number(ready) > 0 && ready === wanted;
    });
    const served = await this.sessionSandboxes();
    return (await this.sandboxes()).filter((id) => !served.includes(id));
  }

  async log(service) {
    const { out, err } = await run(["docker", "logs", "--tail", "60", await this.container(service)]);
    return out + err;
  }

  async stop() {
    await this.compose("down", "--volumes", "--timeout", "30").catch((error) => console.error(error.message));
    for (const id of await this.sandboxes()) await run(["docker", "rm", "-f", id]);
    for (const image of ["creel", "creel-gateway"]) await run(["docker", "rmi", "-f", `${image}:${this.name}`]);
    for (const each of mountsBelow(this.dir).reverse()) await run(["umount", "-l", each]);
    if (mountsBelow(this.dir).length === 0) fs.rmSync(this.dir, { recursive: true, force: true });
  }
}
