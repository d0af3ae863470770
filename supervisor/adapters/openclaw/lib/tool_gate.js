// Every tool call of every session passes here: the supervisor says whether it may run.

import { createHash } from "node:crypto";
import { isCode } from "./errors.js";
import { isMainSession, nameOf, senderOfRequester } from "./senders.js";

// Run in the sandbox where the session has one. What is not listed runs in the gateway.
const SANDBOX_TOOLS = new Set([
  "exec", "process", "read", "write", "edit", "apply_patch", "ls", "find", "grep",
]);
// With these a model finds other tools and has one of them called; that call comes here by itself.
const CATALOG_TOOLS = new Set(["tool_search", "tool_describe", "tool_call"]);
const HOST_PARAMETERS = new Set(["gateway", "node"]);
const MAX_PARAMETERS = 256 << 10;

const block = (blockReason) => ({ block: true, blockReason });

function parametersOf(event) {
  try {
    return JSON.stringify(event.params ?? {});
  } catch {
    return undefined;
  }
}

// `sandboxed(session, agentId)`: whether the gateway would give the session a sandbox.
// `replies`: the reply gate, for what a tool would send.
export function createToolGate({ client, ready, state, sandboxed, replies, log }) {
  const placeOf = (event, context) => {
    if (!SANDBOX_TOOLS.has(event.toolName)) return "PLACE_HOST";
    if (HOST_PARAMETERS.has(event.params?.host) || event.params?.elevated === true) {
      return "PLACE_HOST";
    }
    return sandboxed(context.sessionKey, context.agentId) ? "PLACE_SANDBOX" : "PLACE_HOST";
  };

  // Without the supervisor only the owner's own session goes on, and only for the owner: under
  // `dmScope: main` others land in it too.
  const whileAway = (context, sender, others, error) => {
    const known = (each) => state.levelOf(nameOf(each)) === "owner";
    const owner =
      (context.requester === undefined ||
        context.requester.senderIsOwner === true ||
        (sender !== undefined && known(sender))) &&
      others.every(known);
    if (isMainSession(context.sessionKey) && owner && isCode(error, "UNAVAILABLE")) return undefined;
    log.warn(`creel: a tool call in '${context.sessionKey}' was refused: ${error.message}`);
    return block(
      "Creel's supervisor cannot be asked, so no tool runs in this session until it is back. The operator finds why in the gateway's log.",
    );
  };

  return async (event, context) => {
    const session = context.sessionKey;
    if (!session) {
      return block("This run has no session key, so Creel cannot tell what it may do.");
    }
    if (CATALOG_TOOLS.has(event.toolName)) return undefined;
    const sender = senderOfRequester(context.requester);
    const toolCallId = event.toolCallId ?? context.toolCallId ?? "";
    state.setCall(session, nameOf(sender), toolCallId);
    const parameters = parametersOf(event);
    if (parameters === undefined || Buffer.byteLength(parameters) > MAX_PARAMETERS) {
      return block(`The parameters of '${event.toolName}' are larger than Creel judges.`);
    }
    const call = createHash("sha256")
      .update([session, nameOf(sender) ?? "", event.toolName, parameters].join("\0"))
      .digest("hex");
    const place = placeOf(event, context);
    const others = state.writers.of(session).filter((each) => nameOf(each) !== nameOf(sender));
    let answer;
    try {
      await ready();
      answer = await client.unary(
        "Authorize",
        {
          session,
          sender,
          tool: event.toolName,
          parameters,
          tool_call_id: toolCallId,
          place,
          approval_id: state.approvalOf(call) ?? "",
          also_heard: others,
        },
        { signal: context.abortSignal, timeoutMs: 10_000 },
      );
    } catch (error) {
      return whileAway(context, sender, others, error);
    }
    // With others the level is theirs.
    if (sender !== undefined && answer.level && others.length === 0) {
      state.setLevel(nameOf(sender), answer.level);
    }
    switch (answer.verdict) {
      case "VERDICT_ALLOW":
        state.setApproval(call, undefined);
        break;
      case "VERDICT_ASK":
        state.setApproval(call, answer.approval_id);
        return block(
          `${answer.reason} The operator is asked (creel approvals allow ${answer.approval_id}). Make the same call again when it has been allowed.`,
        );
      default:
        state.setApproval(call, undefined);
        return block(answer.reason || `Creel's policy refuses '${event.toolName}' here.`);
    }
    if (answer.required_place === "PLACE_SANDBOX" && place === "PLACE_HOST") {
      return block(
        `'${event.toolName}' may run only in a sandbox for this sender, and this session runs on the host. (${answer.rule})`,
      );
    }
    if (event.toolName !== "message") return undefined;
    const sent = await replies.parameters(event.params ?? {}, context);
    if (sent?.cancel) return block(`This is not sent: ${sent.cancel}`);
    return sent;
  };
}
