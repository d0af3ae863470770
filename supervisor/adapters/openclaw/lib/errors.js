// What the supervisor's refusals look like to the gateway.

import fs from "node:fs";
import net from "node:net";
import { status } from "@grpc/grpc-js";

// Node's own names, which the gateway's file tools look for.
const ERRNO_NAMES = new Map([
  [status.NOT_FOUND, "ENOENT"],
  [status.PERMISSION_DENIED, "EACCES"],
  [status.ALREADY_EXISTS, "EEXIST"],
  [status.INVALID_ARGUMENT, "EINVAL"],
  [status.RESOURCE_EXHAUSTED, "ENOSPC"],
]);

export class CreelError extends Error {
  constructor(message, grpcCode, options) {
    super(message, options);
    this.name = "CreelError";
    this.grpcCode = grpcCode;
    const code = ERRNO_NAMES.get(grpcCode);
    if (code) this.code = code;
  }
}

// The message of a gRPC error without the number and name that grpc-js puts in front.
export function fromGrpc(error, subject) {
  const details = error.details || error.message || "the supervisor gave no reason";
  return new CreelError(subject ? `${subject}: ${details}` : details, error.code, { cause: error });
}

export function isCode(error, name) {
  return error instanceof CreelError && error.grpcCode === status[name];
}

// Why nothing answers at `socket`, and what to do about it, in one line; and whether somebody listens.
export async function describeSilence(socket) {
  const silence = (words) => ({ listens: false, words: `creel: ${words}` });
  try {
    if (!fs.statSync(socket).isSocket()) {
      return silence(
        `'${socket}' is not a socket; set plugins.entries.creel.config.socket to the supervisor's gateway.sock`,
      );
    }
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") {
      return silence(
        `there is no supervisor at '${socket}'; start creeld, or set plugins.entries.creel.config.socket`,
      );
    }
    return silence(
      `'${socket}' cannot be looked at (${error.code}); let the gateway's user enter its folder`,
    );
  }
  const probe = net.connect(socket);
  const code = await new Promise((resolve) => {
    probe.setTimeout(1000, () => resolve("ETIMEDOUT"));
    probe.once("connect", () => resolve(""));
    probe.on("error", (error) => resolve(error.code));
  });
  probe.destroy();
  switch (code) {
    case "":
      return {
        ...silence(
          `what listens at '${socket}' does not speak Creel's protocol, or refused this user; see creeld's log`,
        ),
        listens: true,
      };
    case "EACCES":
    case "EPERM":
      return silence(
        `the gateway's user may not open '${socket}'; add it to the group that owns it (gateway.group in creel.yaml)`,
      );
    case "ECONNREFUSED":
      return silence(`nobody listens at '${socket}'; start creeld`);
    default:
      return silence(`'${socket}' does not answer (${code}); see creeld's log`);
  }
}
