// A model that does what the conversation tells it: the newest directive in a user's text holds a list
// of steps, tool calls and words, and the model takes them one after the other. It keeps no state, so
// conversations cannot disturb each other. A gateway may show an older message again after newer ones,
// so directives are numbered, and so are the calls that are made for them.

import http from "node:http";

const MARK = /@@([A-Za-z0-9_-]+)@@/g;

let directives = 0;

// Text for a user to write, that makes the model take these steps: {tool, args} or {say}.
export function directive(...steps) {
  return `@@${Buffer.from(JSON.stringify({ number: ++directives, steps })).toString("base64url")}@@`;
}

const decode = (mark) => JSON.parse(Buffer.from(mark, "base64url").toString());

function textOf(content) {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text ?? "").join("\n");
}

// An argument {from: N, match: "…(…)…"} is what the pattern finds in the answer of the conversation's
// Nth tool call.
function fillIn(value, answers) {
  if (value === null || typeof value !== "object") return value;
  if (Number.isInteger(value.from) && typeof value.match === "string") {
    return new RegExp(value.match).exec(answers[value.from] ?? "")?.[1] ?? "not-found";
  }
  if (Array.isArray(value)) return value.map((each) => fillIn(each, answers));
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, fillIn(each, answers)]));
}

function findDirective(messages) {
  const all = messages
    .filter((message) => message.role === "user")
    .flatMap((message) => [...textOf(message.content).matchAll(MARK)].map((mark) => decode(mark[1])));
  return all.reduce((newest, each) => (each.number > (newest?.number ?? 0) ? each : newest), undefined);
}

// What the tools answered to the calls of a directive, in their order. Gateways keep letters and digits
// of a call's id.
const callId = (number, step) => `call${number}x${step}y${Math.random().toString(36).slice(2, 10)}`;
function answersTo(number, messages) {
  return messages
    .filter((message) => message.role === "tool")
    .map((message) => ({ id: new RegExp(`^call_?${number}x(\\d+)y`).exec(message.tool_call_id ?? ""), text: textOf(message.content) }))
    .filter(({ id }) => id !== null)
    .sort((a, b) => Number(a.id[1]) - Number(b.id[1]))
    .map(({ text }) => text);
}

export class Model {
  // Every request, newest last.
  requests = [];

  static async start({ host = "127.0.0.1", port = 0 } = {}) {
    const model = new Model();
    model.server = http.createServer((request, response) => model.#serve(request, response));
    await new Promise((resolve) => model.server.listen(port, host, resolve));
    model.url = `http://127.0.0.1:${model.server.address().port}/v1`;
    return model;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  // What the tools answered to the conversation that holds this directive.
  results(text) {
    const [[, mark]] = text.matchAll(MARK);
    const { number } = decode(mark);
    return this.requests.map((body) => answersTo(number, body.messages)).findLast((answers) => answers.length > 0) ?? [];
  }

  // Whether any request ever showed the model this text.
  hasSeen(text) {
    return this.requests.some((body) => JSON.stringify(body.messages).includes(text));
  }

  #serve(request, response) {
    let data = "";
    request.on("data", (piece) => (data += piece));
    request.on("end", () => {
      if (!request.url.endsWith("/chat/completions")) {
        response.end(JSON.stringify({ object: "list", data: [{ id: "scripted", object: "model" }] }));
        return;
      }
      const body = JSON.parse(data);
      this.requests.push(body);
      this.#answer(body, response);
    });
  }

  #answer(body, response) {
    const found = findDirective(body.messages);
    const answers = found ? answersTo(found.number, body.messages) : [];
    const done = answers.length;
    const step = found?.steps[done] ?? { say: "done" };
    const call = step.tool && {
      id: callId(found.number, done),
      type: "function",
      function: { name: step.tool, arguments: JSON.stringify(fillIn(step.args ?? {}, answers)) },
    };
    const message = call
      ? { role: "assistant", content: null, tool_calls: [call] }
      : { role: "assistant", content: step.say };
    const finish = call ? "tool_calls" : "stop";
    const base = { id: "chatcmpl-1", created: 1, model: "scripted" };
    const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
    if (!body.stream) {
      response.setHeader("content-type", "application/json");
      response.end(
        JSON.stringify({
          ...base,
          object: "chat.completion",
          choices: [{ index: 0, message, finish_reason: finish }],
          usage,
        }),
      );
      return;
    }
    response.setHeader("content-type", "text/event-stream");
    const send = (delta, reason = null) =>
      response.write(
        `data: ${JSON.stringify({
          ...base,
          object: "chat.completion.chunk",
          choices: [{ index: 0, delta, finish_reason: reason }],
          ...(reason ? { usage } : {}),
        })}\n\n`,
      );
    if (call) send({ role: "assistant", tool_calls: [{ index: 0, ...call }] });
    else for (const piece of message.content.match(/[^]{1,40}/g) ?? [""]) send({ role: "assistant", content: piece });
    send({}, finish);
    response.end("data: [DONE]\n\n");
  }
}
