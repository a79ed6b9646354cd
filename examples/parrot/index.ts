import { definePlugin, type Exchange } from "@tokenman/plugin-sdk";
import { answer } from "./answer.ts";
import { parrotCommand } from "./command.ts";
import { Memory } from "./memory.ts";

/** A model, `parrot`, that says what it is told, and remembers it. It runs in TokenMan's own process. */
export default definePlugin({
  name: "parrot",
  version: "1.0.0",
  apiVersion: 1,
  description: "A model that repeats what it has heard",
  commands: [parrotCommand],
  async setup(ctx) {
    // Kept over reloads: the next generation goes on with the same memory, and the last one to leave closes it.
    const memory = await ctx.keep(
      "memory",
      () => Memory.open(ctx.host.dataDir),
      (old) => old.close(),
    );
    ctx.contribute("provider", {
      name: "parrot",
      format: "anthropic",
      formats: ["anthropic", "openai"],
      apiBase: undefined,
      models: ["parrot"],
      priority: 0,
      timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
      auth: "none",
      answer(_request, exchange) {
        const phrase = lastSaid(exchange);
        const reply = answer(
          exchange.dialect?.name ?? "",
          phrase ?? "Squawk?",
          exchange.description?.stream ?? false,
        );
        if (reply === undefined)
          return exchange.refuse({
            code: "TM_NO_PROVIDER",
            message: "The parrot speaks Messages and Chat only.",
          });
        if (phrase !== undefined) memory.learn(phrase);
        return reply;
      },
    });
  },
});

/** The newest text of the user's; undefined where there is none. Segments know where every dialect keeps it. */
function lastSaid(exchange: Exchange): string | undefined {
  return exchange.segments.findLast(({ role, kind }) => role === "user" && kind === "text")?.text;
}
