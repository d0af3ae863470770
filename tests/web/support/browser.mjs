// A real browser without a window, and a page in it that is watched.

import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { SCREENSHOTS } from "./world.mjs";

const require = createRequire(path.join(process.env.CREEL_WEB_CACHE, "tests/package.json"));
const { chromium } = require("playwright-core");
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export class Browser {
  static async start({ args = [], viewport = { width: 1360, height: 900 }, colorScheme = "light" } = {}) {
    const browser = new Browser();
    browser.profile = fs.mkdtempSync(path.join(os.tmpdir(), "creel-browser-"));
    browser.context = await chromium.launchPersistentContext(browser.profile, {
      executablePath: "/usr/bin/chromium", headless: true, viewport, colorScheme, acceptDownloads: true, chromiumSandbox: false,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", ...args],
    });
    browser.context.setDefaultTimeout(60_000);
    return browser;
  }
  // A page; all that it asks of others than `base`, all errors and all broken rules are kept.
  async open(address, { base = new URL(address).origin } = {}) {
    const page = this.context.pages()[0]?.url() === "about:blank" ? this.context.pages()[0] : await this.context.newPage();
    const seen = { foreign: [], errors: [] };
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(`${base}/`) && !url.startsWith("blob:") && !url.startsWith("data:")) seen.foreign.push(url);
    });
    page.on("pageerror", (error) => seen.errors.push(String(error)));
    page.on("console", (message) => {
      // A supervisor that is away is told so; all else is a mistake.
      if (message.type() === "error" && !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|status of 4/.test(message.text())) seen.errors.push(message.text());
    });
    page.seen = seen;
    await page.goto(address);
    return page;
  }
  get pid() {
    // The browser's first process, by its profile.
    for (const each of fs.readdirSync("/proc")) {
      try {
        const line = fs.readFileSync(`/proc/${each}/cmdline`, "utf8");
        if (line.includes(`--user-data-dir=${this.profile}`) && !line.includes("--type=")) return Number(each);
      } catch {
        // Not a process, or gone.
      }
    }
    return 0;
  }
  async stop() {
    await this.context.close();
    fs.rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

// What axe-core finds that is serious or worse, as text; empty if nothing.
export async function axe(page, what) {
  // Into the page by the driver, past the page's own policy, which lets no such script in.
  const cdp = await page.context().newCDPSession(page);
  const { frameTree } = await cdp.send("Page.getFrameTree");
  const { executionContextId } = await cdp.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await cdp.send("Runtime.evaluate", { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`axe: ${exceptionDetails.text} ${exceptionDetails.exception?.description ?? ""}`);
    return result.value;
  };
  await evaluate(`${AXE}\n;0`);
  const violations = await evaluate(`axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.filter((v) => v.impact === "serious" || v.impact === "critical").map((v) => v.id + ": " + v.nodes.slice(0, 4).map((n) => n.html.slice(0, 160) + " [" + n.failureSummary.replace(/\\s+/g, " ").slice(0, 200) + "]").join(" | ")))`);
  await cdp.detach();
  return violations.map((each) => `${what}: ${each}`).join("\n");
}

export async function screenshot(page, name) {
  fs.mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });
}
