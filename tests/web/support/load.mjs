// Tool calls at a steady rate, as a gateway makes them.

import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.env.CREEL_WEB_CACHE, "tests/package.json"));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.resolve(import.meta.dirname, "../../../proto");

export class Gateway {
  constructor(socket) {
    const definition = loader.loadSync("creel/gateway/v1/gateway.proto", { includeDirs: [PROTO], keepCase: true, enums: String });
    const { Gateway: Client } = grpc.loadPackageDefinition(definition).creel.gateway.v1;
    this.client = new Client(`unix:${socket}`, grpc.credentials.createInsecure());
  }
  call(method, request, metadata = {}) {
    const carried = new grpc.Metadata();
    for (const [key, value] of Object.entries(metadata)) carried.set(key, value);
    return new Promise((resolve, reject) => {
      this.client[method](request, carried, { deadline: Date.now() + 120_000 }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }
  // A command to its end; its output is dropped.
  exec(session, argv, metadata = {}) {
    const carried = new grpc.Metadata();
    for (const [key, value] of Object.entries(metadata)) carried.set(key, value);
    return new Promise((resolve, reject) => {
      const stream = this.client.Exec(carried, { deadline: Date.now() + 120_000 });
      let exit = null;
      stream.on("data", ({ event }) => (exit = event.exit ?? exit));
      stream.on("error", reject);
      stream.on("end", () => resolve(exit));
      stream.write({ start: { context: { session }, spec: { argv } } });
      stream.end();
    });
  }
  close() {
    this.client.close();
  }
}

// Calls `make(i)` so many times a second until stopped; `stop()` tells how many were made.
export function steadily(perSecond, make) {
  let made = 0;
  let failed = 0;
  let last = null;
  const began = Date.now();
  const timer = setInterval(() => {
    const due = ((Date.now() - began) / 1000) * perSecond;
    while (made + 1 <= due) {
      ++made;
      make(made).catch((error) => {
        ++failed;
        last = error;
      });
    }
  }, 10);
  return {
    stop() {
      clearInterval(timer);
      return { made, failed, last, seconds: (Date.now() - began) / 1000 };
    },
  };
}
