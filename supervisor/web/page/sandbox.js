// One sandbox: what runs in it, what it says, what it was refused, what got out.
import { call } from "./api.js";
import { Chart } from "./charts.js";
import { act, ask } from "./dialogs.js";
import { OutputTerminal } from "./terminal.js";
import { ago, bytes, clock, command, dateTime, duration, el, exitText, seconds, setText, since, value, visible } from "./text.js";
import { onChange, state } from "./state.js";
import { stateBadge } from "./sandboxes.js";

const FROZEN = 3;
const MOST_CALLS = 200;
const LAST_BYTES = 256 << 10;

// Rows of a name and what it is.
export function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, what]) => what !== null && what !== "").map(([name, what]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, typeof what === "string" ? value(what, 600) : what))));
}

export function table(caption, heads, rows, none) {
  if (rows.length === 0) return el("p", { class: "hint" }, none);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "plain" }, el("caption", { class: "sr" }, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows)));
}

function cells(...all) {
  return el("tr", {}, all.map((each) => el("td", {}, typeof each === "string" ? value(each, 400) : each)));
}

function verdict(good, text) {
  return el("span", { class: `badge ${good ? "good" : "bad"}` }, text);
}

// The calls of a session, as the record tells them: a decision and its end are one line.
class Calls {
  constructor() {
    this.rows = new Map(); // by call
    this.body = el("tbody");
    this.note = el("p", { class: "hint" });
    this.element = el("div", {}, el("div", { class: "scroll calls", tabindex: "0", role: "region", "aria-label": "Tool calls" },
      el("table", { class: "plain" }, el("caption", { class: "sr" }, "Tool calls, newest first"),
        el("thead", {}, el("tr", {}, ["Time", "Tool", "What", "Verdict", "Outcome"].map((head) => el("th", { scope: "col" }, head)))),
        this.body)), this.note);
  }
  take(line) {
    if (!line.event?.startsWith("call.")) return;
    let row = this.rows.get(line.call);
    if (!row) {
      row = { outcome: el("td", {}, ""), verdict: el("td"), what: el("td") };
      this.rows.set(line.call, row);
      row.element = el("tr", {}, el("td", { class: "nowrap", title: visible(line.at) }, clock(Date.parse(line.at) / 1000)),
        el("td", { class: "nowrap" }, value(line.tool, 40)), row.what, row.verdict, row.outcome);
      this.body.prepend(row.element);
      if (this.rows.size > MOST_CALLS) {
        const [oldest, gone] = this.rows.entries().next().value;
        gone.element.remove();
        this.rows.delete(oldest);
      }
    }
    if (line.event === "call.ended") {
      row.outcome.replaceChildren(value(line.outcome, 200), line.us === undefined ? "" : ` (${duration(`${line.us / 1e6}s`)})`);
      return;
    }
    row.what.replaceChildren(value(line.summary, 256));
    const good = line.event === "call.allowed";
    row.verdict.replaceChildren(verdict(good, good ? "allowed" : "refused"));
    row.verdict.title = visible(`${line.rule ?? ""} ${line.reason ?? ""}`, 400);
    if (!good) row.outcome.replaceChildren(value(line.reason, 300));
  }
}

