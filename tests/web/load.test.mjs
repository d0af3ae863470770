// Many sandboxes at work, and what an open page costs then. Real containers; CREEL_WEB_SANDBOXES says
// how many.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, screenshot } from "./support/browser.mjs";
import { Gateway, steadily } from "./support/load.mjs";
import { cpuSeconds, cpuSecondsOf, eventually, treeMemory, World } from "./support/world.mjs";

const SANDBOXES = Number(process.env.CREEL_WEB_SANDBOXES ?? 200);
const CALLS = 100;
const SENDERS = 40;
const sender = (i) => `whatsapp:${i}`;
let world;
let gateway;
const name = (i) => `agent:main:whatsapp:group:load-${String(i).padStart(3, "0")}`;

before(async () => {
  world = await World.start({ friends: Array.from({ length: SENDERS }, (_, i) => sender(i)) });
  gateway = new Gateway(`${world.dir}/run/gateway.sock`);
  let next = 0;
  const began = Date.now();
  await Promise.all(Array.from({ length: 6 }, async () => {
    while (next < SANDBOXES) {
      const i = next++;
      await gateway.call("OpenSession", { context: { session: name(i), sender: sender(i % SENDERS) } });
    }
  }));
  console.log(`${SANDBOXES} sandboxes opened in ${((Date.now() - began) / 1000).toFixed(0)} s`);
}, { timeout: 900_000 });
after(async () => {
  gateway?.close();
  await world?.stop();
}, { timeout: 900_000 });

test(`${SANDBOXES} sandboxes with ${CALLS} calls a second: the page costs little in the supervisor and in the browser`, { timeout: 600_000 }, async () => {
  const load = steadily(CALLS, (i) => gateway.call("Stat", { context: { session: name(i % SANDBOXES) }, args: { path: Buffer.from("/workspace") } }));
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const measure = async (seconds) => {
    const at = Date.now();
    const all = cpuSeconds(world.pid);
    const web = cpuSecondsOf(world.pid, "creel-web");
    await sleep(seconds * 1000);
    const passed = (Date.now() - at) / 1000;
    return { all: (cpuSeconds(world.pid) - all) / passed, web: (cpuSecondsOf(world.pid, "creel-web") - web) / passed };
  };
  await sleep(3000);
  const without = [await measure(10)];
  const browser = await Browser.start();
  try {
    const page = await browser.open(await world.address());
    await page.getByText(`${SANDBOXES} sandboxes`).waitFor();
    // What is not measured yet costs nothing.
    const began = Date.now();
    const measured = () => page.evaluate(() => [...document.querySelectorAll(".c-memory")].filter((each) => /[KM]iB/.test(each.textContent)).length);
    await eventually("all are measured", async () => (await measured()) === SANDBOXES);
    console.log(`all are measured ${((Date.now() - began) / 1000).toFixed(0)} s after the page was opened`);
    await sleep(5000);
    const withPage = [await measure(15)];
    await screenshot(page, "many-sandboxes");
    const list = treeMemory(browser.pid);
    await page.getByRole("link", { name: name(7) }).click();
    await page.getByRole("heading", { name: name(7) }).waitFor();
    await sleep(4000);
    const one = await measure(8);
    await page.getByRole("link", { name: "Sandboxes" }).first().click();
    await page.getByText(`${SANDBOXES} sandboxes`).waitFor();
    const heap = await page.evaluate(() => performance.memory.usedJSHeapSize);
    const renderer = await rendererMemory(browser);
    const idleBrowser = await rendererMemory(browser, true);
    await page.goto("about:blank");
    await sleep(2000);
    without.push(await measure(10));
    const share = (each) => `${(each * 100).toFixed(1)} %`;
    const mean = (list_, what) => list_.reduce((sum, each) => sum + each[what], 0) / list_.length;
    const cost = mean(withPage, "all") - mean(without, "all");
    const { made, failed, last, seconds } = load.stop();
    console.log(`${made} calls in ${seconds.toFixed(0)} s, ${failed} failed`);
    console.log(`supervisor without a page ${without.map((each) => share(each.all)).join(" and ")} of a core, with the list ${share(withPage[0].all)}, with one sandbox ${share(one.all)}`);
    console.log(`the page's own threads: ${share(withPage[0].web)} with the list, ${share(one.web)} with one sandbox; the difference of all: ${share(cost)}`);
    console.log(`browser: the page's process ${(renderer / 1e6).toFixed(0)} MB (an empty one ${(idleBrowser / 1e6).toFixed(0)} MB), its heap ${(heap / 1e6).toFixed(0)} MB, all processes ${(list / 1e6).toFixed(0)} MB`);
    assert.equal(failed, 0, String(last));
    assert.ok(made / seconds > CALLS * 0.9, `only ${(made / seconds).toFixed(0)} calls a second`);
    assert.ok(cost < 0.05, `the page costs ${share(cost)} of a core`);
    assert.ok(renderer < 200e6, `the page takes ${(renderer / 1e6).toFixed(0)} MB`);
  } finally {
    load.stop();
    await browser.stop();
  }
});

// Of the largest process that shows a page: the page's.
async function rendererMemory(browser, smallest = false) {
  const { default: fs } = await import("node:fs");
  const sizes = [];
  for (const each of fs.readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const line = fs.readFileSync(`/proc/${each}/cmdline`, "utf8");
      if (!line.includes("--type=renderer") || !isBelow(fs, Number(each), browser.pid)) continue;
      sizes.push(Number(/Pss:\s+(\d+)/.exec(fs.readFileSync(`/proc/${each}/smaps_rollup`, "utf8"))[1]) * 1024);
    } catch {
      // It ended meanwhile.
    }
  }
  return smallest ? Math.min(...sizes) : Math.max(...sizes);
}

function isBelow(fs, pid, ancestor) {
  for (let at = pid; at > 1;) {
    if (at === ancestor) return true;
    const stat = fs.readFileSync(`/proc/${at}/stat`, "utf8");
    at = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  }
  return false;
}
