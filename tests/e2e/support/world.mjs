// All of it: model, supervisor, chat server and gateway, and one conversation's turn.

import { directive, Model } from "./model.mjs";
import { Gateway } from "./gateway.mjs";
import { Supervisor } from "./supervisor.mjs";
import { Telegram } from "./telegram.mjs";

export class World {
  static async start({ telegram = false, supervisor = {}, gateway = {} } = {}) {
    const world = new World();
    try {
      world.model = await Model.start();
      world.telegram = telegram ? await Telegram.start() : undefined;
      world.supervisor = await Supervisor.start(supervisor);
      world.gateway = await Gateway.start({
        model: world.model,
        supervisor: world.supervisor,
        telegram: world.telegram,
        ...gateway,
      });
      return world;
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  // Has the model take these steps in a session; what the tools answered, in order.
  async turn(session, ...steps) {
    const text = directive(...steps);
    this.reply = await this.gateway.say(session, text);
    return this.model.results(text);
  }

  async stop() {
    await this.gateway?.stop();
    await this.supervisor?.stop();
    await this.telegram?.stop();
    await this.model?.stop();
  }
}
