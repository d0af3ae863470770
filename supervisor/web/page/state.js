// What the supervisor last told of itself, and who wants to know.

export const HISTORY = 90;

export const state = {
  rows: new Map(), // by sandbox
  history: new Map(), // by sandbox: { at: [], cpu: [], memory: [], disk: [] }
  approvals: [],
  pairings: [],
  switches: [],
  incidents: [],
  linked: false,
  heardAt: 0,
};

const listeners = new Set();

export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function tell(what = new Set()) {
  for (const listener of listeners) listener(what);
}

// Takes a `state` event; tells what has changed.
export function take(frame) {
  const changed = new Set();
  if (frame.full) state.rows.clear();
  for (const [id, row] of Object.entries(frame.rows)) {
    state.rows.set(id, row);
    changed.add("rows");
  }
  for (const id of frame.gone) {
    state.rows.delete(id);
    state.history.delete(id);
    changed.add("rows");
  }
  if (frame.full) changed.add("rows");
  if (frame.approvals) {
    state.approvals = frame.approvals.approvals ?? [];
    changed.add("approvals");
  }
  if (frame.pairings) {
    state.pairings = frame.pairings.pairings ?? [];
    changed.add("pairings");
  }
  if (frame.readOnly) {
    state.switches = frame.readOnly.switches ?? [];
    changed.add("readOnly");
  }
  if (frame.incidents) {
    state.incidents = frame.incidents.incidents ?? [];
    changed.add("incidents");
  }
  state.heardAt = Date.now() / 1000;
  tell(changed);
}

// Once a second: graphs go on even where nothing changes.
export function sample() {
  if (!state.linked) return;
  const now = Date.now() / 1000;
  for (const [id, row] of state.rows) {
    if (row.memory === undefined) continue;
    let history = state.history.get(id);
    if (!history) {
      history = { at: [], cpu: [], memory: [], disk: [] };
      state.history.set(id, history);
    }
    history.at.push(now);
    history.cpu.push(row.cpu ?? 0);
    history.memory.push(row.memory ?? 0);
    history.disk.push(row.disk ?? 0);
    if (history.at.length > HISTORY) {
      for (const series of Object.values(history)) series.shift();
    }
  }
  for (const id of state.history.keys()) if (!state.rows.has(id)) state.history.delete(id);
  tell(new Set(["sample"]));
}

export function waiting() {
  return (
    state.approvals.filter((each) => each.state === "APPROVAL_STATE_PENDING").length +
    state.pairings.filter((each) => each.code).length
  );
}

export const STATES = ["unknown", "opening", "running", "frozen", "lost", "closing"];
