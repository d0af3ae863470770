// OpenClaw in a container beside the supervisor's, with gateway.sock as all that they share.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { directive } from "../e2e/support/model.mjs";
import { eventually, run } from "../e2e/support/process.mjs";
import { docker, SOURCE, sharedFolder, Topology } from "./support/compose.mjs";

const CACHE = process.env.CREEL_E2E_CACHE;
const GROUP = "agent:main:telegram:group:-100120363";
const MAIN = "agent:main:main";
const AUTH = "compose-token";
const NODE = "$(ls -d /opt/gateway/node/node_modules/node-linux-*/bin)/node";

// What npm has is mounted, as it is 0.8 GB; and a model on the same network.
function extras() {
  const mount = (from, to) => `      - "${path.join(CACHE, from)}/node_modules:/opt/gateway/${to}/node_modules:ro"`;
  const mounts = [mount("node", "node"), mount("openclaw", "openclaw"), mount("adapter", "plugin")].join("\n");
  return `
services:
  gateway:
    volumes:
${mounts}
  model:
    build: {context: "\${CREEL_CONTEXT}", dockerfile: docker/Dockerfile, target: gateway, network: none}
    image: "creel-gateway:\${CREEL_VERSION}"
    entrypoint: ["/bin/sh", "-c", "exec ${NODE.replaceAll("$", "$$$$")} /tests/packaging/support/model_server.mjs"]
    networks: [inside]
    read_only: true
    cap_drop: [ALL]
    healthcheck: {disable: true}
    volumes:
${mounts}
      - "${SOURCE}/tests:/tests:ro"
`;
}

function openclaw() {
  const config = JSON.parse(fs.readFileSync(path.join(SOURCE, "compose/gateway/openclaw.json"), "utf8"));
  config.gateway.auth.token = AUTH;
  config.gateway.http = { endpoints: { chatCompletions: { enabled: true } } };
  const cost = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 };
  const scripted = { id: "scripted", name: "scripted", reasoning: false, input: ["text"], cost, contextWindow: 128000, maxTokens: 4096 };
  config.models = {
    mode: "replace",
    catalogRefresh: { enabled: false },
    providers: { fake: { baseUrl: "http://model:8080/v1", apiKey: "none", api: "openai-completions", models: [scripted] } },
  };
  config.agents.defaults.model = { primary: "fake/scripted" };
  config.agents.defaults.skipBootstrap = true;
  return config;
}

