// Who may not: other origins, other names, no token, old tokens.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, before, test } from "node:test";
import { Browser } from "./support/browser.mjs";
import { api, eventually, logIn, request, World } from "./support/world.mjs";

const SESSION = "agent:main:whatsapp:group:doors";
let world;
let login;

before(async () => {
  world = await World.start();
  await world.creel("open", SESSION);
  login = await logIn(world);
});
after(() => world?.stop());

const frozen = async () => (await world.supervisor.sessions())[0].state === "SESSION_STATE_FROZEN";
const FREEZE = { method: "POST", path: "/api/creel.operator.v1.Operator/FreezeSession", body: JSON.stringify({ session: SESSION, reason: "an attack" }) };

test("the cookie is for nobody's script and no other site; what is served runs nothing else", async () => {
  assert.match(login.setCookie, /; HttpOnly; SameSite=Strict; Path=\//);
  const page = await request(world.port);
  assert.equal(page.status, 200);
  const policy = page.headers["content-security-policy"];
  assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'self';/);
  assert.match(policy, /require-trusted-types-for 'script'/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.equal(page.headers["x-frame-options"], "DENY");
  assert.doesNotMatch(page.text, /<script(?![^>]*src=)|<style|\son\w+=|style=/i, "nothing inline");
  assert.doesNotMatch(page.text, /(src|href)="(https?:)?\/\//, "nothing from elsewhere");
});

test("every request that is not the page's own is refused, and does nothing", async (t) => {
  const own = login.headers;
  const rows = [
    ["no login", { Cookie: null, "X-Creel-Key": null }, 401],
    ["the cookie without the page's key, as another server on this host would see it", { "X-Creel-Key": null }, 401],
    ["the key without the cookie", { Cookie: null }, 401],
    ["a wrong key", { "X-Creel-Key": "0".repeat(64) }, 401],
    ["a wrong cookie", { Cookie: own.Cookie.replace(/=.*/, `=${"0".repeat(64)}`) }, 401],
    ["two cookies of the name", { Cookie: `${own.Cookie}; ${own.Cookie}` }, 401],
    ["another origin", { Origin: "http://evil.test" }, 403],
    ["another port of this host", { Origin: `http://127.0.0.1:${world.port + 1}` }, 403],
    ["our name below another", { Origin: `${world.base}.evil.test` }, 403],
    ["no origin", { Origin: null }, 403],
    ["an opaque origin", { Origin: "null" }, 403],
    ["the origin of another of our names", { Origin: `http://localhost:${world.port}` }, 403],
    ["what a browser calls cross-site", { "Sec-Fetch-Site": "cross-site" }, 403],
    ["what a browser calls same-site", { "Sec-Fetch-Site": "same-site" }, 403],
    ["another Host", { Host: "evil.test" }, 421],
    ["another Host with our port", { Host: `evil.test:${world.port}` }, 421],
    ["a Host without the port", { Host: "127.0.0.1" }, 421],
    ["no Host", { Host: null }, 421],
    ["a form's content", { "Content-Type": "text/plain" }, 415],
    ["a form's other content", { "Content-Type": "application/x-www-form-urlencoded" }, 415],
  ];
  for (const [what, change, status] of rows) {
    await t.test(what, async () => {
      const answer = await request(world.port, { ...FREEZE, headers: { ...own, ...change } });
      // Without a Host HTTP/1.1 itself may be refused.
      assert.ok(answer.status === status || (change.Host === null && answer.status === 400), `${answer.status} ${answer.text}`);
      assert.equal(await frozen(), false);
    });
  }
  for (const method of ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
    const answer = await request(world.port, { ...FREEZE, method, headers: own });
    assert.ok(answer.status >= 400, `${method}: ${answer.status}`);
    assert.equal(answer.headers["access-control-allow-origin"], undefined);
  }
  assert.equal(await frozen(), false);
  // All of these were for want of one thing only.
  assert.equal((await request(world.port, { ...FREEZE, headers: own })).status, 200);
  assert.equal(await frozen(), true);
  assert.equal((await api(world, login, "Operator/ThawSession", { session: SESSION })).status, 200);
});

test("reading is refused likewise", async () => {
  for (const path of ["/live", "/ticket", "/logout", "/api/creel.operator.v1.Operator/ListSessions", "/api/creel.operator.v1.Record/GetRecordKey"]) {
    for (const change of [{ Cookie: null }, { "X-Creel-Key": null }, { Origin: "http://evil.test" }, { Host: "evil.test" }]) {
      const answer = await request(world.port, { method: "POST", path, headers: { ...login.headers, ...change }, body: "{}" });
      assert.ok([401, 403, 421].includes(answer.status), `${path} ${JSON.stringify(change)}: ${answer.status}`);
    }
  }
  assert.equal((await request(world.port, { path: "/metrics", headers: { Host: "evil.test" } })).status, 421);
  assert.equal((await request(world.port, { path: "/metrics", headers: { Origin: "http://evil.test" } })).status, 403);
  for (const path of ["/bundle/x", "/bundle/../../etc/shadow", "/..%2f..%2fetc/passwd", "/page.css/../../x", "//evil.test/", "/nothing", "/api/creel.operator.v1.Operator/ListSessions"]) {
    assert.equal((await request(world.port, { path, headers: login.headers })).status, 404, path);
  }
});

test("only what operator.sock serves can be called, with what it takes", async () => {
  for (const [method, status] of [
    ["Operator/Nothing", 404], ["Operator/", 404], ["", 404], ["../gateway.v1.Gateway/Exec", 404],
  ]) assert.equal((await request(world.port, { method: "POST", path: `/api/creel.operator.v1.${method}`, headers: login.headers, body: "{}" })).status, status, method);
  for (const path of ["/api/creel.gateway.v1.Gateway/ListSessions", "/api/grpc.health.v1.Health/Check", "/api/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]) {
    assert.equal((await request(world.port, { method: "POST", path, headers: login.headers, body: "{}" })).status, 404, path);
  }
  for (const body of ["[]", "null", '{"session": 5, "nothing": true}', "{", `{"session": "${"x".repeat(10_000)}"}`, "\u0000"]) {
    const answer = await request(world.port, { ...FREEZE, headers: login.headers, body });
    assert.ok(answer.status >= 400 && answer.status < 500, `${body.slice(0, 40)}: ${answer.status} ${answer.text}`);
  }
  assert.equal((await request(world.port, { ...FREEZE, headers: login.headers, body: "x".repeat(400 << 10) })).status, 413);
  // A login makes no others.
  assert.equal((await api(world, login, "Page/OpenPage")).status, 403);
  assert.equal(await frozen(), false);
  // The record's key for who is the page cannot be claimed at the socket or by headers.
  assert.equal((await request(world.port, { ...FREEZE, headers: { ...login.headers, "creel-page-by": "somebody else" } })).status, 200);
  await api(world, login, "Operator/ThawSession", { session: SESSION });
  const acts = await world.creel("audit", "show", "--json", "-n", "0", "--event", "operator.act");
  assert.doesNotMatch(acts, /somebody else/);
});

test("whoever opens connections without a login does not keep the operator out", async () => {
  const idle = [];
  try {
    for (let i = 0; i < 300; ++i) {
      const socket = net.connect(world.port, "127.0.0.1");
      socket.on("error", () => {});
      idle.push(socket);
      await new Promise((resolve) => socket.once("connect", resolve));
    }
    for (let i = 0; i < 5; ++i) {
      const { status } = await api(world, login, "Operator/ListSessions", {});
      assert.equal(status, 200);
    }
    assert.equal((await request(world.port, { path: "/metrics" })).status, 200);
  } finally {
    for (const socket of idle) socket.destroy();
  }
});

test("a token is good once, and old ones are not", async () => {
  const again = await request(world.port, { method: "POST", path: "/login", headers: { "Content-Type": "application/json", Origin: world.base }, body: JSON.stringify({ token: login.token }) });
  assert.equal(again.status, 401);
  assert.equal(again.headers["set-cookie"], undefined);
  const fresh = new URL(await world.address()).hash.slice("#login=".length);
  for (const change of [{ Origin: "http://evil.test" }, { Origin: null }, { Host: "evil.test" }]) {
    const answer = await request(world.port, { method: "POST", path: "/login", headers: { "Content-Type": "application/json", Origin: world.base, ...change }, body: JSON.stringify({ token: fresh }) });
    assert.ok([403, 421].includes(answer.status), `${answer.status}`);
  }
  for (const token of ["", "x", fresh.slice(1), fresh.toUpperCase(), 5, null, [fresh]]) {
    const answer = await request(world.port, { method: "POST", path: "/login", headers: { "Content-Type": "application/json", Origin: world.base }, body: JSON.stringify({ token }) });
    assert.equal(answer.status, 401, String(token));
  }
  const other = await logIn(world);
  assert.equal((await api(world, other, "Operator/GetInfo")).status, 200);
  await request(world.port, { method: "POST", path: "/logout", headers: other.headers, body: "{}" });
  assert.equal((await api(world, other, "Operator/GetInfo")).status, 401);
  // All at once, from the host; addresses that wait go too.
  const waiting = new URL(await world.address()).hash.slice("#login=".length);
  await world.creel("page", "--close");
  assert.equal((await api(world, login, "Operator/GetInfo")).status, 401);
  assert.equal((await request(world.port, { method: "POST", path: "/login", headers: { "Content-Type": "application/json", Origin: world.base }, body: JSON.stringify({ token: waiting }) })).status, 401);
  login = await logIn(world);
  assert.match(await world.creel("audit", "show", "--json", "-n", "0", "--event", "operator.act"), /PageLogin failed/);
});

test("a page that is open is told nothing more once its login has ended", async () => {
  const listen = async (who) => {
    const heard = { bytes: 0, ended: false };
    await new Promise((resolve, reject) => {
      const call = http.request({ host: "127.0.0.1", port: world.port, method: "POST", path: "/live", setHost: false, headers: { Host: `127.0.0.1:${world.port}`, ...who.headers } }, (response) => {
        assert.equal(response.statusCode, 200);
        response.on("data", (piece) => {
          heard.bytes += piece.length;
          resolve();
        });
        response.on("error", () => {});
        response.on("close", () => (heard.ended = true));
      });
      call.on("error", reject);
      call.end("{}");
    });
    return heard;
  };
  const leaving = await logIn(world);
  const left = await listen(leaving);
  const stays = await listen(login);
  await request(world.port, { method: "POST", path: "/logout", headers: leaving.headers, body: "{}" });
  await eventually("the one that was left ends", async () => left.ended, 10_000);
  assert.equal(stays.ended, false);
  await world.creel("page", "--close");
  await eventually("all end", async () => stays.ended, 10_000);
  login = await logIn(world);
});

test("a download is good once, and for the bundle it was made for", async () => {
  const opened = await api(world, login, "Incidents/OpenIncident", { session: SESSION, reason: "a test" });
  assert.equal(opened.status, 200);
  const id = opened.body.incident.id;
  await eventually("a bundle", async () => (await api(world, login, "Incidents/GetIncident", { id })).body.incident.bundles.length > 0);
  const ticket = async (body) => request(world.port, { method: "POST", path: "/ticket", headers: login.headers, body: JSON.stringify(body) });
  assert.equal((await ticket({ id: "../1" })).status, 404);
  assert.equal((await ticket({ id, sha256: "0".repeat(64) })).status, 404);
  const { url, bytes } = JSON.parse((await ticket({ id })).text);
  const { Cookie } = login.headers;
  assert.equal((await request(world.port, { path: url, headers: { Cookie, Host: "evil.test" } })).status, 421);
  assert.equal((await request(world.port, { path: url, headers: { Cookie, "Sec-Fetch-Site": "cross-site" } })).status, 403);
  const other = await logIn(world);
  for (const change of [{}, { Cookie: other.headers.Cookie }]) {
    assert.equal((await request(world.port, { path: url, headers: change })).status, 404, "without the cookie it was made for");
  }
  const got = await request(world.port, { path: url, headers: { Cookie } });
  assert.equal(got.status, 200);
  assert.equal(got.headers["content-length"], String(bytes));
  assert.match(got.headers["content-disposition"], /^attachment; filename="incident-1-\d+\.tar\.zst"$/);
  assert.equal((await request(world.port, { path: url, headers: { Cookie } })).status, 404);
  const late = JSON.parse((await request(world.port, { method: "POST", path: "/ticket", headers: other.headers, body: JSON.stringify({ id }) })).text);
  await request(world.port, { method: "POST", path: "/logout", headers: other.headers, body: "{}" });
  assert.equal((await request(world.port, { path: late.url, headers: { Cookie: other.headers.Cookie } })).status, 404, "its login has ended");
  await api(world, login, "Incidents/ThawIncident", { id });
});

test("in a browser: another origin's page gets nothing done, nor does a name bound to this address", { timeout: 200_000 }, async () => {
  // A page of another server on this very host: the same site for cookies, another origin.
  const evil = http.createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<!doctype html><title>evil</title><body>evil</body>"));
  await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
  const evilPort = evil.address().port;
  const browser = await Browser.start({ args: ["--host-resolver-rules=MAP rebound.test 127.0.0.1"] });
  try {
    const page = await browser.open(await world.address());
    await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
    const attacker = await browser.context.newPage();
    for (const origin of [`http://127.0.0.1:${evilPort}`, `http://rebound.test:${evilPort}`]) {
      await attacker.goto(`${origin}/`);
      const done = await attacker.evaluate(async ([base, path, body]) => {
        const tries = {};
        const attempt = async (name, doing) => {
          try {
            tries[name] = await doing();
          } catch (error) {
            tries[name] = `error: ${error.name}`;
          }
        };
        const url = base + path;
        await attempt("json", async () => (await fetch(url, { method: "POST", body, credentials: "include", headers: { "Content-Type": "application/json" } })).status);
        await attempt("plain", async () => (await fetch(url, { method: "POST", body, credentials: "include", mode: "no-cors", headers: { "Content-Type": "text/plain" } })).type);
        await attempt("read", async () => (await fetch(`${base}/metrics`, { credentials: "include" })).text());
        await attempt("image", () => new Promise((resolve) => Object.assign(new Image(), { src: url, onload: () => resolve("loaded"), onerror: () => resolve("error") })));
        await attempt("script", () => new Promise((resolve) => document.head.append(Object.assign(document.createElement("script"), { src: `${base}/app.js`, type: "module", onload: () => resolve("loaded"), onerror: () => resolve("error") }))));
        await attempt("events", () => new Promise((resolve) => {
          const events = new EventSource(`${base}/live`, { withCredentials: true });
          events.onopen = () => resolve("open");
          events.onerror = () => resolve("error");
        }));
        await attempt("socket", () => new Promise((resolve) => Object.assign(new WebSocket(`${base.replace("http", "ws")}/live`), { onopen: () => resolve("open"), onerror: () => resolve("error") })));
        await attempt("frame", () => new Promise((resolve) => {
          const frame = document.body.appendChild(document.createElement("iframe"));
          frame.onload = () => {
            try {
              resolve(frame.contentDocument ? "readable" : "opaque");
            } catch {
              resolve("opaque");
            }
          };
          frame.src = base;
        }));
        await attempt("form", () => new Promise((resolve) => {
          const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { name: "target" }));
          const form = document.body.appendChild(Object.assign(document.createElement("form"), { method: "POST", action: url, enctype: "text/plain", target: "target" }));
          form.append(Object.assign(document.createElement("input"), { name: body.slice(0, -1) + ',"x":"', value: '"}' }));
          frame.onload = () => resolve("sent");
          form.submit();
          setTimeout(() => resolve("late"), 3000);
        }));
        return tries;
      }, [world.base, FREEZE.path, FREEZE.body]);
      assert.equal(done.json, "error: TypeError");
      assert.equal(done.read, "error: TypeError");
      assert.equal(done.image, "error");
      assert.equal(done.script, "error");
      assert.equal(done.events, "error");
      assert.equal(done.socket, "error");
      assert.notEqual(done.frame, "readable");
      assert.equal(await frozen(), false, `${origin}: ${JSON.stringify(done)}`);
    }
    // Rebinding: a foreign name that leads here. The browser takes it for that name's own server.
    const rebound = await attacker.goto(`http://rebound.test:${world.port}/`);
    assert.equal(rebound.status(), 421);
    const inside = await attacker.evaluate(async ([path, body]) => {
      const answer = await fetch(path, { method: "POST", body, credentials: "include", headers: { "Content-Type": "application/json" } });
      const metrics = await fetch("/metrics");
      return [answer.status, metrics.status];
    }, [FREEZE.path, FREEZE.body]);
    assert.deepEqual(inside, [421, 421]);
    assert.equal(await frozen(), false);
    // The page itself goes on.
    await page.bringToFront();
    await page.getByRole("link", { name: SESSION }).click();
    await page.getByRole("button", { name: "Freeze…" }).waitFor();
  } finally {
    await browser.stop();
    evil.close();
  }
});
