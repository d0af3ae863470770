// Which messages reach the model, where the operator lets Creel decide it.

import { bareId } from "./senders.js";

const MAX_TEXT = 4096;

export function createAdmission({ client, ready, writers, log }) {
  return async (event, context) => {
    const channel = (event.channel ?? context.channelId ?? "").toLowerCase();
    const senderId = bareId(channel, event.senderId ?? context.senderId);
    const session = event.sessionKey ?? context.sessionKey ?? "";
    const text = event.content ?? event.body ?? "";
    const sender = {
      channel,
      id: senderId,
      account: context.accountId ?? "",
      name: writers.nameIn(session, channel, senderId),
    };
    try {
      await ready();
      const answer = await client.unary(
        "Admit",
        {
          sender,
          chat_id: bareId(channel, context.conversationId),
          is_group: event.isGroup === true,
          text: text.slice(0, MAX_TEXT),
          is_command: /^\s*\//.test(text),
          session,
        },
        { timeoutMs: 10_000 },
      );
      switch (answer.verdict) {
        case "ADMIT_VERDICT_ADMIT":
          if (session && channel && senderId) writers.note(session, sender);
          return undefined;
        case "ADMIT_VERDICT_PAIR":
          return answer.reply ? { handled: true, text: answer.reply } : { handled: true };
        default:
          log.info(`creel: a message of ${channel} was dropped (${answer.rule}): ${answer.reason}`);
          return { handled: true };
      }
    } catch (error) {
      log.warn(`creel: a message of ${channel} was dropped: ${error.message}`);
      return { handled: true };
    }
  };
}
