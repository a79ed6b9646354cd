import { definePlugin, JsonSyntaxError, parseIndex, spliceJson } from "@tokenman/plugin-sdk";
import { textsIn } from "./texts.ts";

/** Turns the model's text into capitals on its way to the client, whether the reply is a stream or one body. */
export default definePlugin({
  name: "shout",
  version: "1.0.0",
  apiVersion: 1,
  description: "Turns the model's text into capitals",
  setup(ctx) {
    ctx.pipeline((_config, hooks) => {
      hooks.response.tap(async (reply, exchange) => {
        const dialect = exchange.dialect?.name;
        // Errors, TokenMan's own included, are left as they are.
        if (dialect === undefined || reply.status !== 200) return;
        if (reply.streaming) {
          reply.mapEvents({
            event(event) {
              const before = Buffer.from(event.data);
              const after = shout(dialect, before);
              // The same event stands for its very bytes; `withData` keeps its other lines and its line ends.
              return after === before ? event : event.withData(after.toString());
            },
          });
          return;
        }
        const before = await reply.read();
        const after = shout(dialect, before);
        if (after !== before) reply.replaceBody(after);
      });
    });
  },
});

/** The JSON with its texts in capitals and every other byte as it was; the buffer itself where nothing changes. */
function shout(dialect: string, json: Buffer): Buffer {
  try {
    const root = parseIndex(json);
    const edits = textsIn(dialect, root).map(
      (node) => ({ kind: "text", node, text: node.text().toUpperCase() }) as const,
    );
    return spliceJson(json, root, edits);
  } catch (error) {
    // "[DONE]" ends a stream of Chat, and is no JSON.
    if (error instanceof JsonSyntaxError) return json;
    throw error;
  }
}