describe("compose.gateway.yaml", () => {
  let topology, gateway, model;

  before(async () => {
    topology = await Topology.prepare({
      files: ["compose.yaml", "compose.gateway.yaml"],
      npmMounted: true,
      config: ({ runDir, stateDir }) => `
paths: {run_dir: ${runDir}, state_dir: ${stateDir}}
gateway: {socket: ${runDir}/gateway/gateway.sock, group: creel-gateway}
sandbox: {limits: {workspace: 64MiB}}
`,
    });
    const extra = path.join(topology.dir, "extras.yaml");
    fs.writeFileSync(extra, extras());
    topology.files.push(extra);
    const etc = path.join(topology.dir, "gateway");
    fs.mkdirSync(etc);
    fs.writeFileSync(path.join(etc, "openclaw.json"), JSON.stringify(openclaw()));
    topology.env.CREEL_GATEWAY_CONFIG_DIR = etc;
    await sharedFolder(topology.runDir);
    await topology.compose("up", "-d");
    gateway = await topology.healthy("gateway", 480_000);
    model = await topology.container("model");
  });
  after(async () => topology?.stop());

  const inGateway = (script) => run(["docker", "exec", gateway, "sh", "-c", script]);
  // JavaScript in a container, its input on stdin.
  const node = async (container, code, input) => {
    const { code: status, out, err } = await run(["docker", "exec", "-i", container, "sh", "-c", `exec ${NODE} --input-type=module -e "$0"`, code], { input, timeoutMs: 240_000 });
    if (status !== 0) {
      const logs = [await topology.log("gateway"), await topology.log("creeld")];
      throw new Error(`${out}${err}\nthe gateway's log:\n${logs[0]}\ncreeld's log:\n${logs[1]}`);
    }
    return out;
  };

  // Has the model take these steps; what the tools answered.
  async function turn(session, ...steps) {
    const text = directive(...steps);
    const body = JSON.stringify({ model: "openclaw/main", messages: [{ role: "user", content: text }] });
    await node(
      gateway,
      `const answer = await fetch("http://127.0.0.1:18789/v1/chat/completions", {
         method: "POST", body: (await import("node:fs")).readFileSync(0, "utf8"),
         headers: { authorization: "Bearer ${AUTH}", "content-type": "application/json",
                    "x-openclaw-session-key": "${session}" } });
       if (!answer.ok) throw new Error(answer.status + await answer.text());`,
      body,
    );
    return JSON.parse(
      await node(
        model,
        `const body = (await import("node:fs")).readFileSync(0, "utf8");
         console.log(await (await fetch("http://127.0.0.1:8081/", { method: "POST", body })).text());`,
        text,
      ),
    );
  }

  test("a scripted turn runs its tools in a sandbox", async () => {
    const [ran, , read] = await turn(
      GROUP,
      { tool: "exec", args: { command: "cat /proc/1/comm; pwd; id -u" } },
      { tool: "write", args: { path: "note.txt", content: "from the gateway\n" } },
      { tool: "read", args: { path: "note.txt" } },
    );
    assert.match(ran, /^creel-shim\n\/workspace\n2\d{6}/);
    assert.match(read, /from the gateway/);
    const [container] = await topology.sessionSandboxes();
    assert.ok(container);
    const [about] = JSON.parse(await docker("inspect", container));
    assert.equal(about.HostConfig.NetworkMode, "none");
    const listed = await topology.creel("ps");
    assert.ok(listed.out.includes(GROUP), listed.out);
  });

  test("gateway.sock is all that is shared", async () => {
    const { out } = await inGateway("find / -type s -not -path '/proc/*' 2>/dev/null; ls -A /run/creel");
    assert.deepEqual(out.split("\n").filter(Boolean), ["/run/creel/gateway.sock", "gateway.sock"]);
    const [about] = JSON.parse(await docker("inspect", gateway));
    assert.ok(!JSON.stringify(about.Mounts).includes("docker.sock"));
    assert.deepEqual(about.HostConfig.CapDrop, ["ALL"]);
    assert.equal(about.HostConfig.CapAdd, null);
    assert.equal(about.HostConfig.ReadonlyRootfs, true);
  });

  test("the owner's session, which runs as the gateway, reaches neither the engine nor a network", async () => {
    const attempt = `for (const to of ["/var/run/docker.sock", "/run/docker.sock", "/run/creel/operator.sock", "/run/creel/../operator.sock",
        { host: "172.17.0.1", port: 2375 }, { host: "192.0.2.1", port: 80 }, { host: "169.254.169.254", port: 80 }])
      await new Promise((next) => {
        const socket = require("node:net").connect(typeof to === "string" ? { path: to } : { ...to, timeout: 3000 });
        const end = (what) => { console.log(what, JSON.stringify(to)); socket.destroy(); next(); };
        socket.on("connect", () => end("DONE")); socket.on("error", (e) => end(e.code)); socket.on("timeout", () => end("TIMEOUT"));
      })`;
    const [answer] = await turn(MAIN, { tool: "exec", args: { command: `node -e '(async () => { ${attempt} })()'; echo '#end'` } });
    assert.match(answer, /#end/);
    assert.match(answer, /ENOENT "\/var\/run\/docker.sock"/);
    assert.ok(!answer.includes("DONE"), answer);
  });

  test("the gateway's door does not do what only the operator's does", async () => {
    for (const words of ["ps", "panic", "policy reload", "audit show", "incident list"]) {
      const { code, out, err } = await inGateway(`creel --operator-socket /run/creel/gateway.sock ${words}`);
      assert.notEqual(code, 0, words);
      assert.match(out + err, /refused|unknown service|unimplemented/i);
    }
    assert.ok((await topology.creel("ps")).out.includes(GROUP), "a sandbox is gone");
  });

  test("the supervisor is made anew, and the next turn finds it", async () => {
    await topology.compose("up", "-d", "--no-deps", "--force-recreate", "creeld");
    await topology.healthy("creeld");
    await eventually("a turn goes through", async () => {
      const [read] = await turn(GROUP, { tool: "read", args: { path: "note.txt" } });
      return read?.includes("from the gateway");
    }, 120_000);
  });
});
