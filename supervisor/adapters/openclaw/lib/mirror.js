// Copies what the gateway lays into its own folder for a session (bootstrap files, inbound media,
// skills) into a workspace of Creel's own, where the tools find it under the same names. One way
// only: nothing that a tool wrote ever comes back to the host by itself.

import fs from "node:fs/promises";
import path from "node:path";
import { constants } from "node:fs";
import { isCode } from "./errors.js";
import { tarOf } from "./tar.js";

const MAX_FILES = 5000;
const MAX_FILE_BYTES = 64 << 20;
const MAX_TOTAL_BYTES = 256 << 20;
const AT_ONCE = 8;
const PIECE = 1 << 20;
// What is sent as one archive: a file alone has its own call, and so has what is large.
const MAX_ARCHIVE_BYTES = 8 << 20;
const MAX_ARCHIVE_FILE = 256 << 10;

// What has been copied into which sandbox: sandbox id -> container path -> "mtime:size".
const copied = new Map();

async function* filesBelow(dir, budget) {
  let entries;
  try {
    entries = await fs.readdir(dir, { withFileTypes: true });
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return;
    throw error;
  }
  for (const entry of entries) {
    const name = path.join(dir, entry.name);
    // A link may lead anywhere on the host; it is not followed.
    if (entry.isDirectory()) yield* filesBelow(name, budget);
    else if (entry.isFile()) {
      if (--budget.files < 0) return;
      yield name;
    }
  }
}

async function readWhole(file, budget) {
  const handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const stat = await handle.stat();
    if (!stat.isFile() || stat.size > MAX_FILE_BYTES || stat.size > budget.bytes) return undefined;
    budget.bytes -= stat.size;
    return { data: await handle.readFile(), mode: stat.mode & 0o111 ? 0o755 : 0o644 };
  } finally {
    await handle.close();
  }
}

function* pieces(start, data) {
  yield { start };
  for (let at = 0; at < data.length; at += PIECE) yield { data: data.subarray(at, at + PIECE) };
}

// `trees`: {hostDir, containerDir, keep}; with `keep` the gateway's version replaces what is there,
// without it a file that is there stays. Returns how many files were copied, what was too large, and
// why policy let nothing more be copied, if so.
export async function mirror({ client, context, sandboxId, trees }) {
  let done = copied.get(sandboxId);
  if (!done) {
    done = new Map();
    copied.set(sandboxId, done);
  }
  const budget = { files: MAX_FILES, bytes: MAX_TOTAL_BYTES };
  const skipped = [];
  let count = 0;
  let denied;

  // The file's name in the container, its content and its version; nothing if it need not go.
  const look = async ({ hostDir, containerDir, keep }, file) => {
    const stat = await fs.lstat(file);
    const name = path.relative(hostDir, file);
    const target = path.posix.join(containerDir, name);
    const version = `${stat.mtimeMs}:${stat.size}`;
    if (done.get(target) === version || (!keep && done.has(target))) return undefined;
    const content = await readWhole(file, budget);
    if (content === undefined) {
      skipped.push(file);
      return undefined;
    }
    return { name, target, version, ...content };
  };

  const sendOne = async ({ keep }, { target, version, data, mode }) => {
    const args = { path: Buffer.from(target), make_parents: true, exclusive: !keep, mode };
    try {
      await client.clientStream("WriteFile", pieces({ context: context(), args }, data));
      count += 1;
    } catch (error) {
      if (isCode(error, "PERMISSION_DENIED")) {
        denied = error.message;
        return;
      }
      if (keep || !isCode(error, "ALREADY_EXISTS")) throw error;
    }
    done.set(target, version);
  };

  // False where one by one is the way: it says what is in the way of which file.
  const sendArchive = async ({ containerDir }, files) => {
    const args = { path: Buffer.from(containerDir), make_parents: true };
    try {
      const { result } = await client.clientStream(
        "TarIn",
        pieces({ context: context(), args }, tarOf(files)),
      );
      if (result.entries_refused > 0) return false;
    } catch (error) {
      if (error.grpcCode === undefined || isCode(error, "UNAVAILABLE")) throw error;
      return false;
    }
    count += files.length;
    for (const { target, version } of files) done.set(target, version);
    return true;
  };

  const send = async (tree, files) => {
    if (files.length > 1 && (await sendArchive(tree, files))) return;
    for (const file of files) if (!denied) await sendOne(tree, file);
  };

  for (const tree of trees) {
    const running = new Set();
    let archive = [];
    let size = 0;
    for await (const file of filesBelow(tree.hostDir, budget)) {
      if (denied) break;
      if (tree.except?.some((each) => file.startsWith(`${each}${path.sep}`))) continue;
      const found = await look(tree, file);
      if (found === undefined) continue;
      if (tree.keep && found.data.length <= MAX_ARCHIVE_FILE) {
        archive.push(found);
        size += found.data.length;
        if (size > MAX_ARCHIVE_BYTES) {
          await send(tree, archive);
          archive = [];
          size = 0;
        }
        continue;
      }
      const one = sendOne(tree, found).finally(() => running.delete(one));
      running.add(one);
      if (running.size >= AT_ONCE) await Promise.race(running);
    }
    await Promise.all(running);
    if (!denied && archive.length > 0) await send(tree, archive);
  }
  if (budget.files < 0) skipped.push(`all after the first ${MAX_FILES} files`);
  return { count, skipped, denied };
}

// A sandbox that is gone needs no memory.
export function forgetAllBut(sandboxIds) {
  for (const id of copied.keys()) {
    if (!sandboxIds.has(id)) copied.delete(id);
  }
}
