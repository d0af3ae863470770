// The connection, the file bridge and the commands against a server that speaks the protos.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { load, PLUGIN_DIR } from "./support.mjs";

const require = createRequire(path.join(PLUGIN_DIR, "package.json"));
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const { Client } = await load("client.js");
const { FsBridge } = await load("fs_bridge.js");
const { PathMap } = await load("paths.js");
const { buildExecSpec, finalizeExec, prepareProcessCleanup, runShellCommand } = await load("command.js");
const { mirror } = await load("mirror.js");

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-client-"));
after(() => fs.rmSync(dir, { recursive: true, force: true }));
const socket = path.join(dir, "gateway.sock");
const settings = { socket, protos: path.join(PLUGIN_DIR, "proto"), callTimeoutMs: 5000, creel: "/usr/bin/creel" };

async function serve(handlers) {
  const definition = protoLoader.loadSync("creel/gateway/v1/gateway.proto", {
    includeDirs: [settings.protos], keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true,
  });
  const service = grpc.loadPackageDefinition(definition).creel.gateway.v1.Gateway.service;
  const server = new grpc.Server();
  server.addService(service, handlers);
  fs.rmSync(socket, { force: true });
  await new Promise((resolve, reject) =>
    server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve())),
  );
  return server;
}
const error = (code, details) => Object.assign(new Error(details), { code, details });

describe("client", () => {
  test("who is not there, and what to do, is one line", async () => {
    const client = new Client({ ...settings, socket: path.join(dir, "none.sock") });
    await assert.rejects(client.unary("ListSessions", {}), /there is no supervisor at '.*none\.sock'; start creeld/);
    fs.writeFileSync(path.join(dir, "file.sock"), "");
    const file = new Client({ ...settings, socket: path.join(dir, "file.sock") });
    await assert.rejects(file.unary("ListSessions", {}), /is not a socket/);
    client.close();
    file.close();
  });

  test("it comes back by itself after the supervisor was away", async () => {
    const handlers = { ListSessions: (call, done) => done(null, { sessions: [] }) };
    let server = await serve(handlers);
    const client = new Client(settings);
    assert.deepEqual((await client.unary("ListSessions", {})).sessions, []);
    server.forceShutdown();
    fs.rmSync(socket, { force: true });
    await assert.rejects(client.unary("ListSessions", {}));
    server = await serve(handlers);
    assert.deepEqual((await client.unary("ListSessions", {})).sessions, []);
    client.close();
    server.forceShutdown();
  });

  test("a call that is aborted ends at once, on both sides", async () => {
    let cancelled;
    const ended = new Promise((resolve) => (cancelled = resolve));
    const server = await serve({ ListSessions: (call) => call.on("cancelled", cancelled) });
    const client = new Client(settings);
    const abort = new AbortController();
    const call = client.unary("ListSessions", {}, { signal: abort.signal });
    setTimeout(() => abort.abort(new Error("enough")), 50);
    await assert.rejects(call, /enough/);
    await ended;
    client.close();
    server.forceShutdown();
  });
});

