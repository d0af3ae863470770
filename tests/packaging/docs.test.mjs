// The documentation against what it is about: every fenced command is run, every `creel …` is one that
// there is, every link leads somewhere.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../e2e/support/process.mjs";
import { Supervisor } from "../e2e/support/supervisor.mjs";
import { BUILD, good, SOURCE } from "./support/compose.mjs";

const PAGES = ["README.md", "SECURITY.md", ...fs.readdirSync(path.join(SOURCE, "docs")).filter((each) => each.endsWith(".md")).map((each) => `docs/${each}`)];
const read = (page) => fs.readFileSync(path.join(SOURCE, page), "utf8");

// The fenced blocks of a page: {language, text, line}.
function blocks(page) {
  const found = [];
  let open;
  read(page).split("\n").forEach((line, at) => {
    const fence = /^ *```(\S*)/.exec(line);
    if (fence && open) {
      found.push(open);
      open = undefined;
    } else if (fence) {
      open = { language: fence[1], text: "", line: at + 1 };
    } else if (open) {
      open.text += `${line}\n`;
    }
  });
  assert.equal(open, undefined, `${page}: a fence is not closed`);
  return found;
}

// What a block asks to be typed: {command, expected}; a command may go on over lines.
function commands({ language, text }) {
  const found = [];
  if (language === "sh") {
    for (const line of text.replaceAll("\\\n", " ").split("\n")) {
      const command = line.replace(/\s+#\s.*$/, "").trim();
      if (command && !command.startsWith("#")) found.push({ command });
    }
  } else if (language === "console") {
    for (const line of text.trimEnd().split("\n")) {
      if (line.startsWith("$ ")) found.push({ command: line.slice(2), expected: [] });
      else found.at(-1).expected.push(line);
    }
  }
  return found;
}

const NOT_RUN = read("tests/packaging/docs-not-run.txt")
  .split("\n")
  .filter((line) => line && !line.startsWith("#"))
  .map((line) => {
    const [page, command, reason, ...more] = line.split(" | ");
    assert.ok(page && command && reason && more.length === 0, line);
    return { page, command, line, used: false };
  });

// Lines of output, of which `…` in the page stands for anything, at a line's end or alone for all that
// follows.
function checkOutput(what, expected, out) {
  const lines = out.trimEnd() === "" ? [] : out.trimEnd().split("\n");
  for (const [at, want] of expected.entries()) {
    if (want === "…") {
      assert.ok(lines.slice(at).some((line) => line !== ""), `${what}: nothing came where the page has …`);
      return;
    }
    const got = lines[at] ?? "";
    if (want.endsWith("…")) assert.ok(got.startsWith(want.slice(0, -1)), `${what}: ${got}`);
    else assert.equal(got, want, what);
  }
  assert.equal(lines.length, expected.length, `${what}: ${out}`);
}

describe("the documentation", () => {
  let supervisor, scratch, env;
  // One that has seen nothing yet, so that the first incident of each page is its first.
  const begin = async () => {
    await supervisor?.stop();
    supervisor = await Supervisor.start();
    scratch = path.join(supervisor.dir, "typed");
    fs.mkdirSync(scratch);
    // As in a clone, whose programs are installed.
    for (const each of fs.readdirSync(SOURCE)) if (!each.startsWith(".")) fs.symlinkSync(path.join(SOURCE, each), path.join(scratch, each));
    fs.writeFileSync(path.join(scratch, "notes.txt"), "a note\n");
    env = {
      PATH: ["supervisor/cli", "supervisor/daemon", "supervisor/evidence"].map((each) => path.join(BUILD, each)).join(":") + `:${process.env.PATH}`,
      CREEL_RUN_DIR: `${supervisor.dir}/run`,
      HOME: scratch,
      USER: "root",
      LC_ALL: "C.UTF-8",
    };
  };
  before(begin);
  after(async () => supervisor?.stop());

  for (const page of PAGES) {
    const typed = blocks(page).flatMap((block) => commands(block).map((each) => ({ ...each, line: block.line })));
    test(`${page}: its ${typed.length} commands do what it says`, async () => {
      if (typed.length > 0) await begin();
      let exported = "";
      for (const { command, expected, line } of typed) {
        const what = `${page}, block at line ${line}: ${command}`;
        const entry = NOT_RUN.find((each) => each.page === page && command.startsWith(each.command));
        if (entry) {
          entry.used = true;
          continue;
        }
        if (command.startsWith("export ")) {
          exported += `${command}\n`;
        }
        // One that wants a terminal gets one, whose user leaves at once.
        const words = / exec (-i -t|-it) /.test(command) ? ["script", "-qec", exported + command, "/dev/null"] : ["bash", "-c", exported + command];
        const { code, out, err } = await run(words, { env, cwd: scratch, input: words[0] === "script" ? "exit\n" : "" });
        if (expected) checkOutput(what, expected, out + err);
        else assert.equal(code, 0, `${what}\n${out}\n${err}`);
      }
    });
  }

  test("the list of what is not run has no line too many", () => {
    assert.deepEqual(NOT_RUN.filter((each) => !each.used).map((each) => each.line), []);
  });

  test("every `creel …` names commands and options that there are", async () => {
    const completion = await good([path.join(BUILD, "supervisor/cli/creel"), "--reference=bash"]);
    const tree = new Map();
    for (const [, where, choices] of completion.matchAll(/^ +'(creel[^']*)'\) choices='([^']*)'/gm)) tree.set(where, new Set(choices.split(" ")));
    assert.ok(tree.size > 30, completion);
    const wrong = [];
    let looked = 0;
    const check = (where, text) => {
      // A checkpoint's line in syslog.
      if (/^creel record [0-9a-f]{16} /.test(text)) return;
      ++looked;
      let at = "creel";
      for (const word of text.split(/\s+/).slice(1)) {
        if (word === "--") break;
        const choices = tree.get(at);
        const plain = word.replace(/[.,;:)\]]+$/, "").replace(/^\[/, "");
        if (tree.has(`${at} ${plain}`)) {
          at += ` ${plain}`;
        } else if (/^--?[a-z]/.test(plain)) {
          for (const option of plain.split("|")) if (!choices.has(option.split("=")[0])) wrong.push(`${where}: ${text}: ${option}`);
        } else if (at === "creel" && !plain.includes("|")) {
          wrong.push(`${where}: ${text}: ${plain}`);
          break;
        } else if (plain.includes("|") && /^[a-z|-]+$/.test(plain)) {
          for (const each of plain.split("|")) if (!tree.has(`${at} ${each}`)) wrong.push(`${where}: ${text}: ${each}`);
        }
      }
    };
    for (const page of PAGES) {
      const text = read(page);
      for (const [, code] of text.replace(/^ *```[\s\S]*?^ *```/gm, "").matchAll(/`(creel [^`]+)`/g)) check(page, code.replaceAll("\n", " "));
      for (const [, code] of text.matchAll(/^ {4}(creel .+)$/gm)) for (const part of code.replace(/\s+#.*$/, "").split(/\s{3,}/)) check(page, part);
    }
    assert.ok(looked > 40);
    assert.deepEqual(wrong, []);
  });

  test("links inside the repository lead somewhere", () => {
    const anchors = (page) =>
      new Set([...read(page).matchAll(/^#+ (.+)$/gm)].map((match) => match[1].toLowerCase().replaceAll("`", "").replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")));
    const broken = [];
    for (const page of PAGES) {
      const text = read(page).replace(/^ *```[\s\S]*?^ *```/gm, "");
      for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [file, anchor] = target.split("#");
        const to = file === "" ? page : path.normalize(path.join(path.dirname(page), file));
        if (!fs.existsSync(path.join(SOURCE, to))) broken.push(`${page}: ${target}`);
        else if (anchor && !anchors(to).has(anchor)) broken.push(`${page}: ${target}`);
      }
    }
    assert.deepEqual(broken, []);
  });

  test("the picture of the tour shows every row of it", () => {
    const picture = read("docs/tour.svg");
    const rows = [...read("docker/setup/tour.sh").matchAll(/^row '([^']+)'/gm)].map((match) => match[1]);
    assert.ok(rows.length >= 19);
    assert.deepEqual(rows.filter((row) => !picture.includes(row)), [], "record it anew: docker/setup/tour-picture.py says how");
    assert.match(picture, />All \d+ walls held\.</);
  });

  test("every page is reached from the first one", () => {
    const seen = new Set(["README.md"]);
    const queue = ["README.md"];
    while (queue.length > 0) {
      const page = queue.pop();
      for (const [, target] of read(page).matchAll(/\]\(([^)\s#]+)/g)) {
        const to = path.normalize(path.join(path.dirname(page), target));
        if (to.endsWith(".md") && !/^[a-z]+:/.test(target) && !seen.has(to)) {
          seen.add(to);
          queue.push(to);
        }
      }
    }
    assert.deepEqual(PAGES.filter((page) => !seen.has(page)), []);
  });

  test("the configuration reference is the one that creeld prints", async () => {
    const printed = await good([path.join(BUILD, "supervisor/daemon/creeld"), "--print-config-reference"]);
    assert.ok(read("docs/configuration.md") === printed, "write it anew: creeld --print-config-reference >docs/configuration.md");
  });

  test("the configurations that compose/ ships are ones that creeld takes", async () => {
    const files = ["etc", "etc-unprivileged"].map((each) => path.join(SOURCE, "compose", each, "creel.yaml"));
    for (const file of files) await good([path.join(BUILD, "supervisor/daemon/creeld"), "--config", file, "--check-config"], { env });
  });

  test("YAML in the pages is configuration that creeld takes", async () => {
    for (const page of PAGES) {
      for (const { language, text, line } of blocks(page)) {
        if (language !== "yaml") continue;
        const file = path.join(scratch, "page.yaml");
        // Files that it names need not be there to be checked, but must be as good as there.
        fs.writeFileSync(file, text);
        const { code, err } = await run([path.join(BUILD, "supervisor/daemon/creeld"), "--config", file, "--check-config"], { env });
        assert.equal(code, 0, `${page}, block at line ${line}: ${err}`);
      }
    }
  });
});
