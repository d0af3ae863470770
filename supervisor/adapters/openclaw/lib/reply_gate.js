// What is about to leave toward people: the supervisor says what of it may.

import { readersOf, isMainSession } from "./senders.js";
import { isCode } from "./errors.js";

const MAX_TEXT = 1 << 20;
const MAX_TEXTS = 64;
// Fields of a payload that name things for the gateway and are not shown to anybody.
const NOT_SHOWN = /^(?:id|type|kind|style|mediaUrl|mediaUrls|url|callback_data|replyToId|threadId|channelData|audioAsVoice|value)$/;

// The same of the message tool's parameters, which say besides where to and what is attached.
const NOT_SENT = /^(?:action|channel|target|targets|to|accountId|media|path|filePath|buffer|filename|contentType|mimeType|messageId|emoji|guildId|channelId|userId)$/;

// Every text that people would see, as a list of {holder, key} of a copy.
function textsOf(value, skip = NOT_SHOWN, found = [], depth = 0) {
  if (depth > 8 || value === null || typeof value !== "object") return found;
  for (const key of Object.keys(value)) {
    if (NOT_SHOWN.test(key) || skip.test(key)) continue;
    if (typeof value[key] === "string") {
      if (value[key] !== "") found.push({ holder: value, key });
    } else {
      textsOf(value[key], skip, found, depth + 1);
    }
  }
  return found;
}

export function createReplyGate({ client, ready, state, log }) {
  // {cancel} or {text}; never throws.
  const judge = async (text, { session, readers, kind }) => {
    if (Buffer.byteLength(text) > MAX_TEXT) {
      return { cancel: "it is longer than Creel judges" };
    }
    try {
      await ready();
      const answer = await client.unary(
        "CheckReply",
        { session: session ?? "", ...readers, kind, text },
        { timeoutMs: 10_000 },
      );
      switch (answer.verdict) {
        case "REPLY_VERDICT_ALLOW":
          return { text };
        case "REPLY_VERDICT_REDACT":
          log.info(`creel: a reply was masked (${answer.rule}): ${answer.reason}`);
          return { text: answer.text };
        default:
          return { cancel: answer.reason || "Creel's policy holds it back" };
      }
    } catch (error) {
      // The owner's own session goes on without the supervisor; nobody else reads there.
      const owner =
        readers.recipients.length === 0
          ? !readers.others_read
          : readers.recipients.every(({ channel, id }) => state.levelOf(`${channel}:${id}`) === "owner");
      if (isCode(error, "UNAVAILABLE") && session && isMainSession(session) && owner) return { text };
      return { cancel: `Creel's supervisor cannot be asked: ${error.message}` };
    }
  };

  const held = (session, reason) => {
    log.warn(`creel: a reply${session ? ` of '${session}'` : ""} was held back: ${reason}`);
  };

  return {
    // The last word on a payload, media captions and buttons included.
    async payload(event, context) {
      const session = event.sessionKey ?? context.sessionKey;
      const readers = readersOf({
        channel: event.channel ?? context.channelId,
        conversation: context.conversationId,
        senderId: context.senderId,
        session,
      });
      const copy = structuredClone(event.payload);
      const texts = textsOf(copy);
      if (texts.length > MAX_TEXTS) {
        held(session, "it has more parts than Creel judges");
        return { cancel: true, reason: "creel: too many parts" };
      }
      let changed = false;
      for (const { holder, key } of texts) {
        const verdict = await judge(holder[key], { session, readers, kind: "REPLY_KIND_ANSWER" });
        if (verdict.cancel) {
          held(session, verdict.cancel);
          return { cancel: true, reason: `creel: ${verdict.cancel}` };
        }
        changed ||= verdict.text !== holder[key];
        holder[key] = verdict.text;
      }
      return changed ? { payload: copy } : undefined;
    },

    // The message tool's own parameters, of which only the text comes by `message`: captions, buttons
    // and polls do not. {cancel}, {params} where something was masked, or nothing.
    async parameters(params, context) {
      const readers = readersOf({
        channel: params.channel ?? context.requester?.channel,
        conversation: params.target ?? params.to,
        session: context.sessionKey,
      });
      const copy = structuredClone(params);
      const texts = textsOf(copy, NOT_SENT);
      if (texts.length > MAX_TEXTS) return { cancel: "it has more parts than Creel judges" };
      let changed = false;
      for (const { holder, key } of texts) {
        const verdict = await judge(holder[key], { session: context.sessionKey, readers, kind: "REPLY_KIND_MESSAGE" });
        if (verdict.cancel) return verdict;
        changed ||= verdict.text !== holder[key];
        holder[key] = verdict.text;
      }
      return changed ? { params: copy } : undefined;
    },

    // Messages sent by a tool or by the gateway itself. What the payload gate has masked passes.
    async message(event, context) {
      const readers = readersOf({
        channel: context.channelId ?? event.metadata?.channel,
        conversation: event.to || context.conversationId,
        senderId: context.senderId,
        session: context.sessionKey,
      });
      const verdict = await judge(event.content ?? "", {
        session: context.sessionKey,
        readers,
        kind: "REPLY_KIND_MESSAGE",
      });
      if (verdict.cancel) {
        held(context.sessionKey, verdict.cancel);
        return { cancel: true, cancelReason: `creel: ${verdict.cancel}` };
      }
      return verdict.text === event.content ? undefined : { content: verdict.text };
    },
  };
}
