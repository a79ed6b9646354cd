import { setTimeout as wait } from "node:timers/promises";
import { definePlugin, type Plugin } from "@tokenman/plugin-sdk";
import { PromptCache } from "./prompt-cache.ts";
import { MODELS, mockProvider } from "./provider.ts";
import type { Directions } from "./reply.ts";
import { mockSchema } from "./schema.ts";
import type { Sleep } from "./stream.ts";

/** What tests and replays put in the place of real time, and of the rules. */
export interface MockOptions {
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  readonly sleep?: Sleep;
  readonly directions?: Directions;
}

/** The embedded provider: all of TokenMan runs with no key and no network. */
export function mockPlugin({ now = Date.now, sleep = delay, directions }: MockOptions = {}): Plugin {
  return definePlugin({
    name: "mock",
    version: "0.1.0",
    apiVersion: 1,
    contributes: { providers: { mock: MODELS } },
    description: "Answers the models mock and mock-… in-process, in every dialect",
    section: "mock",
    configSchema: mockSchema,
    async setup(ctx) {
      // A conversation goes on over a reload, and so does what a provider would have cached of it.
      const cache = await ctx.keep("prompt-cache", () => new PromptCache(now));
      ctx.contribute("provider", mockProvider({ config: ctx.config, cache, now, sleep, directions }));
    },
  });
}

function delay(ms: number, signal: AbortSignal): Promise<unknown> {
  return wait(ms, undefined, { signal });
}

export default mockPlugin();
