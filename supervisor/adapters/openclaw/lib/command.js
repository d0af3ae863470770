// Commands: the argv with which the gateway starts `creel exec`, and short scripts of the gateway's
// own over the socket.

import { randomUUID } from "node:crypto";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fromGrpc, isCode, CreelError } from "./errors.js";

// Carries the process id from prepareProcessCleanup to buildExecSpec; never reaches the command.
const PROCESS_ID = "CREEL_PROCESS_ID";
const MAX_SCRIPT_OUTPUT = 32 << 20;

// A file of `NAME=VALUE`, NUL after each, readable by nobody else: a command line can be read by
// every user of the host.
async function writeEnvFile(env) {
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), "creel-env-"));
  const file = path.join(dir, "env");
  const text = Object.entries(env)
    .map(([name, value]) => `${name}=${value}\0`)
    .join("");
  await fs.writeFile(file, text, { mode: 0o600, flag: "wx" });
  return { file, remove: () => fs.rm(dir, { recursive: true, force: true }) };
}

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// The gateway puts its own PATH, as it was at its start, at the end of what it hands over, and a folder
// of its own in front. Those are folders of the host, and the sandbox has a better PATH; only what was
// asked for besides is of use.
function withoutOwnPath(requested, own = process.env.PATH ?? DEFAULT_PATH) {
  const known = new Set([...own.split(":"), ...DEFAULT_PATH.split(":")]);
  const home = `${os.homedir()}/`;
  return (requested ?? "")
    .split(":")
    .filter((each) => each && !known.has(each) && !each.startsWith(home))
    .join(":");
}

function commandEnv(env) {
  const { [PROCESS_ID]: processId, PATH: requested, ...rest } = env;
  for (const [name, value] of Object.entries(rest)) {
    if (typeof value !== "string" || value.includes("\0") || !name || name.includes("=")) {
      throw new Error(`creel: the variable '${name}' cannot be passed on`);
    }
  }
  return { processId, prepend: withoutOwnPath(requested), env: rest };
}

// `context`: the CallContext of the tool call.
export async function buildExecSpec({ settings, context, workdir }, request) {
  const { processId, prepend, env } = commandEnv(request.env);
  let command = request.command;
  if (prepend) {
    env.CREEL_PREPEND_PATH = prepend;
    command = `export PATH="$CREEL_PREPEND_PATH:$PATH"; unset CREEL_PREPEND_PATH; ${command}`;
  }
  const envFile = await writeEnvFile(env);
  const argv = [settings.creel, "--socket", settings.socket, "exec", context.session];
  if (context.sender) argv.push("--sender", context.sender);
  if (context.tool_call_id) argv.push("--tool-call-id", context.tool_call_id);
  argv.push("--env-file", envFile.file, "--workdir", request.workdir ?? workdir);
  if (processId) argv.push("--process-id", processId);
  // The gateway's end is a pipe even where it asks for a terminal.
  if (request.usePty) argv.push("--interactive", "--pty", "40x120");
  argv.push("--", "/bin/sh", "-c", command);
  return {
    argv,
    // Nothing of the gateway's environment: its keys are in it.
    env: { PATH: process.env.PATH ?? "/usr/local/bin:/usr/bin:/bin" },
    stdinMode: request.usePty ? "pipe-open" : "pipe-closed",
    finalizeToken: envFile.remove,
  };
}

export async function finalizeExec({ token }) {
  if (token === undefined) return;
  if (typeof token !== "function") throw new Error("creel: not a token of this backend");
  await token();
}

// Ends a command by its id: the whole kill ladder, on the supervisor's side. It works where the
// process that carried it is gone already.
export function prepareProcessCleanup({ client, context }, env) {
  const processId = `gw-${randomUUID()}`;
  const send = async (input, timeoutMs) => {
    try {
      await client.unary(
        "SendInput",
        { context: context(), process_id: processId, input },
        { timeoutMs },
      );
      return true;
    } catch (error) {
      // It never started, or it has ended.
      if (isCode(error, "NOT_FOUND") || isCode(error, "FAILED_PRECONDITION")) return false;
      throw error;
    }
  };
  return {
    env: { ...env, [PROCESS_ID]: processId },
    terminate: async () => {
      await send({ stop: {} }, 15_000);
    },
    interrupt: (timeoutMs) => send({ signal: os.constants.signals.SIGINT }, timeoutMs),
  };
}

// Runs a short script to its end and returns what it printed.
export async function runShellCommand({ client, context }, request) {
  const { script, args = [], stdin, allowFailure, signal } = request;
  signal?.throwIfAborted();
  const call = await client.duplex("Exec", {
    start: {
      context: context(),
      spec: {
        argv: ["/bin/sh", "-c", script, "creel", ...args],
        stdin: stdin !== undefined,
        overflow: "OVERFLOW_BLOCK",
      },
    },
  });
  if (stdin !== undefined) {
    const input = Buffer.isBuffer(stdin) ? stdin : Buffer.from(stdin);
    for (let at = 0; at < input.length; at += 1 << 20) {
      call.write({ input: { stdin: input.subarray(at, at + (1 << 20)) } });
    }
    call.write({ input: { close_stdin: {} } });
  }
  const out = { OUTPUT_STREAM_STDOUT: [], OUTPUT_STREAM_STDERR: [] };
  let size = 0;
  const abort = () => call.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    const exit = await new Promise((resolve, reject) => {
      let last;
      call.on("data", ({ event }) => {
        if (event.output) {
          size += event.output.data.length;
          if (size > MAX_SCRIPT_OUTPUT) {
            reject(new Error("creel: the script printed more than the gateway takes"));
            call.cancel();
            return;
          }
          out[event.output.stream]?.push(event.output.data);
        } else if (event.exit) {
          last = event.exit;
          call.end();
        }
      });
      call.on("error", (error) => reject(signal?.aborted ? signal.reason : fromGrpc(error)));
      call.on("end", () =>
        last ? resolve(last) : reject(new CreelError("creel: the script's end is not known")),
      );
    });
    if (exit.how === "lost" || exit.how === "start_failure") {
      throw new CreelError(`creel: ${exit.lost ?? exit.start_failure?.message}`);
    }
    const result = {
      stdout: Buffer.concat(out.OUTPUT_STREAM_STDOUT),
      stderr: Buffer.concat(out.OUTPUT_STREAM_STDERR),
      code: exit.how === "code" ? exit.code : 128 + exit.signal,
    };
    if (result.code !== 0 && !allowFailure) {
      const words = result.stderr.toString("utf8").trim() || `exit status ${result.code}`;
      throw Object.assign(new CreelError(`creel: ${words}`), result);
    }
    return result;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
