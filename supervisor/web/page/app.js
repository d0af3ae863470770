// The frame of the page: which view is shown, who is logged in, and whether the supervisor is there.
import { call, forget, hasKey, live, logIn, logOut } from "./api.js";
import { act, ask } from "./dialogs.js";
import { answersView } from "./answers.js";
import { doctorView } from "./doctor.js";
import { incidentsView, incidentView } from "./incidents.js";
import { sandboxView } from "./sandbox.js";
import { sandboxesView } from "./sandboxes.js";
import { clock, el, setText, value, visible } from "./text.js";
import { onChange, sample, state, take, tell, waiting } from "./state.js";
import { themeNow } from "./terminal.js";

const view = document.getElementById("view");
const nav = document.getElementById("nav");
const tools = document.getElementById("tools");
const banners = document.getElementById("banners");
let shown = null;
let stream = null;
let request = {};
let handlers = {};
let refresh = null;

const TABS = [
  ["#/", "Sandboxes"],
  ["#/answers", "Waiting for you"],
  ["#/incidents", "Incidents"],
  ["#/doctor", "Doctor"],
];

// The one connection, told what this view wants besides. `again` says what to ask for when it is made
// anew.
function want(wanted, more, again) {
  request = wanted;
  handlers = more;
  refresh = again ?? null;
  connect();
}

function connect() {
  stream?.stop();
  if (!hasKey() || document.hidden) {
    stream = null;
    return;
  }
  const mine = handlers;
  stream = live(request, {
    ...mine,
    state: take,
    ping() {
      state.heardAt = Date.now() / 1000;
    },
    up() {
      setLink(true);
    },
    down() {
      setLink(false);
      if (refresh) Object.assign(request, refresh());
    },
    out: loggedOut,
  });
}

function setLink(up) {
  if (state.linked === up) return;
  state.linked = up;
  tell(new Set(["link"]));
}

function frame() {
  const link = document.getElementById("link");
  const gone = !state.linked && state.heardAt > 0;
  link.className = `link ${state.linked ? "up" : "down"}`;
  setText(document.getElementById("link-text"), state.linked ? "live" : gone ? "gone" : "connecting");
  const everywhere = state.switches.find((each) => !each.level && !each.session);
  const button = document.getElementById("read-only");
  button.setAttribute("aria-pressed", String(Boolean(everywhere)));
  setText(button, `Read-only: ${everywhere ? "on" : "off"}`);
  const count = waiting();
  const badge = nav.querySelector('[href="#/answers"] .count');
  if (badge) {
    badge.hidden = count === 0;
    setText(badge, String(count));
  }
  const open = state.incidents.filter((each) => each.state === "open");
  const opened = nav.querySelector('[href="#/incidents"] .count');
  if (opened) {
    opened.hidden = open.length === 0;
    setText(opened, String(open.length));
  }
  const notes = [];
  if (gone) {
    notes.push(el("p", { class: "banner bad", role: "alert" }, el("strong", {}, "The supervisor does not answer. "),
      `What you see is from ${clock(state.heardAt)}; the page goes on by itself when it is back.`));
  }
  for (const each of state.switches) {
    notes.push(el("p", { class: "banner warn" }, el("strong", {}, "Read-only mode"),
      each.session ? el("span", {}, " for session ", value(each.session, 160)) : each.level ? el("span", {}, " for level ", value(each.level, 60)) : " for everyone",
      each.reason ? el("span", {}, ": ", value(each.reason, 256)) : ""));
  }
  const text = notes.map((each) => each.textContent).join("\n");
  if (banners.dataset.text !== text) {
    banners.dataset.text = text;
    banners.replaceChildren(...notes);
  }
}

