// The part of Telegram's Bot API that the gateway's channel uses, on loopback: people write, the bot
// answers, and every answer is kept.

import http from "node:http";

export const BOT = { id: 4242, is_bot: true, first_name: "Claw", username: "claw_bot" };
export const TOKEN = "4242:AAE2e-token-for-a-fake-server-only";

export class Telegram {
  // What the bot sent: {method, chat_id, text, …}.
  sent = [];
  #updates = [];
  #waiting = [];
  #next = 1;
  #files = new Map();

  static async start() {
    const telegram = new Telegram();
    telegram.server = http.createServer((request, response) => telegram.#serve(request, response));
    await new Promise((resolve) => telegram.server.listen(0, "127.0.0.1", resolve));
    telegram.url = `http://127.0.0.1:${telegram.server.address().port}`;
    return telegram;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  // Somebody writes; without `group` to the bot alone.
  write({ from, name = `User${from}`, text, group, photo }) {
    const id = this.#next++;
    const message = {
      message_id: id,
      date: Math.floor(Date.now() / 1000),
      from: { id: from, is_bot: false, first_name: name },
      chat: group ? { id: group, type: "supergroup", title: "Lobster fans" } : { id: from, type: "private", first_name: name },
    };
    if (photo) {
      const fileId = `file-${id}`;
      this.#files.set(fileId, photo);
      message.photo = [{ file_id: fileId, file_unique_id: fileId, width: 8, height: 8, file_size: photo.length }];
      message.caption = text;
    } else {
      message.text = text;
    }
    this.#updates.push({ update_id: id, message });
    for (const wake of this.#waiting.splice(0)) wake();
    return id;
  }

  textsTo(chat) {
    return this.sent.filter((each) => String(each.chat_id) === String(chat)).map((each) => each.text ?? each.caption ?? "");
  }

  async #serve(request, response) {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const raw = Buffer.concat(pieces);
    const file = /^\/file\/bot[^/]+\/(.+)$/.exec(request.url);
    if (file) {
      response.end(this.#files.get(file[1]) ?? "");
      return;
    }
    const url = new URL(request.url, "http://x");
    const method = url.pathname.split("/").at(-1);
    let args = Object.fromEntries(url.searchParams);
    const type = request.headers["content-type"] ?? "";
    if (type.includes("json") && raw.length > 0) args = { ...args, ...JSON.parse(raw) };
    else if (type.includes("urlencoded")) args = { ...args, ...Object.fromEntries(new URLSearchParams(raw.toString())) };
    else if (type.includes("multipart")) {
      for (const [, name, value] of raw.toString("latin1").matchAll(/name="([^"]+)"\r\n\r\n([\s\S]*?)\r\n--/g)) {
        args[name] = Buffer.from(value, "latin1").toString();
      }
      args.raw = raw;
    }
    const result = await this.#call(method, args);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ ok: true, result }));
  }

  async #call(method, args) {
    switch (method) {
      case "getMe":
        return { ...BOT, can_join_groups: true, can_read_all_group_messages: true, supports_inline_queries: false };
      case "getUpdates": {
        const offset = Number(args.offset ?? 0);
        const wanted = () => this.#updates.filter((each) => each.update_id >= offset);
        if (wanted().length === 0 && Number(args.timeout ?? 0) > 0) {
          await Promise.race([
            new Promise((resolve) => this.#waiting.push(resolve)),
            new Promise((resolve) => setTimeout(resolve, Math.min(Number(args.timeout), 20) * 1000).unref()),
          ]);
        }
        return wanted();
      }
      case "getFile":
        return { file_id: args.file_id, file_unique_id: args.file_id, file_path: args.file_id, file_size: this.#files.get(args.file_id)?.length };
      case "getChat":
        return { id: Number(args.chat_id), type: Number(args.chat_id) < 0 ? "supergroup" : "private", title: "Lobster fans" };
      case "getChatMember":
        return { status: "member", user: { id: Number(args.user_id), is_bot: false, first_name: "U" } };
      default:
        if (/^(?:send(?!ChatAction)|edit|copy|forward)/.test(method)) {
          this.sent.push({ method, ...args });
          return {
            message_id: this.#next++,
            date: Math.floor(Date.now() / 1000),
            from: BOT,
            chat: { id: Number(args.chat_id), type: Number(args.chat_id) < 0 ? "supergroup" : "private" },
            text: args.text,
          };
        }
        return true;
    }
  }
}
