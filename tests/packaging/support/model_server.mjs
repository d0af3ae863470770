// The scripted model as a container of its own: 8080 speaks to the gateway, 8081 tells the test what
// the tools answered to a conversation.

import http from "node:http";
import { Model } from "../../e2e/support/model.mjs";

const model = await Model.start({ host: "0.0.0.0", port: 8080 });
http
  .createServer((request, response) => {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => response.end(JSON.stringify(model.results(text))));
  })
  .listen(8081, "127.0.0.1");
