// compose/ as an operator uses it, from nothing to nothing.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { docker, mountsBelow, sharedFolder, Topology } from "./support/compose.mjs";

const SESSION = "agent:main:whatsapp:group:120363";

const exec = async (topology, ...command) => topology.creel("exec", SESSION, "--", ...command);

async function opensAndRuns(topology) {
  const opened = await topology.creel("open", SESSION);
  assert.equal(opened.code, 0, opened.err);
  const ran = await exec(topology, "sh", "-c", "echo kept >note; id -u; cat /proc/net/dev; exit 7");
  assert.equal(ran.code, 7, ran.err);
  assert.notEqual(ran.out.split("\n")[0], "0");
  assert.ok(!ran.out.includes("eth0"), ran.out);
  const [container, ...more] = await topology.sessionSandboxes();
  assert.ok(container, "docker ps shows no container of ours");
  assert.equal(more.length, 0);
  const listed = await topology.creel("ps");
  assert.ok(listed.out.includes(SESSION), listed.out);
  return container;
}

async function panicLeavesNothing(topology) {
  const { code, out, err } = await topology.creel("panic");
  assert.equal(code, 0, out + err);
  assert.deepEqual(await topology.sandboxes(), []);
  const run = topology.hostRunDir ?? topology.runDir;
  assert.deepEqual(mountsBelow(run), []);
  assert.deepEqual(fs.readdirSync(path.join(run, "sandboxes")), []);
  assert.ok(!(await topology.creel("ps")).out.includes(SESSION));
}

describe("compose.yaml", () => {
  let topology;
  before(async () => {
    topology = await Topology.prepare({
      files: ["compose.yaml"],
      config: ({ runDir, stateDir, dir }) => `
paths: {run_dir: ${runDir}, state_dir: ${stateDir}}
gateway: {socket: ${runDir}/gateway/gateway.sock, group: creel-gateway}
sandbox:
  workspace_access: rw
  workspace_roots: [${dir}/given]
  limits: {workspace: 64MiB}
`,
    });
    // As docs/compose.md says for folders that a gateway may name.
    const given = path.join(topology.dir, "given");
    const more = path.join(topology.dir, "given.yaml");
    fs.mkdirSync(given);
    fs.writeFileSync(more, `services: {creeld: {volumes: ["${given}:${given}"]}}\n`);
    topology.files.push(more);
    await sharedFolder(topology.runDir);
  });
  after(async () => topology?.stop());

  test("from a clean state it builds, starts and becomes healthy", async () => {
    await assert.rejects(docker("image", "inspect", `creel:${topology.name}`));
    await topology.compose("up", "-d");
    const id = await topology.healthy("creeld");
    const [about] = JSON.parse(await docker("inspect", id));
    assert.equal(about.HostConfig.ReadonlyRootfs, true);
    assert.equal(about.HostConfig.Privileged, false);
    assert.deepEqual(about.HostConfig.CapDrop, ["ALL"]);
    assert.equal(about.HostConfig.NetworkMode, "none");
    assert.ok(about.HostConfig.Memory > 0 && about.HostConfig.PidsLimit > 0 && about.HostConfig.NanoCpus > 0);
    assert.equal(about.Config.Labels["org.opencontainers.image.title"], "Creel");
  });

  test("no wall is missing: nothing had to be conceded", async () => {
    const { out } = await topology.creel("doctor");
    for (const id of ["no-sized-workspace", "no-idmap", "no-freezer", "no-seccomp", "not-root", "engine-elsewhere"]) {
      assert.match(out, new RegExp(`ok +${id} `, "i"), out);
    }
  });

  test("from the host a session opens, runs commands, and is seen", async () => {
    await opensAndRuns(topology);
    assert.match((await exec(topology, "df", "-m", "--output=size", "/workspace")).out, /\n +([456]\d)\n/);
    assert.match((await topology.creel("inspect", SESSION)).out, /sized/);
  });

  test("a given folder keeps its owner", async () => {
    const folder = path.join(topology.dir, "given/project");
    fs.mkdirSync(folder, { recursive: true });
    fs.chownSync(folder, 12345, 12345);
    const given = "agent:main:telegram:group:7";
    const opened = await topology.creel("open", given, "--workspace", folder);
    assert.equal(opened.code, 0, opened.err);
    const ran = await topology.creel("exec", given, "--", "sh", "-c", "echo x >made");
    assert.equal(ran.code, 0, ran.err);
    assert.equal(fs.statSync(path.join(folder, "made")).uid, 12345);
    assert.equal((await topology.creel("close", given)).code, 0);
  });

  test("a session gets a sandbox that waited, to which nothing of the host is tied any more", async () => {
    const session = "agent:main:telegram:group:8";
    const waiting = await topology.waiting();
    assert.equal((await topology.creel("open", session)).code, 0);
    const about = JSON.parse((await topology.creel("inspect", session, "--json")).out).details.session;
    assert.ok(waiting.includes(about.container_id), `it was made anew:\n${await topology.log("creeld")}`);
    const wrote = await topology.creel("exec", session, "--", "sh", "-c", "echo x >made; df -m --output=size .");
    assert.match(wrote.out, /\n +([456]\d)\n/, wrote.err);
    const pid = (await docker("inspect", "--format", "{{.State.Pid}}", about.container_id)).trim();
    const mounts = fs.readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n").filter((line) => line.includes(" /workspace "));
    assert.ok(mounts.length > 0);
    assert.deepEqual(mounts.filter((line) => /(master|shared):/.test(line)), []);
    assert.deepEqual(mountsBelow(path.join(topology.runDir, "mounts")).filter((each) => each.includes(about.sandbox_id)), []);
    assert.equal((await topology.creel("close", session)).code, 0);
  });

  test("it freezes and thaws, and collects evidence", async () => {
    const frozen = await topology.creel("incident", "open", "--session", SESSION, "--reason", "a test");
    assert.equal(frozen.code, 0, frozen.err);
    const captured = await topology.creel("incident", "capture", "1");
    assert.equal(captured.code, 0, captured.err);
    assert.ok(!/not in it: .*(permission|denied)/i.test(captured.out), captured.out);
    const thawed = await topology.creel("incident", "thaw", "1");
    assert.equal(thawed.code, 0, thawed.err);
    assert.equal((await exec(topology, "true")).code, 0);
  });

  test("down and up adopt what lives, with its running commands", async () => {
    const [before] = await topology.sessionSandboxes();
    assert.equal((await exec(topology, "sh", "-c", "setsid sleep 4243 >/dev/null 2>&1 &")).code, 0);
    await topology.compose("down", "--timeout", "30");
    assert.deepEqual(await topology.sandboxes(), [before]);
    assert.notEqual((await topology.creel("ps")).code, 0);
    await topology.compose("up", "-d");
    await topology.healthy("creeld");
    assert.deepEqual(await topology.sessionSandboxes(), [before]);
    assert.equal((await exec(topology, "cat", "note")).out, "kept\n");
    assert.equal((await exec(topology, "pgrep", "-xc", "sleep")).out, "1\n");
  });

  test("creel panic leaves nothing behind", async () => panicLeavesNothing(topology));
});

