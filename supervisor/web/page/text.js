// What is shown is text: everything from sandboxes, senders and gateways goes through here.

// Characters that show nothing, turn the direction of writing, or steer a terminal.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/gu;

export function visible(text, most = 2000) {
  let all = String(text ?? "");
  const cut = all.length > most;
  if (cut) all = all.slice(0, most);
  all = all.replace(UNSEEN, (c) => `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  return cut ? `${all}…` : all;
}

// An element with attributes, listeners (`onclick`) and children; text is text.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Text of unknown origin, kept from what stands around it.
export function value(text, most) {
  return el("bdi", {}, visible(text, most));
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function bytes(count) {
  let n = Number(count) || 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit + 1 < units.length) {
    n /= 1024;
    ++unit;
  }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

// Seconds since 1970 of one of protobuf's timestamps; null if it is none.
export function seconds(timestamp) {
  const at = Date.parse(timestamp ?? "");
  return Number.isNaN(at) || at <= 0 ? null : at / 1000;
}

export function ago(at, now = Date.now() / 1000) {
  if (!at) return "never";
  const past = Math.max(0, now - at);
  if (past < 1.5) return "now";
  if (past < 60) return `${Math.floor(past)} s`;
  if (past < 3600) return `${Math.floor(past / 60)} min`;
  if (past < 86400) return `${Math.floor(past / 3600)} h`;
  return `${Math.floor(past / 86400)} d`;
}

export function since(at) {
  const past = ago(at);
  return /^[0-9]/.test(past) ? `${past} ago` : past;
}

export function clock(at) {
  return at ? new Date(at * 1000).toLocaleTimeString() : "";
}

export function dateTime(at) {
  return at ? new Date(at * 1000).toLocaleString() : "";
}

// protobuf's durations come as "1.234s".
export function duration(text) {
  const s = parseFloat(text ?? "");
  if (Number.isNaN(s)) return "";
  if (s < 1) return `${(s * 1000).toFixed(s < 0.1 ? 1 : 0)} ms`;
  return s < 60 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

// A command as one would type it.
export function command(spec) {
  if (spec?.shell) return spec.shell;
  return (spec?.argv ?? []).map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

export function exitText(exit) {
  if (!exit) return "runs";
  let text = "ended";
  if (exit.lost) text = "lost";
  else if (exit.startFailure) text = "not started";
  else if (exit.signal) text = `signal ${exit.signal}`;
  else if (exit.code !== undefined) text = `exit ${exit.code}`;
  return exit.timedOut ? `${text}, timed out` : text;
}