describe("file bridge", () => {
  let server;
  let client;
  const files = new Map();
  const contexts = [];
  before(async () => {
    server = await serve({
      Stat: (call, done) => {
        contexts.push(call.request.context);
        const data = files.get(call.request.args.path.toString());
        if (data === undefined) done(error(grpc.status.NOT_FOUND, "no such file"));
        else done(null, { info: { type: "FILE_TYPE_REGULAR", size: data.length, modified_at: { seconds: 7, nanos: 5e6 } } });
      },
      ReadFile: (call) => {
        const data = files.get(call.request.args.path.toString());
        if (data === undefined) return call.emit("error", error(grpc.status.NOT_FOUND, "no such file"));
        // A server that ignores max_size.
        for (let at = 0; at < data.length; at += 1000) call.write({ chunk: { data: data.subarray(at, at + 1000) } });
        call.end();
      },
      WriteFile: (call, done) => {
        const pieces = [];
        let args;
        call.on("data", (message) => (message.part === "start" ? ({ args } = message.start) : pieces.push(message.data)));
        call.on("end", () => {
          const name = args.path.toString();
          if (args.exclusive && files.has(name)) return done(error(grpc.status.ALREADY_EXISTS, "it is there"));
          files.set(name, Buffer.concat(pieces));
          done(null, { result: { created: true } });
        });
      },
      Remove: (call, done) => {
        const name = call.request.args.path.toString();
        if (!files.delete(name) && !call.request.args.missing_ok) done(error(grpc.status.NOT_FOUND, "no such file"));
        else done(null, { entries: 1 });
      },
    });
    client = new Client(settings);
  });
  after(() => {
    client.close();
    server.forceShutdown();
  });
  const bridge = (more = {}) =>
    new FsBridge({
      client,
      context: () => ({ session: "s", sender: "telegram:5" }),
      paths: new PathMap("/workspace", [{ hostRoot: "/gw/box", containerRoot: "/workspace" }]),
      ...more,
    });

  test("bytes of every value and more than a message go both ways", async () => {
    const data = Buffer.from(Array.from({ length: 3 << 20 }, (_, at) => at & 255));
    await bridge().writeFile({ filePath: "/gw/box/big", data });
    assert.ok(files.get("/workspace/big").equals(data));
    assert.ok((await bridge().readFile({ filePath: "big" })).equals(data));
  });

  test("a file above the limit is refused even if the server sends it", async () => {
    files.set("/workspace/large", Buffer.alloc(5000));
    await assert.rejects(bridge().readFile({ filePath: "large", maxBytes: 4999 }), /more than 4999 bytes/);
    assert.equal((await bridge().readFile({ filePath: "large", maxBytes: 5000 })).length, 5000);
    await assert.rejects(bridge().readFile({ filePath: "large", maxBytes: 0 }));
    await assert.rejects(bridge().readFile({ filePath: "large", maxBytes: -1 }), RangeError);
  });

  test("what is missing is null for stat and ENOENT for the rest", async () => {
    assert.equal(await bridge().stat({ filePath: "none" }), null);
    await assert.rejects(bridge().readFile({ filePath: "none" }), { code: "ENOENT" });
    await bridge().remove({ filePath: "none" });
    await assert.rejects(bridge().remove({ filePath: "none", force: false }), { code: "ENOENT" });
    files.set("/workspace/there", Buffer.from("x"));
    assert.deepEqual(await bridge().stat({ filePath: "there" }), { type: "file", size: 1, mtimeMs: 7005 });
    assert.deepEqual(contexts.at(-1), { session: "s", sender: "telegram:5", tool_call_id: "" });
  });

  test("an exclusive creation never replaces", async () => {
    assert.equal(await bridge().createFileExclusive({ filePath: "once", data: "a" }), "created");
    assert.equal(await bridge().createFileExclusive({ filePath: "once", data: "b" }), "exists");
    assert.equal(files.get("/workspace/once").toString(), "a");
  });

  test("read-only workspaces, skills and paths that were not authorized are not written", async () => {
    await assert.rejects(bridge({ readOnly: true }).writeFile({ filePath: "x", data: "" }), { code: "EROFS" });
    await assert.rejects(bridge({ protectedRoots: ["/workspace/skills"] }).remove({ filePath: "d/../skills/a" }), { code: "EROFS" });
    await assert.rejects(bridge().writeFile({ filePath: "x", data: "", pinnedPath: "/workspace/y" }), { code: "EACCES" });
    assert.ok(!files.has("/workspace/x"));
  });

  test("the mirror copies what is new, keeps what a tool has changed, and follows no link", async () => {
    const host = path.join(dir, "box");
    fs.mkdirSync(path.join(host, "skills/a"), { recursive: true });
    fs.writeFileSync(path.join(host, "AGENTS.md"), "rules");
    fs.writeFileSync(path.join(host, "skills/a/SKILL.md"), "skill");
    fs.symlinkSync("/etc/passwd", path.join(host, "link"));
    const trees = [
      { hostDir: host, containerDir: "/workspace", keep: false, except: [path.join(host, "skills")] },
      { hostDir: path.join(host, "skills"), containerDir: "/workspace/skills", keep: true },
    ];
    const copy = () => mirror({ client, context: () => ({ session: "s" }), sandboxId: "box1", trees });
    assert.equal((await copy()).count, 2);
    assert.equal(files.get("/workspace/skills/a/SKILL.md").toString(), "skill");
    assert.ok(!files.has("/workspace/link"));
    files.set("/workspace/AGENTS.md", Buffer.from("changed by a tool"));
    files.set("/workspace/skills/a/SKILL.md", Buffer.from("changed by a tool"));
    assert.equal((await copy()).count, 0);
    fs.writeFileSync(path.join(host, "AGENTS.md"), "new rules");
    fs.writeFileSync(path.join(host, "skills/a/SKILL.md"), "new skill");
    fs.writeFileSync(path.join(host, "photo.jpg"), "inbound");
    assert.equal((await copy()).count, 2);
    assert.equal(files.get("/workspace/AGENTS.md").toString(), "changed by a tool");
    assert.equal(files.get("/workspace/skills/a/SKILL.md").toString(), "new skill");
    assert.equal(files.get("/workspace/photo.jpg").toString(), "inbound");
  });
});

