import { DecisionMemory } from "@tokenman/plugin-sdk";
import { type PluginSettings, runPlugin } from "@tokenman/plugin-sdk/testkit";
import { firstParty } from "../../cli/registry.ts";
import { dedupPlugin } from "../../plugins/dedup/index.ts";

/** The plugins that a TokenMan loads without being asked for. */
export const NAMED = new Set(firstParty.names());

/** In milliseconds. */
export const MINUTE = 60_000;

/** A TokenMan of nothing but the plugin, with a clock that the test moves. */
export async function start(settings: PluginSettings = {}) {
  const clock = { ms: Date.UTC(2026, 10, 24) };
  const run = await runPlugin(dedupPlugin({ now: () => clock.ms }), {
    ...settings,
    config: { min_tokens: { "claude-test": 300 }, ...settings.config },
    services: { decisions: new DecisionMemory(), ...settings.services },
  });
  return { run, clock, [Symbol.asyncDispose]: () => run.stop() };
}

/** A text of 400 words. */
export const long = (word: string): string => `${word} `.repeat(400);

/** The requests of a conversation with texts as strings, where a block array is not needed. */
export function plain(turns: number, seed = "a"): object {
  const messages = Array.from({ length: 2 * turns - 1 }, (_, index) => ({
    role: index % 2 === 0 ? "user" : "assistant",
    content: `${seed}${index} ${long("text")}`,
  }));
  return { model: "claude-test", max_tokens: 9, system: long("system"), messages };
}
