// Who wrote into a session lately. The gateway adds a message that comes during a turn to that turn,
// and goes on naming the one who began it as the one who asks; and under `dmScope: main` the messages
// of several people land in the owner's session. A tool call follows the words of all of them.

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

  // `counts`: their words go to the model; otherwise only their name is of use.
  note(session, sender, counts = true) {
    const writers = this.#sessions.get(session) ?? new Map();
    const name = nameOf(sender);
    counts ||= this.#isRecent(writers.get(name));
    writers.delete(name);
    writers.set(name, { sender, counts, at: this.#now() });
    if (writers.size > MAX_WRITERS) writers.delete(writers.keys().next().value);
    this.#sessions.delete(session);
    this.#sessions.set(session, writers);
    if (this.#sessions.size > MAX_SESSIONS) {
      this.#sessions.delete(this.#sessions.keys().next().value);
    }
  }

  // Those of the last half hour, as the supervisor wants them.
  of(session) {
    return [...(this.#sessions.get(session)?.values() ?? [])]
      .filter((each) => this.#isRecent(each))
      .map(({ sender }) => sender);
  }

  #isRecent(writer) {
    return writer?.counts === true && writer.at >= this.#now() - LATELY_MS;
  }

  // As this sender calls themselves; empty if they wrote nothing lately.
  nameIn(session, channel, id) {
    return this.#sessions.get(session)?.get(`${channel}:${id}`)?.sender.name ?? "";
  }
}

// For the gateway's hook `message_received`. Where Creel decides which messages reach the model, those
// that it turns away do not count.
export function createListener({ writers, admission = "gateway" }) {
  return (event, context) => {
    const session = event.sessionKey ?? context.sessionKey;
    const channel = (context.channelId ?? event.metadata?.provider ?? "").toLowerCase().trim();
    const id = bareId(channel, event.senderId ?? context.senderId ?? event.metadata?.senderId);
    if (!session || !channel || !id) return;
    const sender = {
      channel,
      id,
      account: context.accountId ?? "",
      name: String(event.metadata?.senderName ?? "").slice(0, 64),
      is_owner_claim: false,
    };
    writers.note(session, sender, admission === "gateway");
  };
}
