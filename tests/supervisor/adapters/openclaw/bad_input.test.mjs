// What is wrong at the start, or on the way to the supervisor, is one line that says what and what to do.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { load, PLUGIN_DIR, quiet } from "./support.mjs";

const { readSettings } = await load("settings.js");
const dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-bad-"));
fs.chmodSync(dir, 0o755);
after(() => fs.rmSync(dir, { recursive: true, force: true }));

const oneLine = (text) => {
  assert.doesNotMatch(text.trim(), /\n/);
  return text;
};

// Asks for the sessions at `socket` as user `uid`, in a process of its own; the error's words. That user
// need not be able to start Node.
async function askAs(uid, socket) {
  fs.chmodSync(PLUGIN_DIR, 0o755);
  const program = `
    const { Client } = await import(${JSON.stringify(pathToFileURL(path.join(PLUGIN_DIR, "lib/client.js")).href)});
    const client = new Client({ socket: ${JSON.stringify(socket)}, protos: ${JSON.stringify(path.join(PLUGIN_DIR, "proto"))}, callTimeoutMs: 5000 });
    if (process.getuid() !== ${uid}) { process.setgroups([]); process.setgid(${uid}); process.setuid(${uid}); }
    try { await client.unary("ListSessions", {}); console.log("answered"); } catch (error) { console.log(error.message); }
    client.close();`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    cwd: "/", env: { PATH: process.env.PATH }, stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (piece) => (out += piece));
  child.stderr.on("data", (piece) => (err += piece));
  await new Promise((resolve) => child.once("close", resolve));
  return out || err;
}

async function listen(socket, onConnect = () => {}) {
  const server = net.createServer(onConnect);
  server.unref();
  await new Promise((resolve) => server.listen(socket, resolve));
  return server;
}

// The plugin as a gateway would load it whose `openclaw/plugin-sdk/sandbox` is this text; undefined:
// there is no such module.
let gateways = 0;
async function loadUnder(module) {
  const home = path.join(dir, `gateway-${++gateways}`);
  fs.cpSync(PLUGIN_DIR, home, { recursive: true });
  const openclaw = path.join(home, "node_modules/openclaw");
  fs.mkdirSync(openclaw, { recursive: true });
  const exports = module === undefined ? {} : { "./plugin-sdk/sandbox": "./sandbox.js" };
  fs.writeFileSync(path.join(openclaw, "package.json"), JSON.stringify({ name: "openclaw", type: "module", exports: { ".": "./sandbox.js", ...exports } }));
  fs.writeFileSync(path.join(openclaw, "sandbox.js"), module ?? "");
  return (await import(pathToFileURL(path.join(home, "index.js")))).default;
}
const api = (pluginConfig) => ({ pluginConfig, logger: quiet, on() {}, registrationMode: "full" });

describe("a wrong socket", () => {
  const root = process.getuid() === 0;

  test("there is none, nobody listens, or it is something else", async () => {
    assert.match(oneLine(await askAs(process.getuid(), path.join(dir, "none.sock"))), /^creel: there is no supervisor at '.*none\.sock'; start creeld/);
    fs.writeFileSync(path.join(dir, "file.sock"), "");
    assert.match(oneLine(await askAs(process.getuid(), path.join(dir, "file.sock"))), /^creel: '.*' is not a socket; set plugins\.entries\.creel\.config\.socket/);
    const dead = path.join(dir, "dead.sock");
    const program = `require("net").createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, "SIGKILL"))`;
    const child = spawn(process.execPath, ["-e", program]);
    await new Promise((resolve) => child.once("exit", resolve));
    assert.match(oneLine(await askAs(process.getuid(), dead)), /^creel: nobody listens at '.*dead\.sock'; start creeld/);
  });

  test("what listens speaks something else", async () => {
    const socket = path.join(dir, "other.sock");
    const server = await listen(socket, (peer) => peer.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert.match(oneLine(await askAs(process.getuid(), socket)), /^creel: what listens at '.*other\.sock' does not speak Creel's protocol/);
    server.close();
  });

  test("the gateway's user may not open it, or not enter its folder", { skip: !root && "needs root" }, async () => {
    const socket = path.join(dir, "closed.sock");
    const server = await listen(socket);
    fs.chmodSync(socket, 0o600);
    assert.match(oneLine(await askAs(65534, socket)), /^creel: the gateway's user may not open '.*closed\.sock'; add it to the group that owns it/);
    server.close();
    const folder = path.join(dir, "folder");
    fs.mkdirSync(folder, { mode: 0o700 });
    const hidden = await listen(path.join(folder, "gateway.sock"));
    assert.match(oneLine(await askAs(65534, path.join(folder, "gateway.sock"))), /^creel: '.*' cannot be looked at \(EACCES\); let the gateway's user enter its folder/);
    hidden.close();
  });
});

describe("a wrong configuration", () => {
  test("each is named with its key and what it should be", () => {
    for (const [config, words] of [
      [{ sokcet: "/run/x" }, /config\.sokcet is unknown; there are socket, /],
      [{ socket: "gateway.sock" }, /config\.socket must be an absolute path/],
      [{ socket: `/${"x".repeat(120)}` }, /config\.socket is longer than the 107 bytes/],
      [{ socket: 7 }, /config\.socket must be a non-empty text/],
      [{ admission: "maybe" }, /config\.admission must be gateway or creel/],
      [{ callTimeoutSeconds: 0 }, /config\.callTimeoutSeconds must be a whole number/],
      [{ protos: "/nowhere" }, /config\.protos must name the folder of Creel's protos/],
      [[], /config must be an object/],
    ]) {
      assert.throws(() => readSettings(config, {}), (error) => words.test(oneLine(error.message)) && error.message.startsWith("creel: "));
    }
  });
});

describe("a gateway that is too old", () => {
  test("without the extension point the plugin says which version has it", async () => {
    for (const module of [undefined, "export const somethingElse = 1;"]) {
      const plugin = await loadUnder(module);
      assert.throws(() => plugin.register(api({})), (error) => {
        assert.match(oneLine(error.message), /^creel: this gateway has no sandbox backends for plugins; update openclaw to 2026\.3\.22 or newer$/);
        return true;
      });
    }
  });

  test("with it the backend is registered, once for a start and not for an agent's run", async () => {
    const plugin = await loadUnder("export const registered = (globalThis.creelTestBackends ??= []);\nexport const registerSandboxBackend = (id) => registered.push(id);");
    plugin.register(api({}));
    plugin.register({ ...api({}), registrationMode: "discovery" });
    assert.deepEqual(globalThis.creelTestBackends, ["creel"]);
  });

  test("its manifest says so to a gateway that reads it", () => {
    const manifest = JSON.parse(fs.readFileSync(path.join(PLUGIN_DIR, "package.json"), "utf8"));
    assert.equal(manifest.openclaw.install.minHostVersion, ">=2026.3.22");
  });
});
