// One connection to the supervisor's gateway.sock. It is made at the first call and comes back by
// itself after the supervisor was away.

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { CreelError, describeSilence, fromGrpc } from "./errors.js";

// How long a call waits for a supervisor that is away before it fails.
const CONNECT_MS = 2000;
// How much longer where somebody does listen: on a busy machine the first words take their time.
const GREETING_MS = 6000;
const MAX_MESSAGE = 8 << 20;

function loadService(protos) {
  const definition = protoLoader.loadSync("creel/gateway/v1/gateway.proto", {
    includeDirs: [protos],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  return grpc.loadPackageDefinition(definition).creel.gateway.v1.Gateway;
}

export class Client {
  #settings;
  #stub;

  constructor(settings) {
    this.#settings = settings;
  }

  get socket() {
    return this.#settings.socket;
  }

  // True if the supervisor's protos know this call.
  has(method) {
    return Object.hasOwn(loadServiceOnce(this.#settings.protos).service, method);
  }

  // Each returns what the call answered, or throws a CreelError.
  async unary(method, request, options = {}) {
    const stub = await this.#connected();
    return this.#call(method, options, (callOptions, done) =>
      stub[method](request, new grpc.Metadata(), callOptions, done),
    );
  }

  // All messages of a stream of answers, given to `each` as they come.
  async serverStream(method, request, each, options = {}) {
    const stub = await this.#connected();
    return this.#call(method, options, (callOptions, done) => {
      const call = stub[method](request, new grpc.Metadata(), callOptions);
      call.on("data", (message) => {
        try {
          each(message);
        } catch (error) {
          call.cancel();
          done(error);
        }
      });
      call.on("error", done);
      call.on("end", () => done(null));
      return call;
    });
  }

  // `messages` go out one after the other, at the pace of the socket; one answer comes.
  async clientStream(method, messages, options = {}) {
    const stub = await this.#connected();
    return this.#call(method, options, (callOptions, done) => {
      const call = stub[method](new grpc.Metadata(), callOptions, done);
      (async () => {
        for (const message of messages) {
          if (!call.write(message)) await new Promise((resolve) => call.once("drain", resolve));
        }
        call.end();
      })().catch((error) => {
        call.cancel();
        done(error);
      });
      return call;
    });
  }

  // Both directions at once; `start` is sent first. Returns the call; the caller listens.
  async duplex(method, start) {
    const stub = await this.#connected();
    const call = stub[method](new grpc.Metadata(), {});
    call.write(start);
    return call;
  }

  close() {
    this.#stub?.close();
    this.#stub = undefined;
  }

  #call(method, { signal, timeoutMs }, start) {
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const deadline =
        timeoutMs === 0 ? undefined : Date.now() + (timeoutMs ?? this.#settings.callTimeoutMs);
      const abort = () => call.cancel();
      const done = (error, answer) => {
        signal?.removeEventListener("abort", abort);
        if (!error) resolve(answer);
        else if (signal?.aborted) reject(signal.reason);
        else reject(error.code !== undefined && error.details !== undefined ? fromGrpc(error) : error);
      };
      const call = start(deadline === undefined ? {} : { deadline }, done);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  // A call on a channel without a connection would fail with the channel's words; ours say what is
  // wrong with the socket.
  async #connected() {
    this.#stub ??= new (loadServiceOnce(this.#settings.protos))(
      `unix:${this.#settings.socket}`,
      grpc.credentials.createInsecure(),
      {
        "grpc.default_authority": "creel",
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": 50,
        "grpc.max_reconnect_backoff_ms": 250,
        "grpc.min_reconnect_backoff_ms": 50,
        "grpc.max_receive_message_length": MAX_MESSAGE,
        "grpc.max_send_message_length": MAX_MESSAGE,
        "grpc.use_local_subchannel_pool": 1,
      },
    );
    const channel = this.#stub.getChannel();
    if (channel.getConnectivityState(true) === grpc.connectivityState.READY) return this.#stub;
    const stub = this.#stub;
    const readyWithin = (ms) =>
      new Promise((resolve) => stub.waitForReady(Date.now() + ms, (error) => resolve(!error)));
    if (await readyWithin(CONNECT_MS)) return stub;
    const { listens, words } = await describeSilence(this.#settings.socket);
    if (listens && (await readyWithin(GREETING_MS))) return stub;
    throw new CreelError(words, grpc.status.UNAVAILABLE);
  }
}

const services = new Map();
function loadServiceOnce(protos) {
  let service = services.get(protos);
  if (!service) {
    service = loadService(protos);
    services.set(protos, service);
  }
  return service;
}