export function sandboxView(id, live) {
  const first = state.rows.get(id);
  if (!first) {
    return {
      title: "Sandbox",
      element: el("section", {}, el("h1", {}, "This sandbox is not open"), el("p", { class: "hint" },
        "It was closed, or made anew with the session's next call. ", el("a", { href: "#/" }, "All sandboxes"))),
      whenFound: () => state.rows.has(id),
      close() {},
    };
  }
  const session = first.session;
  const closers = [];

  const badge = el("span");
  const where = el("p", { class: "summary" });
  const freeze = el("button", { type: "button", class: "danger", id: "freeze" }, "Freeze…");
  const thaw = el("button", { type: "button", class: "primary", id: "thaw" }, "Thaw");
  const close = el("button", { type: "button", class: "quiet" }, "Close…");
  const reason = el("p", { class: "notice", hidden: true });

  freeze.addEventListener("click", async () => {
    const answer = await ask({
      title: "Freeze this sandbox?",
      text: "Every process in it stops where it stands, and its calls are refused until it is thawed.",
      fields: [
        { name: "reason", label: "Reason, for those who meet the refusal", required: true },
        { name: "incident", label: "Open an incident and keep the evidence", type: "checkbox", value: true },
      ],
      yes: "Freeze", danger: true,
    });
    if (!answer) return;
    await act(async () => {
      if (!answer.incident) {
        await call("Operator/FreezeSession", { session, reason: answer.reason });
        return "Frozen.";
      }
      const { incident, problems } = await call("Incidents/OpenIncident", { session, reason: answer.reason });
      location.hash = `#/incident/${encodeURIComponent(incident.id)}`;
      return problems?.length ? `Incident ${incident.id} is open, with problems: ${problems.join("; ")}` : `Frozen; incident ${incident.id} is open.`;
    }, "", freeze);
  });
  thaw.addEventListener("click", () => act(() => call("Operator/ThawSession", { session }), "It goes on.", thaw));
  close.addEventListener("click", async () => {
    const frozen = state.rows.get(id)?.state === FROZEN;
    const answer = await ask({
      title: "Close this session?",
      text: "Its container goes, and a workspace of Creel's own with it." + (frozen ? " It is frozen: its evidence is lost." : ""),
      yes: "Close", danger: true,
    });
    if (answer && (await act(() => call("Operator/CloseSession", { session, force: frozen }), "Closed.", close))) location.hash = "#/";
  });

  // Graphs.
  const charts = {
    cpu: new Chart({ title: "CPU", name: "--graph-1", unit: "percent" }),
    memory: new Chart({ title: "Memory", name: "--graph-2", unit: "bytes", limit: () => state.rows.get(id)?.memoryLimit }),
    disk: new Chart({ title: "Workspace", name: "--graph-3", unit: "bytes", limit: () => state.rows.get(id)?.diskLimit }),
  };

  // Commands and the output of one.
  const list = el("ul", { class: "commands", "aria-label": "Commands" });
  const heading = el("h3", { id: "output-title" }, "Output");
  const ending = el("span", { class: "hint", role: "status" });
  const screen = el("div", { class: "screen", role: "region", "aria-labelledby": "output-title" });
  const output = el("div", { class: "output" }, el("div", { class: "row" }, heading, ending), screen);
  let chosen = null; // a command's id
  let terminal = null;
  let offset = 0;
  let commands = [];

  function connect() {
    live({ session, process: chosen ?? "", offset, lastBytes: offset > 0 ? 0 : LAST_BYTES }, handlers, () => ({
      session, process: chosen ?? "", offset, lastBytes: offset > 0 ? 0 : LAST_BYTES,
    }));
  }

  async function choose(each) {
    chosen = each.processId;
    offset = 0;
    terminal?.close();
    terminal = null;
    screen.replaceChildren();
    setText(ending, "");
    showCommands();
    const mine = chosen;
    const made = await OutputTerminal.open(screen);
    if (mine !== chosen) {
      made.close();
      return;
    }
    terminal = made;
    connect();
  }

  function showCommands() {
    const focused = document.activeElement?.dataset?.command;
    list.replaceChildren(...[...commands].reverse().map((each) => {
      const runs = !each.exit;
      const button = el("button", { type: "button", "aria-pressed": String(each.processId === chosen), "data-command": each.processId, onclick: () => choose(each) },
        el("span", { class: `badge ${runs ? "state-running" : "plain"}` }, exitText(each.exit)),
        el("code", {}, value(command(each.spec), 300)),
        el("span", { class: "hint" }, `${ago(seconds(each.startedAt))} · ${bytes(each.outputEnd)}`));
      return el("li", {}, button);
    }));
    if (commands.length === 0) list.replaceChildren(el("li", { class: "hint" }, "No command ran lately."));
    if (focused) list.querySelector(`[data-command="${CSS.escape(focused)}"]`)?.focus();
  }

  let asking = false;
  async function askCommands() {
    if (asking) return;
    asking = true;
    try {
      const fresh = (await call("Page/ListCommands", { session })).commands ?? [];
      const same = JSON.stringify(fresh.map((each) => [each.processId, each.exit, each.outputEnd])) ===
        JSON.stringify(commands.map((each) => [each.processId, each.exit, each.outputEnd]));
      commands = fresh;
      if (!same || !list.firstChild) showCommands();
      if (!chosen && !closed) {
        const running = commands.filter((each) => !each.exit).at(-1) ?? commands.at(-1);
        if (running) choose(running);
      }
    } catch {
      // The list stays; the link says if the supervisor is gone.
    } finally {
      asking = false;
    }
  }

  // Processes, calls, way out, limits.
  const processes = el("div", {}, el("p", { class: "hint" }, "Looking…"));
  const calls = new Calls();
  const egress = el("div", {}, el("p", { class: "hint" }, "Looking…"));
  const limits = el("div", {}, el("p", { class: "hint" }, "Looking…"));
  const record = el("div", {}, el("p", { class: "hint" }, "Looking…"));

  const handlers = {
    usage(message) {
      processes.replaceChildren(table("Processes", ["PID", "UID", "Command"],
        (message.processes ?? []).map((each) => cells(el("span", { class: "nowrap" }, String(each.pid)), el("span", { class: "nowrap" }, String(each.uid)), el("code", {}, value(each.command, 400)))), "No process is seen."));
    },
    "usage-end"(error) {
      if (error.error) processes.replaceChildren(el("p", { class: "hint" }, visible(error.error, 400)));
    },
    calls({ lines, leftOut }) {
      for (const line of lines) calls.take(line);
      if (leftOut > 0) setText(calls.note, `${leftOut} lines came too fast to be shown; the record has them.`);
      soon();
    },
    async output({ event }) {
      if (!terminal) return;
      if (event.output) {
        const data = Uint8Array.from(atob(event.output.data), (c) => c.charCodeAt(0));
        const at = Number(event.output.offset);
        if (at > offset && offset === 0) await terminal.note(`${bytes(at)} before this are not shown`);
        offset = at + data.length;
        await terminal.write(data);
      } else if (event.gap) {
        offset = Number(event.gap.to);
        await terminal.note(`${bytes(offset - Number(event.gap.from))} came too fast and are not kept`);
      } else if (event.exit) {
        await terminal.note(exitText(event.exit));
        setText(ending, `${exitText(event.exit)} after ${duration(event.exit.elapsed)}`);
        soon();
      } else if (event.started) {
        heading.replaceChildren("Output of ", el("code", {}, value(command(event.started.spec), 120)));
        setText(ending, event.started.exit ? exitText(event.started.exit) : "runs; its output comes as it is made");
      }
    },
    "output-end"(error) {
      if (error.error) setText(ending, visible(error.error, 300));
    },
  };

  let timer = null;
  function soon() {
    timer ??= setTimeout(() => {
      timer = null;
      askCommands();
    }, 700);
  }

  async function askEgress() {
    try {
      // A decision and its end are one line, at the time of the decision.
      const known = new Map();
      for (const each of (await call("Egress/ListEgress", { session, limit: 200 })).records ?? []) {
        const before = known.get(each.number);
        if (!before?.ended) known.set(each.number, { ...each, at: before?.at ?? each.at });
      }
      const records = [...known.values()].reverse();
      egress.replaceChildren(table("Egress decisions", ["Time", "Verdict", "Kind", "Target", "Rule", "Bytes up / down"],
        records.map((each) => {
          const row = cells(clock(seconds(each.at)), verdict(each.allowed, each.allowed ? "allowed" : "refused"), each.kind,
            `${each.method} ${each.target}${each.path}`, each.rule, each.ended ? `${bytes(each.bytesUp)} / ${bytes(each.bytesDown)}` : "–");
          row.title = visible(each.reason, 300);
          return row;
        }), "It has not asked for anything outside."));
    } catch (error) {
      egress.replaceChildren(el("p", { class: "hint" }, visible(error.message, 300)));
    }
  }

  async function askDetails() {
    try {
      const all = await call("Operator/InspectSession", { session });
      const told = all.details.session;
      limits.replaceChildren(
        facts([
          ["Sandbox", told.sandboxId], ["Container", told.containerId.slice(0, 12)], ["Image", told.image],
          ["Runtime", told.runtime || "the engine's default"], ["Workspace", told.workspace || `Creel's own, ${all.workspaceBound}`],
          ["Tools run as", `${all.toolUid}:${all.toolGid}`], ["Shim", all.shimVersion],
          ["Opened", dateTime(seconds(told.openedAt))], ["Specification", all.specHash.slice(0, 16)],
        ]),
        el("h3", {}, "Limits"), facts(Object.entries(all.limits ?? {}).sort()),
        el("h3", {}, "Mounts"),
        table("Mounts", ["In the sandbox", "On the host", ""], (all.mounts ?? []).map((each) =>
          cells(each.target, each.source || "tmpfs", el("span", { class: "nowrap" }, each.readOnly ? "read-only" : "writable"))), "None."),
        (all.droppedPeers ?? []).length > 0 ? el("h3", {}, "Dropped peers") : "",
        (all.droppedPeers ?? []).length > 0
          ? table("Dropped peers", ["When", "Why"], all.droppedPeers.map((each) => cells(dateTime(seconds(each.at)), each.reason)), "") : "",
      );
    } catch (error) {
      limits.replaceChildren(el("p", { class: "hint" }, visible(error.message, 300)));
    }
  }

  async function askRecord() {
    try {
      const since = new Date(Date.now() - 24 * 3600 * 1000).toISOString();
      const { messages } = await call("Record/ReadRecord", { session, limit: 200, since });
      const lines = messages.flatMap((each) => each.lines ?? []).map((each) => JSON.parse(each.json));
      for (const line of lines) calls.take(line);
      record.replaceChildren(table("Record of the last day", ["Time", "Event", "What"], lines.reverse().slice(0, 200).map((line) => {
        const { seq, prev, hash, at, event, session: _, sandbox, container, ...rest } = line;
        const row = cells(dateTime(Date.parse(at) / 1000), event, Object.entries(rest).map(([key, what]) => `${key}=${what}`).join("  "));
        row.title = `record ${seq}`;
        return row;
      }), "Nothing is written of it."));
    } catch (error) {
      record.replaceChildren(el("p", { class: "hint" }, visible(error.message, 300)));
    }
  }

  function update() {
    const row = state.rows.get(id);
    if (!row) {
      badge.replaceChildren(el("span", { class: "badge plain" }, "closed"));
      for (const button of [freeze, thaw, close]) button.disabled = true;
      return;
    }
    badge.replaceChildren(stateBadge(row.state));
    where.replaceChildren("Sender ", row.sender ? value(row.sender, 120) : "unknown", " · level ", value(row.level || "–", 60),
      ` · opened ${since(row.opened)} · last call ${since(row.last)}`);
    freeze.hidden = row.state === FROZEN;
    thaw.hidden = row.state !== FROZEN;
    reason.hidden = !row.reason;
    reason.replaceChildren(value(row.reason, 600));
  }
  function draw() {
    const history = state.history.get(id);
    if (!history) return;
    charts.cpu.draw(history.at, history.cpu);
    charts.memory.draw(history.at, history.memory);
    charts.disk.draw(history.at, history.disk);
  }

  let turn = 0;
  let closed = false;
  closers.push(onChange((what) => {
    if (what.has("rows")) update();
    if (what.has("theme")) {
      for (const chart of Object.values(charts)) chart.remake();
      terminal?.retheme();
      draw();
    }
    if (!what.has("sample")) return;
    ++turn;
    draw();
    update();
    if (turn % 3 === 0) askCommands();
    if (turn % 3 === 1) askEgress();
    if (turn % 10 === 0) askDetails();
  }));
  update();
  askCommands();
  askEgress();
  askDetails();
  askRecord();
  setTimeout(draw, 50);
  connect();

  const card = (title, ...inside) => el("section", { class: "card" }, el("h2", {}, title), inside);
  const more = el("details", { class: "card" }, el("summary", {}, el("h2", {}, "Record of the last day")), record);
  more.addEventListener("toggle", () => more.open && askRecord());
  const element = el("section", { "aria-labelledby": "title" },
    el("p", { class: "crumb" }, el("a", { href: "#/" }, "Sandboxes")),
    el("div", { class: "heading" }, el("h1", { id: "title" }, value(session, 300)), badge,
      el("div", { class: "actions" }, freeze, thaw, close)),
    where, reason,
    el("div", { class: "charts" }, charts.cpu.element, charts.memory.element, charts.disk.element),
    el("div", { class: "split" },
      el("div", {}, card("Commands", el("div", { class: "console" }, list, output)), card("Tool calls", calls.element), card("What got out, and what was refused", egress), more),
      el("div", {}, card("Processes", processes), card("Limits and mounts", limits))));
  return {
    element,
    title: visible(session, 120),
    close() {
      closed = true;
      clearTimeout(timer);
      for (const closer of closers) closer();
      terminal?.close();
      for (const chart of Object.values(charts)) chart.remake();
      live({}, {});
    },
  };
}
