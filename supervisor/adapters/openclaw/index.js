// OpenClaw's plugin for Creel: the sandbox backend `creel`, and the supervisor's word on tools,
// messages and replies.

import { createRequire } from "node:module";
import { createAdmission } from "./lib/admission.js";
import { createFactory, createManager, WORKDIR } from "./lib/backend.js";
import { Client } from "./lib/client.js";
import { createHandshake } from "./lib/handshake.js";
import { createReplyGate } from "./lib/reply_gate.js";
import { readSettings } from "./lib/settings.js";
import { shared } from "./lib/shared.js";
import { createToolGate } from "./lib/tool_gate.js";
import { createListener } from "./lib/writers.js";

// A gateway that is too old has no such module; then `register` says so. It loads plugins by require,
// so this cannot be an import that is waited for.
let sandbox = {};
try {
  sandbox = createRequire(import.meta.url)("openclaw/plugin-sdk/sandbox");
} catch (error) {
  if (!["MODULE_NOT_FOUND", "ERR_PACKAGE_PATH_NOT_EXPORTED"].includes(error.code)) throw error;
}

// Of all plugins ours hears a tool call first, and has the last word on what leaves.
const FIRST = 1_000_000;
const LAST = -1_000_000;

function register(api) {
  const log = api.logger ?? console;
  if (typeof sandbox.registerSandboxBackend !== "function") {
    throw new Error(
      "creel: this gateway has no sandbox backends for plugins; update openclaw to 2026.3.22 or newer",
    );
  }
  const settings = readSettings(api.pluginConfig ?? {});
  const state = shared();
  const client = state.client(settings, () => new Client(settings));
  const ready = createHandshake({ client, gatewayVersion: api.runtime?.version ?? "" });

  const sandboxed = (sessionKey, agentId) => {
    const status = sandbox.resolveSandboxRuntimeStatus?.({
      cfg: api.runtime?.config?.current?.() ?? api.config,
      sessionKey,
      agentId,
    });
    return status?.sandboxed === true;
  };

  const replies = createReplyGate({ client, ready, state, log });
  api.on("before_tool_call", createToolGate({ client, ready, state, sandboxed, replies, log }), {
    priority: FIRST,
  });
  api.on("message_received", createListener({ writers: state.writers, admission: settings.admission }), { priority: FIRST });
  api.on("reply_payload_sending", replies.payload, { priority: LAST });
  api.on("message_sending", replies.message, { priority: LAST });
  if (settings.admission === "creel") {
    api.on("before_dispatch", createAdmission({ client, ready, writers: state.writers, log }), { priority: FIRST });
  }

  // Runs of agents load the plugin for its hooks alone.
  if (api.registrationMode === "full") {
    sandbox.registerSandboxBackend("creel", {
      factory: createFactory({
        settings,
        client,
        callOf: (session) => state.callOf(session),
        ready,
        log,
      }),
      manager: createManager({ client }),
      resolveWorkdir: () => WORKDIR,
    });
  }
}

export default {
  id: "creel",
  name: "Creel",
  description: "Runs the tools of each session in a container of its own, under Creel's policy.",
  register,
};
