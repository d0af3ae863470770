// The list of sandboxes.
import { Spark } from "./charts.js";
import { ago, bytes, el, setText, value, visible } from "./text.js";
import { HISTORY, onChange, state, STATES } from "./state.js";

const COLUMNS = [
  { name: "session", title: "Session", sort: (row) => row.session },
  { name: "state", title: "State", sort: (row) => row.state },
  { name: "sender", title: "Sender", sort: (row) => row.sender },
  { name: "level", title: "Level", sort: (row) => row.level },
  { name: "image", title: "Image", sort: (row) => row.image },
  { name: "age", title: "Age", sort: (row) => -row.opened },
  { name: "last", title: "Last call", sort: (row) => -row.last },
  { name: "cpu", title: "CPU", sort: (row) => -(row.cpu ?? 0) },
  { name: "memory", title: "Memory", sort: (row) => -(row.memory ?? 0) },
  { name: "disk", title: "Disk", sort: (row) => -(row.disk ?? 0) },
];

export function stateBadge(number) {
  const name = STATES[number] ?? "unknown";
  return el("span", { class: `badge state-${name}` }, name);
}

class Row {
  constructor(id) {
    this.id = id;
    this.link = el("a", { href: `#/sandbox/${encodeURIComponent(id)}` });
    this.sparks = { cpu: new Spark("--graph-1"), memory: new Spark("--graph-2"), disk: new Spark("--graph-3") };
    this.cells = {};
    const cells = COLUMNS.map(({ name, title }) => {
      const text = el("span", { class: "text" });
      const cell = el(name === "session" ? "th" : "td", { scope: name === "session" ? "row" : null, class: `c-${name}`, "data-title": title });
      this.cells[name] = text;
      if (name === "session") cell.append(this.link, el("span", { class: "commands" }));
      else if (this.sparks[name]) cell.append(el("span", { class: "measure" }, this.sparks[name].canvas, text));
      else cell.append(text);
      return cell;
    });
    this.commands = cells[0].querySelector(".commands");
    this.element = el("tr", {}, cells);
    this.shown = {};
  }
  // Only what differs is touched.
  update(row) {
    if (this.row === row) return;
    const { shown } = this;
    if (shown.session !== row.session) {
      this.link.replaceChildren(value(row.session, 160));
      this.link.title = visible(row.session, 512);
    }
    if (shown.state !== row.state || shown.reason !== row.reason) {
      this.cells.state.replaceChildren(stateBadge(row.state));
      this.cells.state.title = visible(row.reason, 300);
    }
    if (shown.sender !== row.sender) this.cells.sender.replaceChildren(row.sender ? value(row.sender, 80) : "–");
    if (shown.level !== row.level) this.cells.level.replaceChildren(row.level ? value(row.level, 40) : "–");
    if (shown.image !== row.image) {
      this.cells.image.replaceChildren(value(row.image, 80));
      this.cells.image.title = visible(row.image, 300);
    }
    setText(this.commands, row.commands > 0 ? `${row.commands} running` : "");
    setText(this.cells.cpu, row.cpu === undefined ? "–" : `${row.cpu.toFixed(row.cpu < 10 ? 1 : 0)} %`);
    setText(this.cells.memory, row.memory === undefined ? "–" : bytes(row.memory));
    setText(this.cells.disk, row.disk === undefined ? "–" : bytes(row.disk));
    this.row = row;
    this.shown = row;
  }
  times(now) {
    setText(this.cells.age, ago(this.row.opened, now));
    setText(this.cells.last, ago(this.row.last, now));
  }
  draw() {
    const history = state.history.get(this.id);
    if (!history) return;
    this.sparks.cpu.draw(history.cpu, Math.max(20, ...history.cpu), HISTORY);
    this.sparks.memory.draw(history.memory, Math.max(32 << 20, ...history.memory), HISTORY);
    this.sparks.disk.draw(history.disk, Math.max(16 << 20, ...history.disk), HISTORY);
  }
}

let sortBy = "session";
let reversed = false;
let filterText = "";

