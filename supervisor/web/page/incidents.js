// Incidents: what stands still, what was kept of it, and its end.
import { call, download } from "./api.js";
import { act, ask } from "./dialogs.js";
import { bytes, dateTime, duration, el, seconds, setText, since, value, visible } from "./text.js";
import { onChange, state } from "./state.js";
import { facts, table } from "./sandbox.js";

const STATES = { open: "bad", thawed: "good", torn_down: "plain" };
const SAID = { open: "open", thawed: "thawed", torn_down: "taken down" };

function badge(incident) {
  return el("span", { class: `badge ${STATES[incident.state] ?? "plain"}` }, SAID[incident.state] ?? visible(incident.state, 40));
}

export function incidentsView() {
  const list = el("div", { class: "card" });
  const all = el("button", { type: "button", class: "danger", id: "freeze-all" }, "Freeze everything…");
  all.addEventListener("click", async () => {
    const answer = await ask({
      title: "Freeze everything?",
      text: "Every sandbox stops where it stands, no call gets through, and the evidence is kept.",
      fields: [{ name: "reason", label: "Reason, for those who meet the refusal", required: true }],
      yes: "Freeze everything", danger: true,
    });
    if (!answer) return;
    await act(async () => {
      const { incident } = await call("Incidents/OpenIncident", { all: true, reason: answer.reason });
      location.hash = `#/incident/${encodeURIComponent(incident.id)}`;
      return `Incident ${incident.id} is open.`;
    }, "", all);
  });
  function update() {
    const rows = [...state.incidents].reverse().map((each) => el("tr", {},
      el("th", { scope: "row" }, el("a", { href: `#/incident/${encodeURIComponent(each.id)}` }, `Incident ${visible(each.id, 20)}`)),
      el("td", {}, badge(each)), el("td", {}, value(each.scope, 160)), el("td", {}, value(each.reason, 200)),
      el("td", {}, since(seconds(each.openedAt))), el("td", {}, String(each.sandboxes?.length ?? 0)), el("td", {}, String(each.bundles?.length ?? 0))));
    list.replaceChildren(table("Incidents", ["Incident", "State", "About", "Reason", "Opened", "Sandboxes", "Bundles"], rows,
      "There has been no incident. Freezing a sandbox opens one, with its evidence."));
  }
  const stop = onChange((what) => what.has("incidents") && update());
  update();
  return {
    title: "Incidents",
    element: el("section", { "aria-labelledby": "title" },
      el("div", { class: "heading" }, el("h1", { id: "title" }, "Incidents"), el("div", { class: "actions" }, all)), list),
    close: stop,
  };
}

