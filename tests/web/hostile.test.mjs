// Names and output that want to be more than text.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { axe, Browser, screenshot } from "./support/browser.mjs";
import { eventually, World } from "./support/world.mjs";

const MARKUP = `agent:main:<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"'&amp;`;
const BIDI = "agent:main:\u202egnp.exe\u2066\u200b\ufeff\u2028x";
const SENDER = "whatsapp:1<b>bold<i>";
let world;
let browser;

before(async () => {
  world = await World.start({ friends: [SENDER] });
  browser = await Browser.start();
});
after(async () => {
  await browser?.stop();
  await world?.stop();
});

const terminal = (page) => page.evaluate(() => document.querySelector(".xterm-rows")?.textContent ?? "");
const usable = async (page) => {
  // How long the page takes to answer to anything.
  const began = Date.now();
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0))));
  return Date.now() - began;
};

test("names are shown as text, and every character of them is seen", { timeout: 200_000 }, async () => {
  await world.creel("exec", "--sender", SENDER, MARKUP, "--", "sh", "-c", "echo '<h1 id=made>x</h1>'; ln -s x '<img src=y onerror=alert(1)>'");
  await world.creel("exec", BIDI, "--", "true");
  const page = await browser.open(await world.address());
  await page.getByRole("link", { name: "agent:main:<img" }).waitFor();
  await page.getByText("⟨202E⟩gnp.exe⟨2066⟩⟨200B⟩⟨FEFF⟩⟨2028⟩x").waitFor();
  const text = await page.evaluate(() => document.body.innerText);
  assert.ok(text.includes("<img src=x onerror=document.title='owned'><script>"), "the markup is seen");
  assert.doesNotMatch(text, /[\u202a-\u202e\u2066-\u2069\u200b\ufeff]/);
  assert.equal(await page.locator("main img, main script, main b, main i, #made").count(), 0);
  await page.getByRole("link", { name: "agent:main:<img" }).click();
  await page.getByRole("button", { name: "Freeze…" }).waitFor();
  await eventually("output", async () => (await terminal(page)).includes("<h1 id=made>"));
  assert.equal(await page.locator("main img, main script, #made").count(), 0);
  assert.match(await page.title(), /^agent:main:<img/);
  // The reason of a freeze, an incident's and a refusal's text come back in many places.
  await page.getByRole("button", { name: "Freeze…" }).click();
  await page.getByRole("dialog").getByLabel(/Reason/).fill("<img src=x onerror=document.title='owned'>\u202e\u0007");
  await page.getByRole("dialog").getByRole("button", { name: "Freeze" }).click();
  await page.getByRole("heading", { name: "Incident 1" }).waitFor();
  await page.getByText("<img src=x onerror").first().waitFor();
  await page.waitForTimeout(1500);
  assert.equal(await page.locator("main img").count(), 0);
  await screenshot(page, "hostile-names");
  await page.getByRole("button", { name: "Thaw", exact: true }).click();
  assert.equal(await axe(page, "hostile names"), "");
  assert.deepEqual(page.seen.foreign, []);
  assert.deepEqual(page.seen.errors, []);
  await page.close();
});

test("output steers nothing: no title, no clearing, no going back, no hiding, no links", { timeout: 200_000 }, async () => {
  const session = "agent:main:steering";
  const line = [
    "printf 'before\\n'",
    "printf '\\033[2J\\033[Hcleared\\n'",
    "printf '\\033]0;owned\\007titled\\n'",
    "printf '\\033]52;c;b3duZWQ=\\007clipboard\\n'",
    "printf '\\033]8;;https://evil.test/\\033\\\\link\\033]8;;\\033\\\\\\n'",
    "printf 'over\\rwritten\\n'",
    "printf '\\033[8mhidden\\033[0m \\033[31mred\\033[0m\\n'",
    "printf '\\033[38;5;8mgrey\\033[0m \\033[38;2;8;8;8mdark\\033[0m \\033[38:5:8;8mcolons\\033[0m \\033[38;8;1munclear\\033[0m\\n'",
    "printf '\\033[1A\\033[2Kmoved\\n'",
    "printf '\\342\\200\\256turned\\342\\201\\246\\n'",
    "printf '\\000\\001\\010\\177\\233\\377bytes\\n'",
    "printf '\\033P+q544e\\033\\\\\\033[6n\\033[c\\033[?1049hasked\\n'",
    "printf 'after\\n'; sleep 1000",
  ].join("; ");
  world.start(session, line);
  const page = await browser.open(await world.address());
  await page.getByRole("link", { name: session }).click();
  await eventually("all of it", async () => (await terminal(page)).includes("after"));
  const shown = await terminal(page);
  for (const text of ["before", "␛[2J␛[Hcleared", "␛]0;owned␇titled", "␛]52;c;b3duZWQ=␇clipboard", "␛]8;;https://evil.test/", "over", "written", "hidden", "red", "grey dark colons unclear", "␛[1A␛[2Kmoved", "⟨202E⟩turned⟨2066⟩", "␀␁␈␡", "␛P+q544e", "␛[?1049hasked"]) {
    assert.ok(shown.includes(text), `${JSON.stringify(text)} is not in\n${shown}`);
  }
  assert.doesNotMatch(shown, /[\u202e\u2066]/);
  assert.match(await page.title(), /^agent:main:steering/);
  assert.equal(await page.locator(".xterm a, .xterm .xterm-underline-5").count(), 0);
  const hidden = await page.evaluate(() => [...document.querySelectorAll(".xterm-rows span")].some((each) => each.textContent.includes("hidden") && getComputedStyle(each).opacity === "0"));
  assert.equal(hidden, false);
  await screenshot(page, "hostile-output");
  assert.deepEqual(page.seen.foreign, []);
  await page.close();
});

test("a line of 10 MB, a million lines, a flood: the page stays usable", { timeout: 400_000 }, async () => {
  const session = "agent:main:flood";
  world.start(session, "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo END-OF-LINE; sleep 1000", [], { quiet: true });
  const page = await browser.open(await world.address());
  await page.getByRole("link", { name: session }).click();
  await eventually("the long line's end", async () => (await terminal(page)).includes("END-OF-LINE"), 120_000);
  assert.ok((await usable(page)) < 3000);
  world.start(session, "seq 1 1000000; echo END-OF-LINES; sleep 1000", [], { quiet: true });
  const command = page.getByRole("button", { name: /seq 1 1000000/ });
  await command.waitFor();
  await command.click();
  await eventually("the last of a million lines", async () => (await terminal(page)).includes("END-OF-LINES"), 120_000);
  assert.match(await terminal(page), /1000000/);
  assert.ok((await usable(page)) < 3000);
  // One that never ends, faster than any page: shown as far as it goes, and what is missed is told.
  world.start(session, "while :; do seq 1 100000; done", [], { quiet: true });
  const flood = page.getByRole("button", { name: /while/ });
  await flood.waitFor();
  await flood.click();
  await page.waitForTimeout(6000);
  const waits = [];
  for (let i = 0; i < 5; ++i) waits.push(await usable(page));
  console.log(`under a flood the page answers after ${waits.join(", ")} ms`);
  assert.ok(Math.min(...waits) < 2000, String(waits));
  await page.getByRole("button", { name: "Freeze…" }).click();
  await page.getByRole("dialog").getByLabel(/Reason/).fill("it floods");
  await page.getByRole("dialog").getByRole("button", { name: "Freeze" }).click();
  await page.getByRole("heading", { name: /Incident/ }).waitFor();
  assert.deepEqual(page.seen.errors, []);
  await page.close();
});
