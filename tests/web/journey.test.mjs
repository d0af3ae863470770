// What an operator does with the page, with the mouse and with the keyboard alone.

import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { Gateway } from "./support/load.mjs";
import { axe, Browser, screenshot } from "./support/browser.mjs";
import { eventually, request, VERIFY, World } from "./support/world.mjs";
import { run } from "../e2e/support/process.mjs";

const ALPHA = "agent:main:whatsapp:group:alpha";
const BETA = "agent:main:telegram:dm:beta";
const ASK = "agent:main:whatsapp:group:ask";
const BUSY = "i=0; while :; do i=$((i+1)); printf '\\033[32mline\\033[0m %s\\n' $i; sleep 0.2; done";

let world;
let browser;
let outside; // a service of this host
const clean = (page) => {
  assert.deepEqual(page.seen.foreign, [], "a request went elsewhere");
  assert.deepEqual(page.seen.errors, [], "the page had errors");
};
const noViolations = async (page, what) => assert.equal(await axe(page, what), "");

before(async () => {
  outside = http.createServer((_, response) => response.end("hello"));
  await new Promise((resolve) => outside.listen(0, "127.0.0.1", resolve));
  world = await World.start({
    friends: ["whatsapp:+15555550123", "telegram:42"],
    config: `rules:\n  ask-first: {tools: [exec], sessions: ["*:ask"], verdict: ask}\n  no-removing: {tools: [remove], verdict: deny, reason: "nothing is removed here"}\napprovals: {timeout: 10m}\negress: {services: [{name: greeter, url: "http://127.0.0.1:${outside.address().port}", levels: [friend], allow: [{path: /hello}]}]}\n`,
  });
  const busy = [world.start(ALPHA, BUSY, ["--sender", "whatsapp:+15555550123"]), world.start(BETA, BUSY, ["--sender", "telegram:42"])];
  browser = await Browser.start();
  await eventually("both sandboxes run something", async () => {
    for (const each of busy) assert.equal(each.child.exitCode, null, each.err());
    return (await world.supervisor.sessions()).filter((each) => each.processes > 0).length === 2;
  });
});
after(async () => {
  await browser?.stop();
  await world?.stop();
  outside?.close();
});

const row = (page, session) => page.getByRole("row").filter({ has: page.getByRole("link", { name: session }) });
const terminalText = (page) => page.evaluate(() => document.querySelector(".xterm-rows, .xterm-screen")?.textContent ?? "");

