// The plugin's files with their dependencies beside them, as an operator installs them.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { installPlugin } from "../../../e2e/support/gateway.mjs";

const dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-plugin-"));
process.once("exit", () => fs.rmSync(dir, { recursive: true, force: true }));
installPlugin(dir);

export const PLUGIN_DIR = dir;
export const load = (name) => import(pathToFileURL(path.join(dir, "lib", name)));

export const quiet = { info() {}, warn() {}, error() {} };

// Answers each method with what the test says; an Error is thrown. Keeps what it was asked.
export class FakeClient {
  asked = [];
  constructor(answers) {
    this.answers = answers;
  }
  async unary(method, request) {
    this.asked.push({ method, request });
    const answer = this.answers[method];
    const value = typeof answer === "function" ? await answer(request) : answer;
    if (value instanceof Error) throw value;
    return value;
  }
}
