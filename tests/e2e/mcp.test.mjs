// `creel mcp` with the clients that people have: the SDK of the handshake era and of today's, the
// inspector, and a client that does not keep to the protocol.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { eventually, run } from "./support/process.mjs";
import { CREEL, Supervisor } from "./support/supervisor.mjs";

const CACHE = process.env.CREEL_E2E_CACHE;
const require = createRequire(path.join(CACHE, "mcp/package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const SESSION = "agent:main:mcp:group:1";
const TOOLS = ["exec", "process", "read", "write", "edit", "ls", "find", "grep"];
const READ_ONLY = ["read", "ls", "find", "grep"];
const MODERN_META = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
};

describe("creel mcp", () => {
  let supervisor;
  const words = (session = SESSION) => ["--socket", supervisor.socket, "mcp", "--session", session, "--sender", "mcp:tester"];
  const env = { PATH: process.env.PATH };

  before(async () => {
    supervisor = await Supervisor.start({ config: 'levels: {friend: {members: ["mcp:tester"]}}\n' });
  });
  after(async () => supervisor?.stop());

  async function sleepers() {
    const { out } = await supervisor.creel("exec", SESSION, "--", "pgrep", "-xc", "sleep");
    return Number(out.trim());
  }

  // A client of the SDK, of either generation.
  async function connect(generation, options = {}) {
    if (generation === "2025-11-25") {
      const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
      const { StdioClientTransport } = await load("@modelcontextprotocol/sdk/client/stdio.js");
      const client = new Client({ name: "creel-test", version: "1" });
      await client.connect(new StdioClientTransport({ command: CREEL, args: words(), env }));
      return client;
    }
    const { Client } = await load("@modelcontextprotocol/client");
    const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");
    const client = new Client(
      { name: "creel-test", version: "1" },
      { versionNegotiation: { mode: { pin: "2026-07-28" } }, ...options },
    );
    await client.connect(new StdioClientTransport({ command: CREEL, args: words(), env }));
    return client;
  }

  for (const generation of ["2025-11-25", "2026-07-28"]) {
    test(`an SDK client that speaks ${generation} lists and calls every tool`, async () => {
      const client = await connect(generation);
      try {
        const { tools } = await client.listTools();
        assert.deepEqual(tools.map((tool) => tool.name).sort(), [...TOOLS].sort());
        for (const tool of tools) {
          assert.equal(tool.inputSchema.type, "object");
          assert.equal(tool.annotations.readOnlyHint, READ_ONLY.includes(tool.name), tool.name);
          if (!READ_ONLY.includes(tool.name)) assert.equal(tool.annotations.destructiveHint, true, tool.name);
          assert.ok(tool.description.length > 20 && tool.annotations.title, tool.name);
        }
        const call = async (name, args) => client.callTool({ name, arguments: args });
        const text = (result) => result.content[0].text;

        const exec = await call("exec", { command: "echo out; echo err >&2; exit 3" });
        assert.match(text(exec), /out/);
        assert.equal(exec.structuredContent.exit_code, 3);
        assert.equal((await call("write", { path: `${generation}/a.txt`, content: "one\ntwo\n" })).structuredContent.created, true);
        assert.equal(text(await call("read", { path: `${generation}/a.txt` })), "one\ntwo\n");
        assert.equal((await call("edit", { path: `${generation}/a.txt`, old_text: "two", new_text: "three" })).structuredContent.matches, 1);
        assert.match(text(await call("ls", { path: generation })), /a\.txt/);
        assert.match(text(await call("find", { pattern: "**/*.txt" })), /\/a\.txt/);
        assert.match(text(await call("grep", { pattern: "^thr" })), /\/a\.txt:2:three/);

        const started = await call("exec", { command: "read line; echo heard $line", background: true });
        const { process_id } = started.structuredContent;
        assert.match(text(await call("process", { action: "list" })), new RegExp(process_id));
        await call("process", { action: "write", process_id, input: "lobster\n" });
        const waited = await call("process", { action: "wait", process_id, wait_seconds: 20 });
        assert.match(text(waited), /heard lobster/);
        assert.equal(waited.structuredContent.exit_code, 0);
      } finally {
        await client.close();
      }
    });

    test(`a long command of ${generation} tells its progress`, async () => {
      const client = await connect(generation);
      try {
        const told = [];
        await client.callTool(
          { name: "exec", arguments: { command: "echo now; sleep 3" } },
          ...(generation === "2025-11-25" ? [undefined] : []),
          { onprogress: (progress) => told.push(progress) },
        );
        assert.ok(told.length >= 2, JSON.stringify(told));
        assert.ok(told[1].progress > told[0].progress);
        assert.match(told.at(-1).message, /4 bytes/);
      } finally {
        await client.close();
      }
    });

    test(`cancelling a call of ${generation} stops its command`, async () => {
      const client = await connect(generation);
      try {
        const abort = new AbortController();
        const call = client.callTool(
          { name: "exec", arguments: { command: "setsid sleep 4243 & sleep 4243" } },
          ...(generation === "2025-11-25" ? [undefined] : []),
          { signal: abort.signal },
        );
        const failed = assert.rejects(call);
        await eventually("the command runs", async () => (await sleepers()) === 2, 20_000);
        abort.abort();
        await failed;
        await eventually("nothing of it is left", async () => (await sleepers()) === 0, 20_000);
      } finally {
        await client.close();
      }
    });
  }

  test("long output is cut, and the hint leads to the rest", async () => {
    const client = await connect("2025-11-25");
    try {
      const whole = await client.callTool({ name: "exec", arguments: { command: "seq 1 100000", max_output_bytes: 1000 } });
      const text = whole.content[0].text;
      assert.ok(text.length < 2000);
      assert.match(text, /100000\n\[exit status 0\]/);
      const [, hint] = /the tool process: (\{.*\})\]/.exec(text);
      const rest = await client.callTool({ name: "process", arguments: { ...JSON.parse(hint), max_bytes: 100 } });
      assert.ok(text.startsWith("1\n2\n3\n"));
      assert.match(rest.content[0].text, /^\d+\n\d+/);
      assert.equal(rest.structuredContent.next_offset, JSON.parse(hint).offset + 100);
    } finally {
      await client.close();
    }
  });

  test("files that are no text come as they are", async () => {
    const client = await connect("2025-11-25");
    try {
      const bytes = Buffer.from([...Array(256).keys()]);
      await client.callTool({ name: "write", arguments: { path: "blob", content: bytes.toString("base64"), encoding: "base64" } });
      const read = await client.callTool({ name: "read", arguments: { path: "blob" } });
      assert.equal(read.content[1].resource.blob, bytes.toString("base64"));
      const png = Buffer.from("89504e470d0a1a0a0000", "hex");
      await client.callTool({ name: "write", arguments: { path: "p.png", content: png.toString("base64"), encoding: "base64" } });
      const image = await client.callTool({ name: "read", arguments: { path: "p.png" } });
      assert.equal(image.content[0].type, "image");
      assert.equal(image.content[0].mimeType, "image/png");
      const long = "ä".repeat(40_000);
      await client.callTool({ name: "write", arguments: { path: "long.txt", content: long } });
      const first = await client.callTool({ name: "read", arguments: { path: "long.txt", max_bytes: 1001 } });
      assert.equal(first.structuredContent.next_offset, 1000);
      assert.ok(!first.content[0].text.includes("\ufffd"));
    } finally {
      await client.close();
    }
  });

  test("what a tool cannot do is the tool's error, not the protocol's", async () => {
    const client = await connect("2025-11-25");
    try {
      for (const [name, args, words] of [
        ["read", { path: "no-such-file" }, /no-such-file/],
        ["read", { path: "/etc/shadow" }, /shadow|outside/],
        ["edit", { path: "no-such-file", old_text: "a", new_text: "b" }, /no-such-file/],
        ["exec", { argv: ["no-such-program"] }, /no-such-program/],
        ["exec", { command: "sleep 60", timeout_seconds: 0.5 }, /time ran out/],
        ["exec", { command: "a", argv: ["b"] }, /either/],
        ["process", { action: "stop", process_id: "nobody" }, /nobody/],
        ["process", { action: "stop" }, /process_id/],
        ["grep", { pattern: "(" }, /pattern|paren/],
      ]) {
        const result = await client.callTool({ name, arguments: args });
        assert.equal(result.isError, true, `${name} ${JSON.stringify(args)}`);
        assert.match(result.content[0].text, words);
      }
    } finally {
      await client.close();
    }
  });

  test("the inspector lists and calls tools", async () => {
    const inspector = path.join(CACHE, "mcp/node_modules/@modelcontextprotocol/inspector");
    const { bin } = require("@modelcontextprotocol/inspector/package.json");
    const program = path.join(inspector, Object.values(bin)[0]);
    const inspect = (...more) =>
      run([process.execPath, program, "--cli", CREEL, ...words(), ...more], { env: { ...env, HOME: "/tmp" } });
    const list = await inspect("--method", "tools/list");
    assert.equal(list.code, 0, list.err);
    for (const name of TOOLS) assert.match(list.out, new RegExp(`"name": "${name}"`));
    const call = await inspect("--method", "tools/call", "--tool-name", "exec", "--tool-arg", "command=echo from the inspector");
    assert.match(call.out, /from the inspector/);
  });

  // Writes lines and gathers what comes back until `count` messages are there.
  async function talk(lines, count) {
    const child = spawn(CREEL, words(), { env, stdio: ["pipe", "pipe", "inherit"] });
    let out = "";
    child.stdout.on("data", (piece) => (out += piece));
    child.stdin.write(`${lines.join("\n")}\n`);
    const messages = () => out.split("\n").filter(Boolean).map((line) => JSON.parse(line));
    try {
      await eventually(`${count} answers, not ${out}`, () => messages().length >= count, 20_000);
      return messages();
    } finally {
      child.stdin.end();
      await new Promise((resolve) => child.once("exit", resolve));
    }
  }

  test("malformed messages, unknown methods and wrong arguments get the protocol's codes", async () => {
    const call = (id, name, args) =>
      JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args } });
    const rows = [
      ["{oops", null, -32700],
      ["[]", null, -32600],
      ['{"jsonrpc":"1.0","id":1,"method":"ping"}', 1, -32600],
      ['{"jsonrpc":"2.0","id":null,"method":"ping"}', null, -32600],
      ['{"jsonrpc":"2.0","id":2,"method":7}', 2, -32600],
      ['{"jsonrpc":"2.0","id":3,"method":"ping","params":[]}', 3, -32602],
      ['{"jsonrpc":"2.0","id":4,"method":"resources/list"}', 4, -32601],
      ['{"jsonrpc":"2.0","id":5,"method":"initialize","params":{}}', 5, -32602],
      [call(6, "no-such-tool", {}), 6, -32602],
      [call(7, "read", { path: 7 }), 7, -32602],
      [call(8, "read", {}), 8, -32602],
      [call(9, "read", { path: "a", colour: "red" }), 9, -32602],
      [call(10, "exec", { command: "true", timeout_seconds: -1 }), 10, -32602],
      [call(11, "exec", { argv: [1] }), 11, -32602],
      [call(12, "process", { action: "explode" }), 12, -32602],
      [call(13, "exec", "echo"), 13, -32602],
      [`${"[".repeat(100_000)}`, null, -32600],
      ['{"jsonrpc":"2.0","id":14,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2031-01-01","io.modelcontextprotocol/clientCapabilities":{}}}}', 14, -32022],
      ['{"jsonrpc":"2.0","id":15,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}', 15, -32602],
      [JSON.stringify({ jsonrpc: "2.0", id: 16, method: "ping", params: { _meta: MODERN_META } }), 16, -32601],
    ];
    const answers = await talk(rows.map(([line]) => line), rows.length);
    for (const [index, [line, id, code]] of rows.entries()) {
      assert.equal(answers[index].error?.code, code, `${line.slice(0, 100)} -> ${JSON.stringify(answers[index])}`);
      assert.equal(answers[index].id, id);
    }
    assert.deepEqual(answers[17].error.data, { supported: ["2026-07-28"], requested: "2031-01-01" });
  });

  test("results of today's revision say that they are complete, and whose they are", async () => {
    const [discovered, listed] = await talk(
      ["server/discover", "tools/list"].map((method, index) =>
        JSON.stringify({ jsonrpc: "2.0", id: index, method, params: { _meta: MODERN_META } }),
      ),
      2,
    );
    assert.deepEqual(discovered.result.supportedVersions, ["2026-07-28"]);
    for (const { result } of [discovered, listed]) {
      assert.equal(result.resultType, "complete");
      assert.equal(result.cacheScope, "private");
      assert.equal(result._meta["io.modelcontextprotocol/serverInfo"].name, "creel");
    }
  });

  test("it says in one line what is wrong at the start, and goes on when the supervisor comes back", async () => {
    const wrong = await run([CREEL, "--socket", "/tmp/no-such.sock", "mcp", "--session", SESSION], { env });
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /^creel: no supervisor answers at '\/tmp\/no-such\.sock'.*\n$/);

    const client = await connect("2025-11-25");
    try {
      const exec = () => client.callTool({ name: "exec", arguments: { command: "echo here" } });
      assert.match((await exec()).content[0].text, /here/);
      await supervisor.process.stop("SIGKILL");
      const away = await exec();
      assert.equal(away.isError, true);
      await supervisor.begin();
      assert.match((await exec()).content[0].text, /here/);
    } finally {
      await client.close();
    }
  });
});
