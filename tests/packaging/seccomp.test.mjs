// Creel's filter of system calls against the engine's own, as docs/seccomp.md tells it, and what still
// works under it.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Supervisor } from "../e2e/support/supervisor.mjs";
import { BUILD, docker, good, SOURCE } from "./support/compose.mjs";

const PROBE = path.join(BUILD, "tests/packaging/probe_filter");

// The calls that a container's filter lets through.
async function allowed(...options) {
  const out = await docker("run", "--rm", "--network", "none", "-v", `${PROBE}:/probe:ro`, ...options, "creel-sandbox:latest", "/probe");
  const lines = out.trim().split("\n").map((line) => line.split(" "));
  assert.ok(lines.length > 300, out);
  return new Set(lines.filter(([, verdict]) => verdict === "allowed").map(([name]) => name));
}

// The names in the first column of the table below a heading of the page.
function table(heading) {
  const page = fs.readFileSync(path.join(SOURCE, "docs/seccomp.md"), "utf8");
  const section = page.split(`## ${heading}\n`)[1]?.split("\n## ")[0];
  assert.ok(section, `docs/seccomp.md has no section "${heading}"`);
  const rows = section.split("\n").filter((line) => line.startsWith("| `"));
  return new Set(rows.flatMap((row) => [...row.split("|")[1].matchAll(/`([^`]+)`/g)].map((match) => match[1])));
}

describe("the seccomp profile", () => {
  let engine, creel;
  before(async () => {
    engine = await allowed();
    creel = await allowed("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--security-opt", `seccomp=${SOURCE}/docker/seccomp.json`);
  });

  test("what it takes away from the engine's default is what the page says", () => {
    const taken = [...engine].filter((name) => !creel.has(name));
    const told = new Set([...table("What it takes away"), ...table("What it narrows")]);
    assert.ok(taken.length >= 20, taken.join(" "));
    assert.deepEqual(taken.filter((name) => !told.has(name)), [], "not on the page");
    // The narrowed ones may be asked for something allowed with arguments of zero.
    const through = [...table("What it takes away")].filter((name) => creel.has(name));
    assert.deepEqual(through, [], "on the page, and let through");
  });

  test("what it adds is what the page says", () => {
    const added = [...creel].filter((name) => !engine.has(name));
    const told = table("What it adds");
    assert.deepEqual(added.filter((name) => !told.has(name)), []);
  });
});

const SLIM = {
  "shell, pipes and job control": "seq 1 1000 | sort -rn | head -n1 | grep -q 1000; (sleep 0.1 & wait); set -o pipefail; ls -la / | wc -l",
  git: "git init -q r && cd r && git config user.email a@b && git config user.name x && echo 1 >f && git add f && git commit -qm one && git checkout -qb b && echo 2 >f && git commit -qam two && git checkout -q - && git merge -q b && git gc -q && git fsck && git archive HEAD | tar t",
  python: `python3 - <<'END'
import concurrent.futures, json, multiprocessing, os, socket, sqlite3, ssl, subprocess, tempfile, threading
assert subprocess.run(["echo", "x"], capture_output=True).stdout == b"x\\n"
with concurrent.futures.ThreadPoolExecutor(8) as pool: assert sum(pool.map(int, "12345")) == 15
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
db = sqlite3.connect("t.db"); db.execute("create table t (x)"); db.commit()
ssl.create_default_context(); tempfile.NamedTemporaryFile().write(b"x"); os.getrandom(8)
END`,
  archives: "mkdir d && seq 1 9999 >d/x && tar cJf d.tar.xz d && rm -r d && tar xf d.tar.xz && test -s d/x && python3 -m zipfile -c d.zip d/x && unzip -oq d.zip && gzip -k d/x && zcat d/x.gz | cmp - d/x",
  "search and text": "printf '{\"a\":[1,2]}' | jq -e '.a[1] == 2' && seq 1 99 >n && rg -q '^42$' n && sed -i s/42/x/ n && grep -qx x n && file n | grep -q text",
  "processes and limits": "ps aux | grep -q ps && nice true && timeout 5 true && ulimit -n && nproc && top -bn1 | grep -q PID",
  curl: "echo hello >h && curl -s file://$PWD/h | grep -q hello",
};
const FULL = {
  "a C++ build": `printf '#include <thread>\\n#include <iostream>\\nint main(){std::thread t([]{std::cout<<"ok\\\\n";});t.join();}' >a.cc && printf 'a: a.cc\\n\\tg++ -O2 -pthread -o a a.cc\\n' >Makefile && make -s -j2 && ./a | grep -q ok`,
  cmake: `mkdir p && cd p && printf 'cmake_minimum_required(VERSION 3.20)\\nproject(p C)\\nadd_executable(p p.c)\\n' >CMakeLists.txt && echo 'int main(void){return 0;}' >p.c && cmake -S . -B b >log && cmake --build b >>log && b/p`,
  node: `node -e 'const {Worker}=require("worker_threads");const cp=require("child_process");require("fs").promises.writeFile("x","1").then(()=>{if(cp.execSync("cat x").toString()!=="1")process.exit(1);new Worker("process.exit(0)",{eval:true}).on("exit",c=>process.exit(c))})'`,
  npm: `mkdir n m && cd m && npm init -y >/dev/null && cd ../n && npm init -y >/dev/null && npm install --offline --no-audit --no-fund ../m >/dev/null && test -e node_modules/m/package.json`,
  "a virtual environment": "python3 -m venv v && v/bin/python -c 'import sys; assert sys.prefix.endswith(\"/v\")' && v/bin/pip --version",
  sqlite: `sqlite3 x.db 'pragma journal_mode=wal; create table t(a); insert into t values(1);' && test "$(sqlite3 x.db 'select a from t')" = 1`,
};

for (const [image, tools] of [["creel-sandbox:latest", SLIM], ["creel-sandbox:full", { ...SLIM, ...FULL }]]) {
  describe(`common tools work in ${image}`, () => {
    let supervisor;
    before(async () => {
      if (image.endsWith(":full")) await good([path.join(SOURCE, "docker/setup/sandbox-image.sh"), "full"], { timeoutMs: 900_000 });
      supervisor = await Supervisor.start({ sandbox: `  image: ${image}\n` });
    });
    after(async () => supervisor?.stop());

    for (const [name, script] of Object.entries(tools)) {
      test(name, async () => {
        const { code, out, err } = await supervisor.creel("exec", "agent:main:test:group:1", "--timeout", "120s", "--", "bash", "-ec", `cd "$(mktemp -d)"\n${script}`);
        assert.equal(code, 0, `${out}\n${err}`);
      });
    }
  });
}