test("by mouse: log in, see two at work, watch one, answer, freeze, capture, download, thaw", { timeout: 600_000 }, async () => {
  const page = await browser.open(await world.address());
  await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
  assert.equal(await page.evaluate(() => location.hash), "#/", "the token does not stay in the address");
  for (const session of [ALPHA, BETA]) {
    await row(page, session).getByText("running", { exact: true }).waitFor();
    await row(page, session).getByText("1 running").waitFor();
    await eventually("memory is shown", async () => /MiB|KiB/.test(await row(page, session).locator(".c-memory").innerText()));
  }
  assert.match(await row(page, ALPHA).innerText(), /whatsapp:\+15555550123/);
  // The graphs move.
  await page.waitForTimeout(4000);
  const drawn = await row(page, ALPHA).locator("canvas").nth(1).evaluate((canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v !== 0));
  assert.ok(drawn, "a line is drawn");
  await noViolations(page, "sandboxes");
  await screenshot(page, "sandboxes");

  await page.getByRole("link", { name: ALPHA }).click();
  await page.getByRole("heading", { name: ALPHA }).waitFor();
  await eventually("output is shown", async () => /line \d+/.test(await terminalText(page)));
  const number = async () => Math.max(...[...(await terminalText(page)).matchAll(/line (\d+)/g)].map((each) => Number(each[1])));
  const first = await number();
  await eventually("more output arrives", async () => (await number()) > first + 5);
  await page.getByRole("region", { name: "Processes" }).getByText("sleep").first().waitFor();
  await page.getByRole("region", { name: "Tool calls" }).getByText("allowed").first().waitFor();
  // A call that comes now is seen now, and so is one that is refused.
  const soon = world.start(ALPHA, "echo just now");
  await page.getByRole("region", { name: "Tool calls" }).getByText("just now").first().waitFor();
  await soon.ended;
  await page.getByText("/run/creel").first().waitFor();
  await page.waitForTimeout(2500);
  await noViolations(page, "sandbox");
  await screenshot(page, "sandbox");

  // An approval.
  const asked = world.start(ASK, "echo it was allowed");
  const tab = page.getByRole("link", { name: /Waiting for you/ });
  await tab.getByText("1", { exact: true }).waitFor();
  await tab.click();
  const card = page.getByRole("article").filter({ hasText: ASK });
  await card.getByText("it was allowed").waitFor();
  await noViolations(page, "answers");
  await screenshot(page, "answers");
  await card.getByRole("button", { name: "Allow once" }).click();
  assert.equal(await asked.ended, 0);
  assert.match(asked.out(), /it was allowed/);
  const refused = world.start(ASK, "echo it was refused");
  await page.getByRole("article").filter({ hasText: "it was refused" }).getByRole("button", { name: "Refuse" }).click();
  assert.notEqual(await refused.ended, 0);
  assert.doesNotMatch(refused.out(), /it was refused/);

  // Freeze, with the evidence.
  await page.getByRole("link", { name: "Sandboxes" }).click();
  await page.getByRole("link", { name: BETA }).click();
  await page.getByRole("button", { name: "Freeze…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel(/Reason/).fill("it asks for odd things");
  await noViolations(page, "freeze dialog");
  await screenshot(page, "freeze");
  await dialog.getByRole("button", { name: "Freeze" }).click();
  await page.getByRole("heading", { name: "Incident 1" }).waitFor();
  await eventually("it is frozen", async () => /frozen/.test(JSON.stringify((await world.supervisor.sessions()).find((each) => each.session === BETA)).toLowerCase()));
  const download = page.getByRole("button", { name: /Download the bundle/ });
  await download.first().waitFor();
  const before_ = await download.count();
  await page.getByRole("button", { name: "Capture now" }).click();
  await eventually("another bundle", async () => (await download.count()) > before_);
  await page.getByText("incident.opened").waitFor();
  await page.waitForTimeout(1000);
  await noViolations(page, "incident");
  await screenshot(page, "incident");
  const [bundle] = await Promise.all([page.waitForEvent("download"), download.last().click()]);
  const file = path.join(world.dir, "mouse.tar.zst");
  await bundle.saveAs(file);
  await verifyBundle(file);
  await page.getByRole("button", { name: "Thaw", exact: true }).click();
  await page.getByText("thawed", { exact: true }).first().waitFor();
  await eventually("it runs again", async () => (await world.supervisor.sessions()).find((each) => each.session === BETA).state === "SESSION_STATE_RUNNING");

  await page.getByRole("link", { name: "Doctor" }).click();
  await page.getByText(/findings want a look|All is as it should be/).waitFor();
  await noViolations(page, "doctor");
  await screenshot(page, "doctor");

  // Read-only mode stops what runs, says so, and ends.
  await page.getByRole("button", { name: "Read-only: off" }).click();
  await page.getByRole("dialog").getByLabel(/Reason/).fill("until we know more");
  await page.getByRole("dialog").getByRole("button", { name: "Switch on" }).click();
  await page.getByText("until we know more").waitFor();
  await page.getByRole("button", { name: "Read-only: on" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Switch off" }).click();
  await page.getByRole("button", { name: "Read-only: off" }).waitFor();
  await page.getByRole("link", { name: "Incidents" }).click();
  await page.getByRole("link", { name: "Incident 1" }).waitFor();
  await noViolations(page, "incidents");
  clean(page);

  // Who did it stands in the record.
  const acts = (await world.creel("audit", "show", "--json", "-n", "0", "--event", "operator.act")).trim().split("\n").map((each) => JSON.parse(each));
  const by = (act) => acts.filter((each) => each.act === act).map((each) => each.by);
  for (const act of ["OpenIncident", "AnswerApproval", "CaptureIncident", "OpenBundle", "ThawIncident", "SetReadOnly", "PageLogin"]) {
    assert.ok(by(act).length > 0 && by(act).every((each) => /^page [0-9a-f]{6} from 127\.0\.0\.1$/.test(each)), `${act} was told as done by ${by(act)}`);
  }
  assert.deepEqual([...new Set(by("OpenPage"))], ["operator.sock"]);
});

async function verifyBundle(file) {
  const key = path.join(world.dir, "key.pem");
  fs.writeFileSync(key, await world.creel("audit", "key"));
  const verified = await run([VERIFY, "bundle", file, "--key", key], { env: { PATH: process.env.PATH } });
  assert.equal(verified.code, 0, `${verified.out}${verified.err}`);
}

test("by keyboard alone, in the dark", { timeout: 600_000 }, async () => {
  const page = await browser.open(await world.address());
  await page.emulateMedia({ colorScheme: "dark" });
  await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
  world.start(ALPHA, BUSY);
  const focused = () => page.evaluate(() => (document.activeElement?.textContent || document.activeElement?.getAttribute("aria-label") || document.activeElement?.id || "").trim());
  // Tab until something is focused whose text fits.
  const tabTo = async (pattern, most = 120) => {
    const seen = [];
    for (let i = 0; i < most; ++i) {
      await page.keyboard.press("Tab");
      seen.push(await focused());
      if (pattern.test(seen.at(-1))) return;
    }
    assert.fail(`Tab does not lead to ${pattern}, but to ${JSON.stringify(seen.slice(0, 40).map((each) => each.slice(0, 40)))}`);
  };
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "filter");
  await page.keyboard.type("alpha");
  await eventually("the filter works", async () => (await page.locator("tbody tr").count()) === 1);
  await tabTo(new RegExp(ALPHA));
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: ALPHA }).waitFor();
  await eventually("output is shown", async () => /line \d+/.test(await terminalText(page)));
  await noViolations(page, "sandbox, dark");
  await screenshot(page, "sandbox-dark");

  const asked = world.start(ASK, "echo by keyboard");
  await page.getByRole("link", { name: /Waiting for you\s*1/ }).waitFor();
  await tabTo(/^Waiting for you/);
  await page.keyboard.press("Enter");
  await page.getByText("by keyboard").first().waitFor();
  await tabTo(/^Allow once$/);
  await page.keyboard.press("Enter");
  assert.equal(await asked.ended, 0);

  await tabTo(/^Sandboxes$/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Sandboxes" }).waitFor();
  await screenshot(page, "sandboxes-dark");
  await tabTo(new RegExp(ALPHA));
  await page.keyboard.press("Enter");
  await tabTo(/^Freeze…$/);
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.match(await page.evaluate(() => document.activeElement.name), /reason/, "the dialog takes the focus");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.match(await focused(), /^Freeze…$/, "and gives it back");
  await page.keyboard.press("Enter");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Incident 2" }).waitFor();
  await page.getByRole("button", { name: /Download the bundle/ }).first().waitFor();
  await tabTo(/^Capture now$/);
  await page.keyboard.press("Enter");
  await eventually("another bundle", async () => (await page.getByRole("button", { name: /Download the bundle/ }).count()) > 1);
  await tabTo(/^Download$/);
  const [bundle] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  const file = path.join(world.dir, "keyboard.tar.zst");
  await bundle.saveAs(file);
  await verifyBundle(file);
  await noViolations(page, "incident, dark");
  await screenshot(page, "incident-dark");
  await tabTo(/^Thaw$/);
  await page.keyboard.press("Enter");
  await eventually("it runs again", async () => (await world.supervisor.sessions()).find((each) => each.session === ALPHA).state === "SESSION_STATE_RUNNING");
  clean(page);
  await page.close();
});

test("who wants in is let in or turned down; what got out and what was refused is seen", { timeout: 300_000 }, async () => {
  const gateway = new Gateway(`${world.dir}/run/gateway.sock`);
  const knock = async (id, name) => (await gateway.call("Admit", { sender: { channel: "signal", id, name }, chat_id: id, text: "hello" })).verdict;
  assert.equal(await knock("+15555550777", "Mario"), "ADMIT_VERDICT_PAIR");
  assert.equal(await knock("+15555550666", "Bowser"), "ADMIT_VERDICT_PAIR");
  const page = await browser.open(await world.address());
  await page.getByRole("link", { name: /Waiting for you\s*2/ }).click();
  const card = (name) => page.getByRole("article").filter({ hasText: name });
  await card("Mario").getByRole("button", { name: "Let in" }).waitFor();
  await noViolations(page, "pairings");
  await screenshot(page, "pairings");
  // By keyboard, whatever comes meanwhile.
  await card("Mario").getByRole("button", { name: "Let in" }).focus();
  assert.equal(await knock("+15555550888", "Luigi"), "ADMIT_VERDICT_PAIR");
  await card("Luigi").waitFor();
  await page.keyboard.press("Enter");
  await card("Mario").waitFor({ state: "detached" });
  await card("Bowser").getByRole("button", { name: "Turn down" }).click();
  await card("Bowser").waitFor({ state: "detached" });
  assert.equal(await knock("+15555550777", "Mario"), "ADMIT_VERDICT_ADMIT");
  assert.notEqual(await knock("+15555550666", "Bowser"), "ADMIT_VERDICT_ADMIT");
  await page.getByRole("button", { name: /Revoke signal:\+15555550777/ }).click();
  await eventually("Mario is out again", async () => (await knock("+15555550777", "Mario")) !== "ADMIT_VERDICT_ADMIT");
  gateway.close();

  const out = await world.creel("exec", ALPHA, "--", "sh", "-c", "curl -s http://greeter.creel/hello; curl -s http://greeter.creel/other >/dev/null; curl -s https://refused.test/; true");
  assert.equal(out, "hello");
  await page.getByRole("link", { name: "Sandboxes" }).click();
  await page.getByRole("link", { name: ALPHA }).click();
  const decisions = page.getByRole("region", { name: "Egress decisions" });
  const decided = (target) => decisions.getByRole("row").filter({ hasText: target });
  await decided("greeter").filter({ hasText: "/hello" }).getByText("allowed", { exact: true }).waitFor();
  await decided("greeter").filter({ hasText: "/other" }).getByText("refused", { exact: true }).waitFor();
  await decided("refused.test").getByText("refused", { exact: true }).waitFor();
  await noViolations(page, "egress");
  await screenshot(page, "egress");
  const metrics = (await request(world.port, { path: "/metrics" })).text;
  for (const [series, least] of [['creel_egress_requests_total{kind="service",verdict="allow"}', 1], ['creel_egress_requests_total{kind="service",verdict="deny"}', 1], ['creel_egress_requests_total{kind="tunnel",verdict="deny"}', 1]]) {
    const line = metrics.split("\n").find((each) => each.startsWith(`${series} `));
    assert.ok(Number(line?.split(" ").at(-1)) >= least, `${series}: ${line}`);
  }
  clean(page);
  await page.close();
});

test("on a phone; and a supervisor that goes away comes back by itself", { timeout: 300_000 }, async () => {
  const page = await browser.open(await world.address());
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByRole("link", { name: ALPHA }).waitFor();
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth + 1);
  await page.waitForTimeout(1500);
  assert.equal(await wide(), false, "the list fits the screen");
  await screenshot(page, "phone-sandboxes");
  await page.getByRole("link", { name: ALPHA }).click();
  await page.getByRole("heading", { name: ALPHA }).waitFor();
  await page.waitForTimeout(2500);
  assert.equal(await wide(), false, "a sandbox fits the screen");
  await page.locator(".screen").scrollIntoViewIfNeeded();
  await eventually("output is shown", async () => /line \d+/.test(await terminalText(page)));
  await noViolations(page, "phone");
  await screenshot(page, "phone-sandbox");

  await world.supervisor.process.stop("SIGKILL");
  await page.getByText("The supervisor does not answer.").waitFor();
  await screenshot(page, "phone-gone");
  await world.supervisor.begin();
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByText("The supervisor does not answer.").waitFor({ state: "detached" });
  await page.getByRole("link", { name: /^Sandboxes/ }).first().click();
  await page.getByRole("link", { name: BETA }).waitFor();
  // The login outlived the restart; it ends when it is told to.
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await noViolations(page, "log in");
  await screenshot(page, "login");
  clean(page);
});
