// What waits for the operator: tool calls, and senders who want in.
import { call } from "./api.js";
import { act } from "./dialogs.js";
import { dateTime, el, seconds, since, value } from "./text.js";
import { onChange, state } from "./state.js";
import { facts } from "./sandbox.js";

const ANSWERED = { APPROVAL_STATE_ALLOWED: "allowed", APPROVAL_STATE_DENIED: "refused", APPROVAL_STATE_USED: "allowed, and used", APPROVAL_STATE_EXPIRED: "expired" };

export function answersView() {
  const waiting = el("div", { class: "cards" });
  const pairings = el("div", { class: "cards" });
  const let_in = el("div");
  const answered = el("div");

  function approvalCard(each) {
    const left = () => Math.max(0, Math.round((seconds(each.expiresAt) ?? 0) - Date.now() / 1000));
    const answer = (allow, button) => act(() => call("Operator/AnswerApproval", { id: each.id, allow }), allow ? "Allowed." : "Refused.", button);
    const title = `approval-${each.id}`;
    return el("article", { class: "card ask", "aria-labelledby": title },
      el("h3", { id: title }, value(each.tool, 64), " in ", value(each.session, 160)),
      el("pre", { class: "parameters", tabindex: "0", "aria-label": "Parameters" }, value(each.summary, 8192)),
      facts([["Sender", each.sender || "unknown"], ["Level", each.level], ["Rule", each.rule], ["Asked", since(seconds(each.createdAt))], ["Refused by itself in", `${left()} s`]]),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "primary", "data-answer": `allow-${each.id}`, "aria-describedby": title, onclick: (event) => answer(true, event.currentTarget) }, "Allow once"),
        el("button", { type: "button", class: "danger", "data-answer": `deny-${each.id}`, "aria-describedby": title, onclick: (event) => answer(false, event.currentTarget) }, "Refuse")));
  }

  function pairingCard(each) {
    const title = `pairing-${each.code}`;
    return el("article", { class: "card ask", "aria-labelledby": title },
      el("h3", { id: title }, value(each.name || each.sender, 160), " wants to be let in"),
      facts([["Sender", `${each.channel}:${each.sender}`], ["Account", each.account], ["Code", each.code], ["Asked", since(seconds(each.createdAt))]]),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "primary", "data-answer": `in-${each.code}`, "aria-describedby": title, onclick: (event) => act(() => call("Operator/ApprovePairing", { code: each.code }), "Let in as a friend.", event.currentTarget) }, "Let in"),
        el("button", { type: "button", class: "danger", "data-answer": `out-${each.code}`, "aria-describedby": title, onclick: (event) => act(() => call("Operator/DenyPairing", { code: each.code }), "Turned down.", event.currentTarget) }, "Turn down")));
  }

  function update() {
    const focused = document.activeElement?.dataset?.answer;
    const open = state.approvals.filter((each) => each.state === "APPROVAL_STATE_PENDING");
    waiting.replaceChildren(...(open.length ? open.map(approvalCard) : [el("p", { class: "hint" }, "No tool call waits for you.")]));
    const codes = state.pairings.filter((each) => each.code);
    pairings.replaceChildren(...(codes.length ? codes.map(pairingCard) : [el("p", { class: "hint" }, "Nobody waits to be let in.")]));
    const inside = state.pairings.filter((each) => !each.code);
    let_in.replaceChildren(inside.length === 0 ? "" : el("section", { class: "card" }, el("h2", {}, "Let in"), el("ul", { class: "lines" }, inside.map((each) =>
      el("li", {}, value(`${each.channel}:${each.sender}`, 160), " ", value(each.name, 120), ` as ${each.level} `,
        el("button", { type: "button", class: "quiet small", "aria-label": `Revoke ${each.channel}:${each.sender}`, onclick: (event) => act(() => call("Operator/DenyPairing", { sender: `${each.channel}:${each.sender}` }), "Revoked.", event.currentTarget) }, "Revoke"))))));
    const past = state.approvals.filter((each) => each.state !== "APPROVAL_STATE_PENDING").reverse().slice(0, 50);
    answered.replaceChildren(past.length === 0 ? "" : el("section", { class: "card" }, el("h2", {}, "Answered in the last day"), el("ul", { class: "lines" }, past.map((each) =>
      el("li", {}, el("span", { class: `badge ${/ALLOWED|USED/.test(each.state) ? "good" : "bad"}` }, ANSWERED[each.state] ?? "answered"), " ",
        value(each.tool, 64), " in ", value(each.session, 160), ": ", el("code", {}, value(each.summary, 200)), el("span", { class: "hint" }, ` ${dateTime(seconds(each.createdAt))}`))))));
    if (focused) document.querySelector(`[data-answer="${CSS.escape(focused)}"]`)?.focus();
  }

  const stop = onChange((what) => {
    if (what.has("approvals") || what.has("pairings")) update();
  });
  const element = el("section", { "aria-labelledby": "title" },
    el("div", { class: "heading" }, el("h1", { id: "title" }, "Waiting for you")),
    el("h2", {}, "Tool calls"), waiting, el("h2", {}, "Pairings"), pairings, let_in, answered);
  update();
  return { element, title: "Waiting for you", close: stop };
}

