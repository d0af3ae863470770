// Writes down how long each tool call took, as the gateway measures it: without the model and without
// the hooks before it.
import fs from "node:fs";

export default {
  id: "probe",
  name: "Probe",
  description: "Writes down how long each tool call took.",
  register(api) {
    api.on("after_tool_call", (event, context) => {
      const line = { tool: event.toolName, ms: event.durationMs, session: context.sessionKey, error: event.error };
      fs.appendFileSync(api.pluginConfig.file, `${JSON.stringify(line)}\n`);
    });
  },
};
