// The gateway's file tools, carried to the supervisor's file calls. No process is started, and no
// path is opened on the host.

import { CreelError, isCode } from "./errors.js";
import { PathMap } from "./paths.js";

// Read when the gateway names no limit of its own.
const MAX_READ = 64 << 20;
const PIECE = 1 << 20;

function refuse(code, message) {
  return Object.assign(new CreelError(`creel: ${message}`), { code });
}

function toBuffer(data, encoding) {
  return Buffer.isBuffer(data) ? data : Buffer.from(data, encoding ?? "utf8");
}

function* writeMessages(context, args, data) {
  yield { start: { context, args } };
  for (let at = 0; at < data.length; at += PIECE) {
    yield { data: data.subarray(at, at + PIECE) };
  }
}

export class FsBridge {
  #client;
  #context;
  #paths;
  #readOnly;
  #protectedRoots;

  // `context`: who calls, as the supervisor wants it, asked anew for each call. `protectedRoots`:
  // folders of the container that the gateway keeps for itself, such as skills.
  constructor({ client, context, paths, readOnly, protectedRoots = [] }) {
    this.#client = client;
    this.#context = context;
    this.#paths = paths;
    this.#readOnly = readOnly;
    this.#protectedRoots = protectedRoots;
  }

  get pathMappings() {
    return this.#paths.mappings;
  }

  resolvePath({ filePath, cwd }) {
    return this.#paths.resolve(filePath, cwd);
  }

  async readFile({ filePath, cwd, signal, maxBytes }) {
    if (maxBytes !== undefined && (!Number.isSafeInteger(maxBytes) || maxBytes < 0)) {
      throw new RangeError("creel: maxBytes must be a whole number, zero or more");
    }
    const target = this.#paths.toContainer(filePath, cwd);
    const limit = maxBytes ?? MAX_READ;
    const pieces = [];
    let size = 0;
    await this.#client.serverStream(
      "ReadFile",
      // A max_size of zero would mean any.
      { context: this.#context(), args: { path: Buffer.from(target), max_size: Math.max(limit, 1) } },
      ({ chunk }) => {
        size += chunk.data.length;
        // It may grow while it is read.
        if (size > limit) throw refuse("EFBIG", `'${target}' has more than ${limit} bytes`);
        pieces.push(chunk.data);
      },
      { signal },
    );
    return Buffer.concat(pieces, size);
  }

  async readDirectory({ filePath, cwd, signal }) {
    const target = this.#paths.toContainer(filePath, cwd);
    const entries = [];
    await this.#client.serverStream(
      "ListDirectory",
      { context: this.#context(), args: { path: Buffer.from(target) } },
      ({ batch }) => {
        for (const entry of batch.entries) {
          entries.push({
            name: entry.path.toString("utf8"),
            isDirectory: entry.type === "FILE_TYPE_DIRECTORY",
          });
        }
      },
      { signal },
    );
    return entries;
  }

  async stat({ filePath, cwd, signal }) {
    const target = this.#paths.toContainer(filePath, cwd);
    try {
      const { info } = await this.#client.unary(
        "Stat",
        { context: this.#context(), args: { path: Buffer.from(target) } },
        { signal },
      );
      const type =
        info.type === "FILE_TYPE_REGULAR"
          ? "file"
          : info.type === "FILE_TYPE_DIRECTORY"
            ? "directory"
            : "other";
      const at = info.modified_at ?? { seconds: 0, nanos: 0 };
      return { type, size: info.size, mtimeMs: at.seconds * 1000 + Math.floor(at.nanos / 1e6) };
    } catch (error) {
      if (isCode(error, "NOT_FOUND")) return null;
      throw error;
    }
  }

  async writeFile({ filePath, cwd, data, encoding, mkdir, pinnedPath, signal }) {
    await this.#write(this.#writable(filePath, cwd, pinnedPath), data, encoding, mkdir, false, signal);
  }

  async createFileExclusive({ filePath, cwd, data, encoding, mkdir, pinnedPath, signal }) {
    const target = this.#writable(filePath, cwd, pinnedPath);
    try {
      await this.#write(target, data, encoding, mkdir, true, signal);
      return "created";
    } catch (error) {
      if (isCode(error, "ALREADY_EXISTS")) return "exists";
      throw error;
    }
  }

  async copyFile({ sourcePath, destinationPath, cwd, mkdir, pinnedPath, signal }) {
    const source = this.#paths.toContainer(sourcePath, cwd);
    const destination = this.#writable(destinationPath, cwd, pinnedPath);
    if (mkdir !== false) await this.#makeParents(destination, signal);
    await this.#client.unary(
      "Copy",
      {
        context: this.#context(),
        args: { source: Buffer.from(source), destination: Buffer.from(destination) },
      },
      { signal },
    );
  }

  async mkdirp({ filePath, cwd, pinnedPath, signal }) {
    await this.#makeDirectory(this.#writable(filePath, cwd, pinnedPath), signal);
  }

  async remove({ filePath, cwd, recursive, force, pinnedPath, signal }) {
    const target = this.#writable(filePath, cwd, pinnedPath);
    await this.#client.unary(
      "Remove",
      {
        context: this.#context(),
        args: {
          path: Buffer.from(target),
          recursive: recursive === true,
          missing_ok: force !== false,
        },
      },
      { signal },
    );
  }

  async rename({ from, to, cwd, signal }) {
    const source = this.#writable(from, cwd);
    const destination = this.#writable(to, cwd);
    await this.#makeParents(destination, signal);
    await this.#client.unary(
      "Move",
      {
        context: this.#context(),
        args: { source: Buffer.from(source), destination: Buffer.from(destination) },
      },
      { signal },
    );
  }

  #writable(filePath, cwd, pinnedPath) {
    const target = this.#paths.toContainer(filePath, cwd);
    if (pinnedPath !== undefined && pinnedPath !== target) {
      throw refuse("EACCES", `'${target}' is not the path that was authorized, '${pinnedPath}'`);
    }
    if (this.#readOnly && PathMap.inside(this.#paths.workdir, target)) {
      throw refuse("EROFS", `'${target}' is read-only in this session (workspaceAccess: ro)`);
    }
    const root = this.#protectedRoots.find((each) => PathMap.inside(each, target));
    if (root !== undefined) {
      throw refuse("EROFS", `'${target}' belongs to the gateway's skills, which are read-only`);
    }
    return target;
  }

  async #write(target, data, encoding, mkdir, exclusive, signal) {
    const args = { path: Buffer.from(target), make_parents: mkdir !== false, exclusive };
    await this.#client.clientStream(
      "WriteFile",
      writeMessages(this.#context(), args, toBuffer(data, encoding)),
      { signal },
    );
  }

  async #makeDirectory(target, signal) {
    if (target === this.#paths.workdir) return;
    await this.#client.unary(
      "MakeDirectory",
      { context: this.#context(), args: { path: Buffer.from(target), parents: true } },
      { signal },
    );
  }

  async #makeParents(target, signal) {
    const parent = target.slice(0, target.lastIndexOf("/"));
    if (parent !== "" && PathMap.inside(this.#paths.workdir, parent)) {
      await this.#makeDirectory(parent, signal);
    }
  }
}