export function incidentView(id) {
  const head = el("div", { class: "heading" });
  const about = el("div");
  const sandboxes = el("div");
  const bundles = el("div");
  const timeline = el("ol", { class: "timeline" });
  const progress = el("progress", { "aria-label": "Collecting the evidence", hidden: true });
  const capture = el("button", { type: "button", id: "capture" }, "Capture now");
  const thaw = el("button", { type: "button", class: "primary", id: "thaw-incident" }, "Thaw");
  const teardown = el("button", { type: "button", class: "danger" }, "Take down…");
  const report = el("button", { type: "button", class: "quiet" }, "Report");
  const note = el("p", { class: "hint", role: "status" });

  capture.addEventListener("click", async () => {
    progress.hidden = false;
    setText(note, "Collecting the evidence…");
    await act(async () => {
      const { bundle } = await call("Incidents/CaptureIncident", { id });
      return `The evidence is kept: ${bytes(bundle.bytes)} in ${bundle.members} members.`;
    }, "", capture);
    progress.hidden = true;
    setText(note, "");
    story();
  });
  thaw.addEventListener("click", async () => {
    if (await act(() => call("Incidents/ThawIncident", { id }), "Everything that it froze goes on.", thaw)) story();
  });
  teardown.addEventListener("click", async () => {
    const answer = await ask({
      title: `Take incident ${id} down?`,
      text: "Its sandboxes are removed with their workspaces. The evidence stays.",
      fields: [{ name: "without", label: "Although no evidence was kept", type: "checkbox" }],
      yes: "Take down", danger: true,
    });
    if (answer && (await act(() => call("Incidents/TeardownIncident", { id, withoutEvidence: answer.without }), "Taken down.", teardown))) story();
  });
  report.addEventListener("click", () => act(async () => {
    const { text } = await call("Incidents/ReportIncident", { id, format: "REPORT_FORMAT_MARKDOWN" });
    const url = URL.createObjectURL(new Blob([text], { type: "text/markdown" }));
    const anchor = el("a", { href: url, download: `incident-${id.replace(/\W/g, "")}.md` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    return "The report is downloaded.";
  }, "", report));

  async function story() {
    const incident = state.incidents.find((each) => each.id === id);
    if (!incident) return;
    try {
      const began = new Date((seconds(incident.openedAt) - 300) * 1000).toISOString();
      const questions = [{ incident: id }, ...(incident.sandboxes ?? []).slice(0, 5).map((each) => ({ session: each.session, since: began, limit: 100 }))];
      const answers = await Promise.all(questions.map((each) => call("Record/ReadRecord", each)));
      const lines = new Map();
      for (const { messages } of answers) {
        for (const each of messages.flatMap((message) => message.lines ?? [])) {
          const line = JSON.parse(each.json);
          lines.set(line.seq, line);
        }
      }
      timeline.replaceChildren(...[...lines.values()].sort((a, b) => a.seq - b.seq).slice(-300).map((line) => {
        const what = [line.tool, line.summary, line.outcome, line.reason, line.detail, line.act].filter(Boolean).join(" · ");
        return el("li", { class: line.event.startsWith("incident.") ? "mark" : null },
          el("time", { datetime: line.at }, dateTime(Date.parse(line.at) / 1000)), " ", el("strong", {}, value(line.event, 60)),
          line.session ? el("span", { class: "hint" }, " ", value(line.session, 120)) : null, what ? el("div", {}, value(what, 500)) : null);
      }));
    } catch (error) {
      timeline.replaceChildren(el("li", { class: "hint" }, visible(error.message, 300)));
    }
  }

  function update() {
    const incident = state.incidents.find((each) => each.id === id);
    if (!incident) {
      head.replaceChildren(el("h1", { id: "title" }, "There is no such incident"));
      return;
    }
    if (!head.firstChild || head.dataset.state !== incident.state) {
      head.dataset.state = incident.state;
      const focused = document.activeElement?.id;
      head.replaceChildren(el("h1", { id: "title" }, `Incident ${visible(id, 20)}`), badge(incident), el("div", { class: "actions" }, capture, thaw, teardown, report));
      if (focused) document.getElementById(focused)?.focus();
    }
    thaw.hidden = teardown.hidden = incident.state !== "open";
    capture.hidden = incident.state === "torn_down";
    about.replaceChildren(facts([
      ["Reason", incident.reason], ["About", incident.scope], ["Opened", dateTime(seconds(incident.openedAt))],
      ["Ended", incident.endedAt ? dateTime(seconds(incident.endedAt)) : ""], ["Gate shut after", duration(incident.gateTook)],
      ["All still after", duration(incident.freezeTook)], ["Gateway", incident.gatewayStop],
    ]));
    sandboxes.replaceChildren(table("Sandboxes of this incident", ["Session", "Sender", "How it stands still"], (incident.sandboxes ?? []).map((each) =>
      el("tr", {}, el("td", {}, el("a", { href: `#/sandbox/${encodeURIComponent(each.sandboxId)}` }, value(each.session, 160))), el("td", {}, value(each.sender || "–", 80)),
        el("td", {}, each.method ? value(each.method, 40) : el("span", { class: "badge bad" }, `not frozen: ${visible(each.error, 200)}`)))), "None."));
    const focused = document.activeElement?.dataset?.bundle;
    bundles.replaceChildren(table("Bundles of evidence", ["Made", "Size", "Members", "SHA-256", ""], (incident.bundles ?? []).map((each) =>
      el("tr", {}, el("td", {}, dateTime(seconds(each.madeAt))), el("td", {}, bytes(each.bytes)), el("td", {}, String(each.members)),
        el("td", {}, el("code", { class: "hash" }, visible(each.sha256, 64)), each.leftOut?.length ? el("details", {}, el("summary", {}, `${each.leftOut.length} left out`), el("ul", {}, each.leftOut.map((what) => el("li", {}, value(what, 300))))) : null),
        el("td", {}, el("button", { type: "button", "data-bundle": each.sha256, "aria-label": `Download the bundle made ${dateTime(seconds(each.madeAt))}`, onclick: (event) => act(() => download(id, each.sha256), "The download begins.", event.currentTarget) }, "Download")))),
    incident.state === "open" ? "Being collected, or not asked for; “Capture now” collects it." : "None."));
    if (focused) bundles.querySelector(`[data-bundle="${CSS.escape(focused)}"]`)?.focus();
  }

  const stop = onChange((what) => {
    if (!what.has("incidents")) return;
    update();
    story();
  });
  update();
  story();
  return {
    title: `Incident ${visible(id, 20)}`,
    element: el("section", { "aria-labelledby": "title" },
      el("p", { class: "crumb" }, el("a", { href: "#/incidents" }, "Incidents")), head, progress, note,
      el("section", { class: "card" }, about),
      el("section", { class: "card" }, el("h2", {}, "Evidence"), bundles,
        el("p", { class: "hint" }, "Check a bundle on any machine: ", el("code", {}, "creel-verify bundle FILE --key KEY"), "; ", el("code", {}, "creel audit key"), " prints the key.")),
      el("section", { class: "card" }, el("h2", {}, "Sandboxes"), sandboxes),
      el("section", { class: "card" }, el("h2", {}, "Timeline"), timeline)),
    close: stop,
  };
}
