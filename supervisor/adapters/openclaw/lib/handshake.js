// Plugin and supervisor are updated apart; whether they understand each other is asked before
// anything relies on it, and again after the supervisor was away.

import { CreelError, isCode } from "./errors.js";

// The newest minor version of creel.gateway.v1 that this plugin was written for.
export const API_MINOR = 2;
const ASK_AGAIN_MS = 10_000;

export function createHandshake({ client, gatewayVersion, now = Date.now }) {
  let agreedAt;
  return async () => {
    if (agreedAt !== undefined && now() - agreedAt < ASK_AGAIN_MS) return;
    agreedAt = undefined;
    let info;
    try {
      info = await client.unary("GetInfo", {
        gateway: "openclaw",
        gateway_version: gatewayVersion,
        api_minor: API_MINOR,
      });
    } catch (error) {
      if (!isCode(error, "UNIMPLEMENTED")) throw error;
      throw new CreelError(
        "creel: the supervisor is older than this plugin and cannot be asked for decisions; update creeld",
        error.grpcCode,
        { cause: error },
      );
    }
    if (!info.compatible) {
      throw new CreelError(
        `creel: supervisor ${info.version} and this plugin do not fit: ${info.reason}`,
      );
    }
    agreedAt = now();
  };
}
