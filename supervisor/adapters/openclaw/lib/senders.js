// Who is who, in the supervisor's terms.

const GROUP_KINDS = /:(?:group|channel|room|thread|topic|guild|space):/;

export function isMainSession(session) {
  return /^agent:[^:]+:main$/.test(session);
}

export function isGroupSession(session) {
  return GROUP_KINDS.test(`${session}:`);
}

// The gateway writes an id with or without its channel in front.
export function bareId(channel, id) {
  const text = String(id ?? "").trim();
  return channel && text.toLowerCase().startsWith(`${channel}:`)
    ? text.slice(channel.length + 1)
    : text;
}

// From the gateway's requester of a tool call; undefined where it names none.
export function senderOfRequester(requester) {
  const channel = requester?.channel?.toLowerCase().trim();
  const id = bareId(channel, requester?.senderId);
  if (!channel || !id) return undefined;
  return {
    channel,
    id,
    account: requester.accountId ?? "",
    is_owner_claim: requester.senderIsOwner === true,
  };
}

// The one who speaks in a session of direct messages, `channel:id`; undefined for any other. The
// gateway gives such a key to the sandbox of a direct message even where it keeps the conversation in
// the main session (`dmScope: main`), under which the tool call was judged.
export function peerOfSession(session) {
  const found = /^agent:[^:]+:([^:]+)(?::[^:]+)?:(?:direct|dm):(.+)$/.exec(session);
  return found ? `${found[1].toLowerCase()}:${bareId(found[1].toLowerCase(), found[2])}` : undefined;
}

export function nameOf(sender) {
  return sender && `${sender.channel}:${sender.id}`;
}

// Who reads what goes to this conversation, as far as it is known: a direct message has one reader,
// a group has others whom nobody named.
export function readersOf({ channel, conversation, senderId, session }) {
  const name = (channel ?? "").toLowerCase().trim();
  const to = bareId(name, conversation);
  const group =
    (session !== undefined && isGroupSession(session)) ||
    // Telegram's groups have negative numbers; other channels say so in words.
    /^-\d/.test(to) ||
    /^(?:group|channel|room|topic|supergroup):/i.test(to) ||
    /@g\.us$/i.test(to);
  const id = group ? "" : bareId(name, to.replace(/^(?:direct|dm|user|private):/i, "")) || bareId(name, senderId);
  return {
    recipients: name && id ? [{ channel: name, id }] : [],
    others_read: group,
  };
}
