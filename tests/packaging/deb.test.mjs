// The Debian package, from the build to its purge.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { run } from "../e2e/support/process.mjs";
import { Supervisor } from "../e2e/support/supervisor.mjs";
import { BUILD, good, SOURCE } from "./support/compose.mjs";

// As `systemd-analyze security` counts: 10 is unprotected. Without a mount namespace (see the unit) it
// cannot be much lower.
const MAX_EXPOSURE = 5.2;

describe("the Debian package", () => {
  let dir, deb, tree;
  before(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), "creel-deb-"));
    await good(["cpack", "-G", "DEB", "--config", path.join(BUILD, "CPackConfig.cmake"), "-B", path.join(dir, "package")], { cwd: BUILD, timeoutMs: 300_000 });
    const [name, ...more] = fs.readdirSync(path.join(dir, "package")).filter((each) => each.endsWith(".deb"));
    assert.match(name, /^creel_0\.1\.0_[a-z0-9]+\.deb$/);
    assert.deepEqual(more, []);
    deb = path.join(dir, "package", name);
    tree = path.join(dir, "tree");
    await good(["dpkg-deb", "-x", deb, tree]);
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  const unit = () =>
    ["usr/lib", "lib"].map((each) => path.join(tree, each, "systemd/system/creeld.service")).find((each) => fs.existsSync(each));

  test("lintian finds no error", async () => {
    const { code, out, err } = await run(["lintian", "--fail-on", "error", "--allow-root", deb], { timeoutMs: 300_000 });
    assert.equal(code, 0, out + err);
    assert.doesNotMatch(out, /^E:/m);
  });

  test("the unit is good, and as closed as it can be", async () => {
    // Its program is looked at, so in the place where it is.
    const copy = path.join(dir, "creeld.service");
    fs.writeFileSync(copy, fs.readFileSync(unit(), "utf8").replace("=/usr/sbin/creeld", `=${tree}/usr/sbin/creeld`));
    const { code, out, err } = await run(["systemd-analyze", "verify", "--man=no", copy], { env: { PATH: process.env.PATH, SYSTEMD_LOG_LEVEL: "warning" } });
    const about = (out + err).split("\n").filter((line) => line.includes("creeld.service"));
    assert.deepEqual(about, [], `${code}`);
    const text = await good(["systemd-analyze", "security", "--offline=true", `--threshold=${MAX_EXPOSURE * 10}`, "--no-pager", unit()]);
    const level = Number(/Overall exposure level for creeld\.service: ([0-9.]+)/.exec(text)?.[1]);
    assert.ok(level > 0 && level <= MAX_EXPOSURE, text);
    console.log(`exposure level ${level}`);
  });

  test("with the unit's rights and calls creeld does all that it does", async () => {
    const setting = (name) => [...fs.readFileSync(unit(), "utf8").matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map((match) => match[1].split(" "));
    const rights = ["-all", ...setting("CapabilityBoundingSet")[0].map((each) => each.toLowerCase().replace("cap_", "+"))].join(",");
    const trace = path.join(dir, "trace");
    const given = path.join(dir, "given");
    fs.mkdirSync(given);
    fs.chownSync(given, 12345, 12345);
    const supervisor = await Supervisor.start({
      // -D: what is traced stays our child.
      wrap: ["strace", "-D", "-f", "-qq", "-o", trace, "setpriv", "--no-new-privs", "--inh-caps=-all", `--bounding-set=${rights}`],
      sandbox: `  workspace_access: rw\n  workspace_roots: [${given}]\n`,
    });
    try {
      const creel = async (...words) => {
        const { code, out, err } = await supervisor.creel(...words);
        assert.equal(code, 0, `${words.join(" ")}: ${out}${err}\n${supervisor.process.log()}`);
        return out;
      };
      await creel("open", "agent:main:a:group:1");
      await creel("open", "agent:main:a:group:2", "--workspace", given);
      await creel("exec", "agent:main:a:group:2", "--", "sh", "-c", "echo x >made; sleep 0.1 &");
      assert.equal(fs.statSync(path.join(given, "made")).uid, 12345);
      await creel("cp", "/etc/hostname", "agent:main:a:group:1:/workspace/");
      await creel("incident", "open", "--all", "--reason", "a test");
      assert.doesNotMatch(await creel("incident", "capture", "1"), /not in it: .*(permi|denied)/i);
      await creel("incident", "thaw", "1");
      await creel("panic");
    } finally {
      await supervisor.stop();
    }
    // What the unit's filter lets through, as systemd itself expands it.
    const expanded = async (name) => {
      if (!name.startsWith("@")) return [name];
      const out = await good(["systemd-analyze", "syscall-filter", "--no-pager", name]);
      const names = out.split("\n").slice(1).map((line) => line.trim()).filter((line) => line && !line.startsWith("#"));
      return (await Promise.all(names.map(expanded))).flat();
    };
    const allowed = new Set(await expanded("@default"));
    for (const [first, ...more] of setting("SystemCallFilter")) {
      const names = (await Promise.all([first.replace("~", ""), ...more].map(expanded))).flat();
      for (const name of names) first.startsWith("~") ? allowed.delete(name) : allowed.add(name);
    }
    for (const name of await expanded("@default")) allowed.add(name);
    const called = new Set([...fs.readFileSync(trace, "utf8").matchAll(/^\d+ +([a-z_0-9]+)\(/gm)].map((match) => match[1]));
    assert.ok(called.has("move_mount") && called.has("mount_setattr") && called.size > 60, [...called].join(" "));
    assert.deepEqual([...called].filter((name) => !allowed.has(name)), []);
  });

  test("a restart keeps what sandboxes need", () => {
    const lines = fs.readFileSync(unit(), "utf8").split("\n");
    for (const line of ["RuntimeDirectoryPreserve=yes", "KillMode=mixed", "Type=notify", "Restart=on-failure"]) assert.ok(lines.includes(line), line);
    // Each of these would hide creeld's mounts from the engine.
    for (const word of ["ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadWritePaths", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "MountFlags", "RootDirectory"])
      assert.ok(!lines.some((line) => line.startsWith(`${word}=`)), word);
  });

  test("sysusers and tmpfiles make what the service and its scripts count on", async () => {
    // Before the package's scripts, as in an image that is put together: in a root of their own.
    const made = path.join(dir, "made");
    fs.mkdirSync(path.join(made, "etc"), { recursive: true });
    await good(["systemd-sysusers", `--root=${made}`, path.join(tree, "usr/lib/sysusers.d/creel.conf")]);
    const groups = fs.readFileSync(path.join(made, "etc/group"), "utf8");
    assert.deepEqual(groups.match(/^[^:]+(?=:x:\d+:$)/gm)?.sort(), ["creel-gateway", "creel-operator"]);
    await good(["systemd-tmpfiles", "--create", `--root=${made}`, path.join(tree, "usr/lib/tmpfiles.d/creel.conf")]);
    for (const [folder, mode] of [["run/creel", 0o755], ["var/lib/creel", 0o700]]) {
      const about = fs.statSync(path.join(made, folder));
      assert.deepEqual([about.isDirectory(), about.mode & 0o7777, about.uid, about.gid], [true, mode, 0, 0], folder);
    }
  });

  test("the manual pages have every command and key, and no error of troff", async () => {
    for (const [page, program, words] of [
      ["man1/creel.1.gz", "supervisor/cli/creel", ["--help"]],
      ["man8/creeld.8.gz", "supervisor/daemon/creeld", ["--help"]],
      ["man1/creel-verify.1.gz", "supervisor/evidence/creel-verify", ["--help"]],
      ["man5/creel.yaml.5.gz", "supervisor/daemon/creeld", ["--print-config-reference"]],
    ]) {
      const file = path.join(tree, "usr/share/man", page);
      const shown = await run(["man", "--warnings", "-l", file], { env: { PATH: process.env.PATH, MANWIDTH: "200", LC_ALL: "C.UTF-8" } });
      assert.equal(shown.code, 0, shown.err);
      assert.equal(shown.err, "", page);
      const help = await good([path.join(BUILD, program), ...words]);
      const wanted = page.startsWith("man5")
        ? [...help.matchAll(/^\| `([^`]+)`/gm)].map((match) => match[1])
        : [...help.matchAll(/^ {2}([a-z-]+)|(--[a-z-]+)/gm)].map((match) => match[1] ?? match[2]).filter(Boolean);
      assert.ok(wanted.length >= 4, page);
      for (const word of wanted) assert.ok(shown.out.includes(word), `${page} does not name ${word}`);
    }
  });

  test("completions name the commands, in each shell", async () => {
    const share = path.join(tree, "usr/share");
    const bash = path.join(share, "bash-completion/completions/creel");
    const complete = async (...words) =>
      (await good(["bash", "-c", `source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _creel; printf '%s\\n' "\${COMPREPLY[@]}"`, bash, ...words])).split("\n").filter(Boolean);
    assert.deepEqual(await complete("creel", "inc"), ["incident"]);
    assert.ok((await complete("creel", "incident", "")).includes("teardown"));
    assert.deepEqual(await complete("creel", "incident", "open", "--rea"), ["--reason"]);
    assert.deepEqual(await complete("creel", "--json", "exec", "x", "--", "--"), []);
    await good(["zsh", "-n", path.join(share, "zsh/vendor-completions/_creel")]);
    const fish = path.join(share, "fish/vendor_completions.d/creel.fish");
    const offered = await good(["fish", "--no-config", "-c", `source ${fish}; complete -C 'creel incident '`]);
    assert.match(offered, /^teardown\t/m);
  });

  test("make install with DESTDIR gives the same files", async () => {
    const to = path.join(dir, "destdir");
    await good(["cmake", "--install", BUILD, "--prefix", "/usr", "--strip"], { env: { ...process.env, DESTDIR: to } });
    const list = async (root) => (await good(["find", ".", "-type", "f"], { cwd: root })).split("\n").sort();
    assert.deepEqual(await list(to), await list(tree));
  });

  test("it lives and goes in a fresh Debian 12", async () => {
    const root = path.join(dir, "root");
    const depends = (await good(["dpkg-deb", "-f", deb, "Depends"])).trim().split(", ").map((each) => each.split(" ")[0]);
    await good([path.join(import.meta.dirname, "fresh-root.sh"), root, "ca-certificates", "docker.io", "procps", "--", ...depends], { timeoutMs: 600_000 });
    fs.copyFileSync(deb, path.join(root, "creel.deb"));
    fs.copyFileSync(path.join(import.meta.dirname, "in-root.sh"), path.join(root, "in-root.sh"));
    await good(["docker", "save", "-o", path.join(root, "sandbox-image.tar"), "creel-sandbox:latest"]);
    // In namespaces of its own: with the first process all goes, the engine and its containers too.
    const enter = `set -e
      mount --bind "$0" "$0"; cd "$0"
      mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
      mount -t tmpfs -o mode=755 tmpfs run
      exec chroot . /bin/bash /in-root.sh`;
    const { code, out, err } = await run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "sh", "-c", enter, root], { env: { PATH: process.env.PATH }, timeoutMs: 600_000 });
    console.log(out.trim());
    assert.equal(code, 0, out + err);
    assert.equal(out.match(/^ok: /gm)?.length, 5, out);
  });
});
