// The supervisor: calls of the operator's services, and what it tells by itself.

const KEY = "creel-key";

export class LoggedOut extends Error {}
export class Failed extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function key() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

async function post(path, body, options = {}) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Creel-Key": key() },
    body: JSON.stringify(body),
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
    ...options,
  });
  if (response.ok) return response;
  let error = {};
  try {
    error = await response.json();
  } catch {
    // Not ours; the status says enough.
  }
  if (response.status === 401) throw new LoggedOut(error.error ?? "log in");
  throw new Failed(error.code ?? String(response.status), error.error ?? `the supervisor said ${response.status}`);
}

export async function logIn(token) {
  const { key: fresh } = await (await post("/login", { token })).json();
  localStorage.setItem(KEY, fresh);
}

export async function logOut() {
  try {
    await post("/logout", {});
  } finally {
    localStorage.removeItem(KEY);
  }
}

export function forget() {
  localStorage.removeItem(KEY);
}

export function hasKey() {
  return key() !== "";
}

// One call, such as `Operator/ThawSession`.
export async function call(method, request = {}) {
  return (await post(`/api/creel.operator.v1.${method}`, request)).json();
}

// Has the browser fetch a bundle.
export async function download(id, sha256) {
  const { url } = await (await post("/ticket", { id, sha256 })).json();
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = "";
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

const QUIET_MS = 13_000;

// What the supervisor tells until `stop()`; comes back by itself. `handlers` has one function for each
// kind of event, which may return a promise: no more is read until it is kept. Besides: `up()`,
// `down(error)` and `out()` when the login has ended.
export function live(request, handlers) {
  let stopped = false;
  let controller = null;
  let timer = null;
  let heard = 0;

  const watchdog = setInterval(() => {
    if (controller && heard && Date.now() - heard > QUIET_MS) controller.abort();
  }, 1000);

  async function run() {
    let pause = 500;
    while (!stopped) {
      controller = new AbortController();
      heard = Date.now();
      try {
        const response = await post("/live", request, { signal: controller.signal });
        handlers.up?.();
        pause = 500;
        await read(response.body.getReader());
      } catch (error) {
        if (stopped) return;
        if (error instanceof LoggedOut) {
          handlers.out?.();
          return;
        }
        handlers.down?.(error);
      }
      if (stopped) return;
      await new Promise((resolve) => {
        timer = setTimeout(resolve, pause);
      });
      pause = Math.min(pause * 2, 3000);
    }
  }

  async function read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      heard = Date.now();
      if (done) throw new Error("the supervisor ended the connection");
      rest += decoder.decode(value, { stream: true });
      let end;
      while (!stopped && (end = rest.indexOf("\n\n")) >= 0) {
        const block = rest.slice(0, end);
        rest = rest.slice(end + 2);
        const newline = block.indexOf("\n");
        const event = block.slice(7, newline);
        const kept = handlers[event]?.(JSON.parse(block.slice(newline + 7)));
        if (kept) {
          heard = 0;
          await kept;
          heard = Date.now();
        }
      }
      if (stopped) return;
    }
  }

  run();
  return {
    stop() {
      stopped = true;
      clearInterval(watchdog);
      clearTimeout(timer);
      controller?.abort();
    },
  };
}
