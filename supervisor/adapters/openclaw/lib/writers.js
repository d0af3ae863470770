// Who wrote into a session lately. Under `dmScope: main` the messages of several people land in the
// owner's session: a tool call there follows the words of all of them, whoever the gateway names as
// the one who asked.

import { bareId, nameOf } from "./senders.js";

const LATELY_MS = 30 * 60_000;
const MAX_SESSIONS = 10_000;
const MAX_WRITERS = 100;

export class Writers {
  #sessions = new Map();
  #now;

  constructor(now = Date.now) {
    this.#now = now;
  }

  note(session, sender) {
    const writers = this.#sessions.get(session) ?? new Map();
    const name = nameOf(sender);
    writers.delete(name);
    writers.set(name, { sender, at: this.#now() });
    if (writers.size > MAX_WRITERS) writers.delete(writers.keys().next().value);
    this.#sessions.delete(session);
    this.#sessions.set(session, writers);
    if (this.#sessions.size > MAX_SESSIONS) {
      this.#sessions.delete(this.#sessions.keys().next().value);
    }
  }

  // Those of the last half hour, as the supervisor wants them.
  of(session) {
    const since = this.#now() - LATELY_MS;
    return [...(this.#sessions.get(session)?.values() ?? [])]
      .filter(({ at }) => at >= since)
      .map(({ sender }) => sender);
  }

  // As this sender calls themselves; empty if they wrote nothing lately.
  nameIn(session, channel, id) {
    return this.#sessions.get(session)?.get(`${channel}:${id}`)?.sender.name ?? "";
  }
}

// For the gateway's hook `message_received`.
export function createListener({ writers }) {
  return (event, context) => {
    const session = event.sessionKey ?? context.sessionKey;
    const channel = (context.channelId ?? event.metadata?.provider ?? "").toLowerCase().trim();
    const id = bareId(channel, event.senderId ?? context.senderId ?? event.metadata?.senderId);
    if (!session || !channel || !id) return;
    writers.note(session, {
      channel,
      id,
      account: context.accountId ?? "",
      name: String(event.metadata?.senderName ?? "").slice(0, 64),
      is_owner_claim: false,
    });
  };
}
