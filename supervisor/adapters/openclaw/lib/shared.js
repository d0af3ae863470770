// The gateway loads the plugin more than once in a process: for its start, for each kind of run. All
// of these share one connection and one memory of who asked last.

import { Writers } from "./writers.js";

const KEY = Symbol.for("creel.openclaw.shared");
const MAX_SESSIONS = 10_000;
const MAX_SENDERS = 10_000;

function remember(map, key, value, limit) {
  map.delete(key);
  map.set(key, value);
  if (map.size > limit) map.delete(map.keys().next().value);
}

class Shared {
  #clients = new Map();
  #calls = new Map();
  #levels = new Map();
  #approvals = new Map();
  writers = new Writers();

  client(settings, make) {
    const key = `${settings.socket}\0${settings.protos}`;
    let client = this.#clients.get(key);
    if (!client) {
      client = make();
      this.#clients.set(key, client);
    }
    return client;
  }

  // The tool call that was judged last in this session: who asked, `channel:id` or undefined for
  // nobody who is known, and the gateway's id of it, for which an approval holds.
  setCall(session, sender, toolCallId) {
    remember(this.#calls, session, { sender, toolCallId }, MAX_SESSIONS);
  }
  callOf(session) {
    return this.#calls.get(session) ?? {};
  }

  // The trust level that the supervisor last gave a sender.
  setLevel(sender, level) {
    remember(this.#levels, sender, level, MAX_SENDERS);
  }
  levelOf(sender) {
    return this.#levels.get(sender);
  }

  // What the operator was asked for a call that was held; the same call carries it when it comes
  // again.
  setApproval(call, id) {
    if (id) remember(this.#approvals, call, id, MAX_SESSIONS);
    else this.#approvals.delete(call);
  }
  approvalOf(call) {
    return this.#approvals.get(call);
  }
}

export function shared() {
  globalThis[KEY] ??= new Shared();
  return globalThis[KEY];
}
