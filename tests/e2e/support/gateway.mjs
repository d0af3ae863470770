// The unmodified gateway from npm, with a HOME of its own, the plugin, and a scripted model.

import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Background, eventually, run } from "./process.mjs";
import { TOKEN } from "./telegram.mjs";
import { CREEL } from "./supervisor.mjs";

const CACHE = process.env.CREEL_E2E_CACHE;
const SOURCE = path.resolve(import.meta.dirname, "../../..");
const AUTH = "e2e-token";

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// As an operator would install it: the plugin's files, with its dependencies beside them.
export function installPlugin(to) {
  fs.cpSync(path.join(SOURCE, "supervisor/adapters/openclaw"), to, {
    recursive: true,
    filter: (file) => !file.includes("node_modules"),
  });
  fs.cpSync(path.join(CACHE, "adapter/node_modules"), path.join(to, "node_modules"), { recursive: true });
  fs.cpSync(path.join(SOURCE, "proto"), path.join(to, "proto"), { recursive: true });
}

// The gateway refuses its own Docker sandbox where /.dockerenv lies, as it does on some machines that
// are no container. It gets a view of the file system without that file.
function withoutDockerenv(argv) {
  if (!fs.existsSync("/.dockerenv")) return argv;
  const script = `set -e
root=$ROOT
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$root"
for each in /*; do
  case "$each" in /.dockerenv) continue ;; esac
  if [ -L "$each" ]; then cp -a "$each" "$root$each"
  elif [ -d "$each" ]; then mkdir -p "$root$each"; mount --rbind "$each" "$root$each"
  fi
done
exec chroot "$root" "$@"`;
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "creel-e2e-root-"));
  process.once("exit", () => fs.rmSync(root, { recursive: true, force: true }));
  return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", script.replace("$ROOT", root), "sh", ...argv];
}

export class Gateway {
  // `change(config)` may change the configuration before the start.
  static async start({ model, supervisor, telegram, change = () => {}, plugin = {} }) {
    const gateway = new Gateway();
    // It syncs its databases often; memory does not mind.
    const base = fs.existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
    gateway.dir = fs.mkdtempSync(path.join(base, "creel-e2e-gw-"));
    gateway.home = path.join(gateway.dir, "home");
    fs.mkdirSync(path.join(gateway.home, ".openclaw"), { recursive: true });
    installPlugin(path.join(gateway.dir, "plugin"));
    gateway.port = await freePort();
    const config = {
      gateway: {
        mode: "local",
        bind: "loopback",
        port: gateway.port,
        auth: { mode: "token", token: AUTH },
        http: { endpoints: { chatCompletions: { enabled: true } } },
      },
      update: { checkOnStart: false },
      logging: { file: path.join(gateway.dir, "gateway-debug.log") },
      session: { dmScope: "per-channel-peer" },
      models: {
        mode: "replace",
        catalogRefresh: { enabled: false },
        providers: {
          fake: {
            baseUrl: model.url,
            apiKey: "none",
            api: "openai-completions",
            models: [
              {
                id: "scripted",
                name: "scripted",
                reasoning: false,
                input: ["text", "image"],
                cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },
                contextWindow: 128000,
                maxTokens: 4096,
              },
            ],
          },
        },
      },
      agents: {
        defaults: {
          model: { primary: "fake/scripted" },
          workspace: path.join(gateway.home, "workspace"),
          skipBootstrap: true,
          sandbox: { mode: "non-main", backend: "creel", scope: "session", workspaceAccess: "none" },
        },
      },
      tools: { elevated: { enabled: false } },
      plugins: {
        allow: ["creel", ...(telegram ? ["telegram"] : [])],
        load: { paths: [path.join(gateway.dir, "plugin")] },
        entries: {
          creel: {
            enabled: true,
            config: { socket: supervisor?.socket ?? "/nowhere/gateway.sock", creel: CREEL, ...plugin },
          },
        },
      },
    };
    if (telegram) {
      config.channels = {
        telegram: {
          enabled: true,
          botToken: TOKEN,
          apiRoot: telegram.url,
          dmPolicy: "open",
          allowFrom: ["*"],
          groupPolicy: "open",
          groups: { "*": { requireMention: false } },
        },
      };
    }
    change(config);
    gateway.configFile = path.join(gateway.home, ".openclaw/openclaw.json");
    fs.writeFileSync(gateway.configFile, JSON.stringify(config, null, 2), { mode: 0o600 });
    try {
      await gateway.begin();
    } catch (error) {
      await gateway.stop();
      throw error;
    }
    return gateway;
  }

  get env() {
    return {
      HOME: this.home,
      PATH: `${path.join(CACHE, "node")}:${process.env.PATH}`,
      LANG: "C.UTF-8",
      TMPDIR: this.dir,
      OPENCLAW_SKIP_CANVAS_HOST: "1",
      OPENCLAW_NO_RESPAWN: "1",
      NODE_COMPILE_CACHE: path.join(CACHE, "compile-cache"),
    };
  }

  get #program() {
    return [path.join(CACHE, "node/node"), path.join(CACHE, "openclaw/node_modules/openclaw/openclaw.mjs")];
  }

  // It gives itself five seconds for a part of its start, which a busy machine does not always have.
  async begin(attempts = 4) {
    try {
      await this.#beginOnce();
    } catch (error) {
      if (attempts <= 1 || !/failed to start: state lease heartbeat/.test(this.process.log())) throw error;
      fs.rmSync(this.process.logFile);
      await this.begin(attempts - 1);
    }
  }

  async #beginOnce() {
    this.process = new Background(withoutDockerenv([...this.#program, "gateway", "run"]), {
      env: this.env,
      cwd: this.dir,
      logFile: path.join(this.dir, "gateway.log"),
    });
    await eventually(
      "the gateway answers",
      async () => {
        if (!this.process.running) throw new Error(`the gateway ended:\n${this.process.log().slice(-4000)}`);
        try {
          const answer = await fetch(`http://127.0.0.1:${this.port}/v1/models`, {
            headers: { authorization: `Bearer ${AUTH}` },
            signal: AbortSignal.timeout(2000),
          });
          return answer.ok;
        } catch {
          return false;
        }
      },
      480_000,
    );
  }

  // One turn in a session; what the model said last.
  async say(session, text, { timeoutMs = 180_000 } = {}) {
    const answer = await fetch(`http://127.0.0.1:${this.port}/v1/chat/completions`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${AUTH}`,
        "content-type": "application/json",
        "x-openclaw-session-key": session,
      },
      body: JSON.stringify({ model: `openclaw/${session.split(":")[1]}`, messages: [{ role: "user", content: text }] }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    const body = await answer.text();
    if (!answer.ok) throw new Error(`the gateway refused the turn: ${answer.status} ${body.slice(0, 500)}`);
    return JSON.parse(body).choices[0].message.content;
  }

  // `openclaw …` as the operator types it.
  async openclaw(...words) {
    return run(withoutDockerenv([...this.#program, ...words]), { env: this.env, cwd: this.dir, timeoutMs: 300_000 });
  }

  log() {
    return this.process.log();
  }

  async stop() {
    await this.process?.stop();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}
