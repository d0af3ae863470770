// One file has up to three names: `/workspace/a`, `a`, and the gateway's host path. This turns each
// into the path in the container. Nothing here touches a file system: what the container may reach
// is the supervisor's to say.

import path from "node:path";

function inside(root, candidate) {
  const relative = path.posix.relative(root, candidate);
  return relative === "" || (relative !== ".." && !relative.startsWith("../"));
}

export class PathMap {
  #aliases;

  // `mappings`: folders of the host and where the container has them, `{hostRoot, containerRoot}`.
  // `aliases`: folders of the container that are another one, `{from, to}`.
  constructor(workdir, mappings, aliases = []) {
    this.workdir = workdir;
    this.#aliases = aliases;
    // The deepest folder that holds a path decides.
    this.mappings = mappings
      .map(({ hostRoot, containerRoot }) => ({ hostRoot: path.resolve(hostRoot), containerRoot }))
      .sort((a, b) => b.hostRoot.length - a.hostRoot.length);
  }

  toContainer(filePath, cwd) {
    const target = this.#named(filePath, cwd);
    const alias = this.#aliases.find(({ from }) => inside(from, target));
    return alias ? path.posix.join(alias.to, path.posix.relative(alias.from, target)) : target;
  }

  #named(filePath, cwd) {
    if (typeof filePath !== "string" || filePath === "") {
      throw new Error("creel: a path is empty");
    }
    if (filePath.includes("\0")) {
      throw new Error("creel: a path holds a NUL byte");
    }
    if (!path.isAbsolute(filePath)) {
      const base = cwd === undefined || cwd === "" ? this.workdir : this.toContainer(cwd);
      return path.posix.normalize(path.posix.join(base, filePath)).replace(/(?<=.)\/$/, "");
    }
    const absolute = path.posix.normalize(filePath).replace(/(?<=.)\/$/, "");
    // A path that the container has by this very name wins over a host folder of the same name.
    if (inside(this.workdir, absolute)) return absolute;
    for (const { hostRoot, containerRoot } of this.mappings) {
      if (inside(hostRoot, absolute)) {
        return path.posix.join(containerRoot, path.posix.relative(hostRoot, absolute));
      }
    }
    return absolute;
  }

  // As the gateway wants it: `relativePath` is for people.
  resolve(filePath, cwd) {
    const containerPath = this.toContainer(filePath, cwd);
    return {
      containerPath,
      relativePath: inside(this.workdir, containerPath)
        ? path.posix.relative(this.workdir, containerPath)
        : containerPath,
    };
  }

  // True if `containerPath` is `root` or lies below it.
  static inside(root, containerPath) {
    return inside(root, containerPath);
  }
}
