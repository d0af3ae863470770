// The plugin's configuration, checked and with its defaults filled in.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const PLUGIN_DIR = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const KNOWN = ["socket", "creel", "protos", "admission", "callTimeoutSeconds"];
// What sockaddr_un takes.
const MAX_SOCKET_PATH = 107;

function fail(key, problem) {
  throw new Error(`creel: plugins.entries.creel.config.${key} ${problem}`);
}

function text(config, key) {
  const value = config[key];
  if (value === undefined) return undefined;
  if (typeof value !== "string" || value.trim() === "") fail(key, "must be a non-empty text");
  return value.trim();
}

// The folder that holds creel/gateway/v1/gateway.proto: packaged with the plugin, or the source
// tree that the plugin lies in.
function findProtos(named) {
  const candidates = named
    ? [named]
    : [path.join(PLUGIN_DIR, "proto"), path.resolve(PLUGIN_DIR, "../../../proto")];
  const found = candidates.find((dir) =>
    fs.existsSync(path.join(dir, "creel/gateway/v1/gateway.proto")),
  );
  if (!found) {
    fail("protos", `must name the folder of Creel's protos; none is in ${candidates.join(" or ")}`);
  }
  return found;
}

export function readSettings(config = {}, env = process.env) {
  if (config === null || typeof config !== "object" || Array.isArray(config)) {
    throw new Error("creel: plugins.entries.creel.config must be an object");
  }
  for (const key of Object.keys(config)) {
    if (!KNOWN.includes(key)) fail(key, `is unknown; there are ${KNOWN.join(", ")}`);
  }
  const socket =
    text(config, "socket") ?? (env.CREEL_GATEWAY_SOCKET || "/run/creel/gateway.sock");
  if (!path.isAbsolute(socket)) fail("socket", "must be an absolute path");
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    fail("socket", `is longer than the ${MAX_SOCKET_PATH} bytes that the kernel takes`);
  }
  const admission = text(config, "admission") ?? "gateway";
  if (!["gateway", "creel"].includes(admission)) fail("admission", "must be gateway or creel");
  const seconds = config.callTimeoutSeconds ?? 30;
  if (!Number.isInteger(seconds) || seconds < 1 || seconds > 600) {
    fail("callTimeoutSeconds", "must be a whole number from 1 to 600");
  }
  return {
    socket,
    creel: text(config, "creel") ?? "creel",
    protos: findProtos(text(config, "protos")),
    admission,
    callTimeoutMs: seconds * 1000,
  };
}