describe("commands", () => {
  const build = (request) => buildExecSpec(
      { settings, context: { session: "s", sender: "telegram:5", tool_call_id: "call-1" }, workdir: "/workspace" },
      request,
    );

  test("the environment is in a file that only we can read, and goes with the command", async () => {
    const spec = await build({
      command: "echo $SECRET",
      env: { PATH: process.env.PATH, SECRET: "two\nlines" },
      usePty: false,
    });
    const file = spec.argv[spec.argv.indexOf("--env-file") + 1];
    assert.equal(fs.readFileSync(file, "utf8"), "SECRET=two\nlines\0");
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    assert.equal(fs.statSync(path.dirname(file)).mode & 0o777, 0o700);
    assert.ok(!spec.argv.some((word) => word.includes("two")));
    assert.deepEqual(Object.keys(spec.env), ["PATH"]);
    assert.deepEqual(spec.argv.slice(-4), ["--", "/bin/sh", "-c", "echo $SECRET"]);
    assert.equal(spec.stdinMode, "pipe-closed");
    assert.equal(spec.argv[spec.argv.indexOf("--sender") + 1], "telegram:5");
    assert.equal(spec.argv[spec.argv.indexOf("--tool-call-id") + 1], "call-1");
    await finalizeExec({ token: spec.finalizeToken });
    assert.ok(!fs.existsSync(path.dirname(file)));
  });

  test("a terminal and a PATH of one's own are passed on, the gateway's is not", async () => {
    const spec = await build({
      command: "x",
      env: { PATH: `${os.homedir()}/.openclaw/tmp/agent-cli:/opt/own:/usr/bin:${process.env.PATH}` },
      usePty: true,
      workdir: "/workspace/d",
    });
    const file = spec.argv[spec.argv.indexOf("--env-file") + 1];
    assert.equal(fs.readFileSync(file, "utf8"), "CREEL_PREPEND_PATH=/opt/own\0");
    assert.ok(spec.argv.includes("--pty"));
    assert.equal(spec.stdinMode, "pipe-open");
    assert.equal(spec.argv[spec.argv.indexOf("--workdir") + 1], "/workspace/d");
    assert.match(spec.argv.at(-1), /^export PATH="\$CREEL_PREPEND_PATH:\$PATH"/);
    await finalizeExec({ token: spec.finalizeToken });
  });

  test("cleanup names the process it ends, and does not mind one that has ended", async () => {
    const asked = [];
    const server = await serve({
      SendInput: (call, done) => {
        asked.push(call.request);
        done(asked.length > 1 ? error(grpc.status.NOT_FOUND, "no such process") : null, {});
      },
    });
    const client = new Client(settings);
    const cleanup = prepareProcessCleanup({ client, context: () => ({ session: "s" }) }, { A: "1" });
    const spec = await build({ command: "x", env: cleanup.env, usePty: false });
    const id = spec.argv[spec.argv.indexOf("--process-id") + 1];
    assert.equal(fs.readFileSync(spec.argv[spec.argv.indexOf("--env-file") + 1], "utf8"), "A=1\0");
    assert.equal(await cleanup.interrupt(1000), true);
    assert.equal(await cleanup.interrupt(1000), false);
    await cleanup.terminate();
    assert.equal(asked[0].process_id, id);
    assert.equal(asked[0].input.signal, os.constants.signals.SIGINT);
    assert.equal(asked[2].input.input, "stop");
    await finalizeExec({ token: spec.finalizeToken });
    client.close();
    server.forceShutdown();
  });

  test("a script's output and status come back, and its failure is an error unless allowed", async () => {
    const server = await serve({
      Exec: (call) => {
        const input = [];
        call.on("data", (message) => {
          if (message.input?.stdin) input.push(message.input.stdin);
          if (message.input?.close_stdin) {
            call.write({ event: { output: { stream: "OUTPUT_STREAM_STDOUT", data: Buffer.concat(input) } } });
            call.write({ event: { output: { stream: "OUTPUT_STREAM_STDERR", data: Buffer.from("bad") } } });
            call.write({ event: { exit: { code: 3 } } });
            call.end();
          }
        });
      },
    });
    const client = new Client(settings);
    const access = { client, context: () => ({ session: "s" }) };
    const result = await runShellCommand(access, { script: "cat", stdin: "hello", allowFailure: true });
    assert.deepEqual([result.stdout.toString(), result.stderr.toString(), result.code], ["hello", "bad", 3]);
    await assert.rejects(runShellCommand(access, { script: "cat", stdin: "hello" }), /bad/);
    client.close();
    server.forceShutdown();
  });
});