export function sandboxesView() {
  const rows = new Map();
  const seen = new Set();
  const body = el("tbody");
  const heads = new Map();
  const summary = el("p", { class: "summary", id: "summary" });
  const filter = el("input", {
    type: "search", id: "filter", value: filterText, placeholder: "Session, sender, level, state…", autocomplete: "off",
    oninput: () => {
      filterText = filter.value;
      arrange();
    },
  });
  const table = el(
    "table",
    { class: "sandboxes" },
    el("caption", { class: "sr" }, "Sandboxes, each with what it uses now"),
    el(
      "thead",
      {},
      el("tr", {}, COLUMNS.map(({ name, title }) => {
        const head = el("th", { scope: "col", class: `c-${name}` }, el("button", {
          type: "button",
          onclick: () => {
            reversed = sortBy === name ? !reversed : false;
            sortBy = name;
            arrange();
          },
        }, title));
        heads.set(name, head);
        return head;
      })),
    ),
    body,
  );
  const empty = el("p", { class: "hint", hidden: true });
  const eyes = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const row = rows.get(entry.target.dataset.id);
      if (!row) continue;
      if (entry.isIntersecting) {
        seen.add(row);
        row.draw();
      } else {
        seen.delete(row);
      }
    }
  });

  function fits(row) {
    if (!filterText) return true;
    const text = `${row.session} ${row.sender} ${row.level} ${row.image} ${STATES[row.state]} ${row.sandbox}`.toLowerCase();
    return filterText.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  let order = "";
  function arrange() {
    const { sort } = COLUMNS.find((column) => column.name === sortBy);
    const wanted = [...state.rows.entries()].filter(([, row]) => fits(row)).sort(([, a], [, b]) => {
      const x = sort(a);
      const y = sort(b);
      const by = x < y ? -1 : x > y ? 1 : a.session < b.session ? -1 : 1;
      return reversed ? -by : by;
    });
    for (const [name, head] of heads) {
      if (name === sortBy) head.setAttribute("aria-sort", reversed ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const now = wanted.map(([id]) => id).join(" ");
    if (now !== order) {
      order = now;
      const focused = document.activeElement;
      body.replaceChildren(...wanted.map(([id]) => rows.get(id).element));
      if (focused && focused !== document.activeElement && body.contains(focused)) focused.focus();
    }
    empty.hidden = wanted.length > 0;
    setText(empty, state.rows.size === 0
      ? "No sandbox is open. The gateway opens one with a session's first tool call; `creel open SESSION` does too."
      : "No sandbox fits what you look for.");
    const count = (number) => [...state.rows.values()].filter((row) => row.state === number).length;
    const frozen = count(3);
    const lost = count(4);
    setText(summary, `${state.rows.size} ${state.rows.size === 1 ? "sandbox" : "sandboxes"}, ${count(2)} running` +
      `${frozen ? `, ${frozen} frozen` : ""}${lost ? `, ${lost} lost` : ""}`);
  }

  function update() {
    for (const [id, data] of state.rows) {
      let row = rows.get(id);
      if (!row) {
        row = new Row(id);
        row.element.dataset.id = id;
        rows.set(id, row);
        eyes.observe(row.element);
      }
      const fresh = row.row === undefined;
      row.update(data);
      if (fresh) row.times(Date.now() / 1000);
    }
    for (const [id, row] of rows) {
      if (state.rows.has(id)) continue;
      eyes.unobserve(row.element);
      seen.delete(row);
      rows.delete(id);
    }
    arrange();
  }

  let turn = 0;
  const stop = onChange((what) => {
    if (what.has("rows")) update();
    if (what.has("sample")) {
      const now = Date.now() / 1000;
      ++turn;
      for (const row of seen) {
        row.times(now);
        if (turn % 2 === 0) row.draw();
      }
    }
  });
  const element = el(
    "section",
    { "aria-labelledby": "title" },
    el("div", { class: "heading" }, el("h1", { id: "title" }, "Sandboxes"), summary,
      el("div", { class: "field inline" }, el("label", { for: "filter" }, "Filter"), filter)),
    el("div", { class: "card flush" }, table, empty),
  );
  update();
  return {
    element,
    title: "Sandboxes",
    keys: { "/": () => filter.focus() },
    close() {
      stop();
      eyes.disconnect();
    },
  };
}