function show(next) {
  shown?.close();
  shown = next;
  view.replaceChildren(next.element);
  document.title = `${next.title} – Creel`;
  for (const link of nav.querySelectorAll("a")) {
    const here = location.hash || "#/";
    const current = link.getAttribute("href") === here ||
      (here.startsWith("#/sandbox/") && link.getAttribute("href") === "#/") ||
      (here.startsWith("#/incident/") && link.getAttribute("href") === "#/incidents");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function route() {
  const hash = location.hash || "#/";
  if (hash.startsWith("#login=")) {
    redeem(hash.slice(7));
    return;
  }
  if (!hasKey()) {
    loggedOut();
    return;
  }
  nav.hidden = tools.hidden = false;
  const sandbox = /^#\/sandbox\/(.+)$/.exec(hash);
  const incident = /^#\/incident\/(.+)$/.exec(hash);
  if (sandbox) show(sandboxView(decodeURIComponent(sandbox[1]), want));
  else if (incident) show(incidentView(decodeURIComponent(incident[1])));
  else if (hash === "#/answers") show(answersView());
  else if (hash === "#/incidents") show(incidentsView());
  else if (hash === "#/doctor") show(doctorView());
  else show(sandboxesView());
  if (!stream) connect();
}

async function redeem(token) {
  // The address works once: it need not stay in the history.
  history.replaceState(null, "", "#/");
  try {
    await logIn(token);
    route();
    view.focus();
  } catch (error) {
    loggedOut(error.message);
  }
}

function loggedOut(why) {
  forget();
  stream?.stop();
  stream = null;
  setLink(false);
  state.heardAt = 0;
  nav.hidden = tools.hidden = true;
  banners.replaceChildren();
  banners.dataset.text = "";
  shown?.close();
  stream?.stop();
  stream = null;
  shown = null;
  document.title = "Log in – Creel";
  view.replaceChildren(el("section", { class: "login card", "aria-labelledby": "title" },
    el("h1", { id: "title" }, "Log in"),
    typeof why === "string" ? el("p", { class: "notice", role: "alert" }, visible(why, 300)) : null,
    el("p", {}, "On the host, type"), el("pre", {}, "creel page"),
    el("p", {}, "and open the address that it prints. It logs one browser in, once, within five minutes.")));
}

for (const [href, title] of TABS) nav.append(el("a", { href }, title, el("span", { class: "count", hidden: true })));
window.addEventListener("hashchange", () => {
  route();
  view.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
document.getElementById("log-out").addEventListener("click", async () => {
  try {
    await logOut();
  } catch {
    // It was gone already.
  }
  loggedOut("You are logged out.");
});
document.getElementById("theme").addEventListener("click", () => {
  const next = themeNow() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("creel-theme", next);
  tell(new Set(["theme"]));
});
document.getElementById("read-only").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  const on = button.getAttribute("aria-pressed") !== "true";
  const answer = await ask(on
    ? { title: "Switch read-only mode on?", text: "For everyone: no shell, no write outside a sandbox's scratch, no messages of its own accord. What runs is ended.", fields: [{ name: "reason", label: "Reason, for those who meet it", required: true }], yes: "Switch on", danger: true }
    : { title: "Switch read-only mode off?", text: "Tools work again as the rules say.", yes: "Switch off" });
  if (answer) await act(() => call("Operator/SetReadOnly", { on, reason: answer.reason ?? "" }), on ? "Read-only mode is on." : "Read-only mode is off.", button);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "")) return;
  const key = shown?.keys?.[event.key];
  if (key) {
    event.preventDefault();
    key();
  }
});
// A page that nobody sees costs nothing.
let hiding = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => {
      stream?.stop();
      stream = null;
    }, 30_000);
  } else if (!stream && hasKey()) {
    connect();
  }
});
onChange((what) => {
  if (["link", "readOnly", "approvals", "pairings", "incidents"].some((each) => what.has(each))) frame();
  // A sandbox that was not known when its view was opened.
  if (what.has("rows") && shown?.whenFound?.()) route();
});
setInterval(sample, 1000);
route();
