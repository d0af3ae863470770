import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [, , socket, protos] = process.argv;
const definition = protoLoader.loadSync("creel/gateway/v1/gateway.proto", { includeDirs: [protos], keepCase: true, oneofs: true });
const { Gateway } = grpc.loadPackageDefinition(definition).creel.gateway.v1;
const creel = new Gateway(`unix:${socket}`, grpc.credentials.createInsecure(), { "grpc.default_authority": "creel" });
const context = { session: "agent:main:irc:group:crabs", sender: "irc:mario" };

const write = (path, data) =>
  new Promise((resolve, reject) => {
    const call = creel.WriteFile((error, answer) => (error ? reject(error) : resolve(answer)));
    call.write({ start: { context, args: { path: Buffer.from(path), make_parents: true } } });
    call.write({ data });
    call.end();
  });

const run = (shell, seconds = 30) =>
  new Promise((resolve, reject) => {
    const call = creel.Exec();
    call.write({ start: { context, spec: { shell, timeout: { seconds } } } });
    call.on("error", reject);
    call.on("data", ({ event }) => {
      if (event.output) process.stdout.write(event.output.data);
      else if (event.exit) resolve(event.exit);
    });
  });

await write("notes/hello.txt", Buffer.from("hello from JavaScript\n"));
process.exit((await run("cat notes/hello.txt; exit 3")).code);