describe("compose.unprivileged.yaml", () => {
  let topology;
  before(async () => {
    topology = await Topology.prepare({
      files: ["compose.unprivileged.yaml"],
      config: ({ dir }) => `
paths: {run_dir: ${dir}/u/run, state_dir: ${dir}/u/state}
gateway: {socket: ${dir}/u/run/gateway/gateway.sock, mode: "0666", uids: [64011]}
concessions: [no-sized-workspace, no-blkio]
`,
    });
    topology.hostRunDir = path.join(topology.dir, "u/run");
    topology.env.CREEL_DIR = path.join(topology.dir, "u");
    topology.env.DOCKER_GID = String(fs.statSync("/var/run/docker.sock").gid);
  });
  after(async () => topology?.stop());

  test("without any right it starts and becomes healthy", async () => {
    await topology.compose("up", "-d");
    const id = await topology.healthy("creeld");
    const pid = (await docker("inspect", "--format", "{{.State.Pid}}", id)).trim();
    const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
    assert.match(status, /^Uid:\t64010\t64010\t64010\t64010$/m);
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
      assert.match(status, new RegExp(`^${set}:\\t0{16}$`, "m"));
    }
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(status, /^Seccomp:\t2$/m);
  });

  test("a session opens and runs commands", async () => {
    await opensAndRuns(topology);
  });

  test("a session gets a sandbox that waited", async () => {
    const session = "agent:main:telegram:group:8";
    const waiting = await topology.waiting();
    assert.equal((await topology.creel("open", session)).code, 0);
    const about = JSON.parse((await topology.creel("inspect", session, "--json")).out).details.session;
    assert.ok(waiting.includes(about.container_id), `it was made anew:\n${await topology.log("creeld")}`);
    assert.equal((await topology.creel("exec", session, "--", "sh", "-c", "echo x >made; cat made")).out, "x\n");
    assert.equal((await topology.creel("close", session)).code, 0);
  });

  test("creel panic leaves nothing behind", async () => panicLeavesNothing(topology));
});
