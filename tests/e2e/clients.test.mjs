// The clients that docs/gateways.md shows, word for word.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "./support/process.mjs";
import { Supervisor } from "./support/supervisor.mjs";

const CACHE = process.env.CREEL_E2E_CACHE;
const SOURCE = path.resolve(import.meta.dirname, "../..");
const PROTOS = path.join(SOURCE, "proto");

describe("a gateway of one's own", () => {
  let supervisor;
  before(async () => {
    supervisor = await Supervisor.start({ config: 'levels: {friend: {members: ["irc:mario"]}}\n' });
  });
  after(async () => supervisor?.stop());

  test("in Python", async () => {
    const dir = fs.mkdtempSync(path.join(supervisor.dir, "py-"));
    const made = await run([
      "protoc", `-I${PROTOS}`, `--python_out=${dir}`, `--grpc_out=${dir}`,
      "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin",
      "creel/gateway/v1/gateway.proto", "creel/shim/v1/files.proto", "creel/shim/v1/process.proto",
    ]);
    assert.equal(made.code, 0, made.err);
    fs.copyFileSync(path.join(import.meta.dirname, "clients/client.py"), path.join(dir, "client.py"));
    const { code, out, err } = await run(["/usr/bin/python3", path.join(dir, "client.py"), supervisor.socket]);
    assert.equal(out, "hello from Python\n", err);
    assert.equal(code, 3);
  });

  test("in JavaScript", async () => {
    const dir = fs.mkdtempSync(path.join(supervisor.dir, "js-"));
    fs.symlinkSync(path.join(CACHE, "adapter/node_modules"), path.join(dir, "node_modules"));
    fs.copyFileSync(path.join(import.meta.dirname, "clients/client.mjs"), path.join(dir, "client.mjs"));
    const { code, out, err } = await run([process.execPath, path.join(dir, "client.mjs"), supervisor.socket, PROTOS]);
    assert.equal(out, "hello from JavaScript\n", err);
    assert.equal(code, 3);
  });

  test("the documentation shows these very programs", () => {
    const docs = fs.readFileSync(path.join(SOURCE, "docs/gateways.md"), "utf8");
    for (const name of ["client.py", "client.mjs"]) {
      const program = fs.readFileSync(path.join(import.meta.dirname, "clients", name), "utf8");
      assert.ok(docs.includes(program.trimEnd()), `docs/gateways.md has another ${name}`);
    }
  });
});
