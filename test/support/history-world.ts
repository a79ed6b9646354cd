import assert from "node:assert/strict";
import { DecisionMemory, type Rewrite, rewritesOf, type Tokenizer } from "@tokenman/plugin-sdk";
import { type Answer, type PluginRun, runPlugin } from "@tokenman/plugin-sdk/testkit";
import { historyPlugin } from "../../plugins/history/index.ts";
import { ANTHROPIC } from "./client-heads.ts";
import "./kernel.ts";

export const MINUTE_MS = 60_000;
/** A text that is worth cutting. */
export const LONG = "some words that were said long ago, and of which nobody thinks any more. ".repeat(20);

/** A character is a token. */
export const characters: Tokenizer = {
  estimate: async () => ({ tokens: 1, uncorrected: 1, error: undefined }),
  count: async (_model, texts) => texts.map(({ text }) => text.length),
  learn() {},
};
/** Anthropic's ratios. */
const pricing = {
  rates: () => ({ input: 1_000, cacheRead: 100, cacheWrite5m: 1_250, cacheWrite1h: 2_000, output: 5_000 }),
};

interface World {
  /** Milliseconds since the epoch. */
  at: number;
  readonly decisions: DecisionMemory;
  touch: "new" | "known" | "none";
  tokenizer: Tokenizer;
}

/** Where several runs of the plugin follow one another: its time, and what it remembers. */
export function world(): World {
  return { at: 1.8e12, decisions: new DecisionMemory(), touch: "new", tokenizer: characters };
}

/** Runs the plugin alone in that world. */
export function start(on: World, window = 2): Promise<PluginRun> {
  return runPlugin(historyPlugin({ now: () => on.at }), {
    config: { enabled: true, window_size: window },
    services: {
      decisions: on.decisions,
      tokenizer: {
        ...characters,
        count: (...all: Parameters<Tokenizer["count"]>) => on.tokenizer.count(...all),
      },
      pricing,
      guard: { touch: () => on.touch },
    },
  });
}

export const user = (text: string) => ({ role: "user", content: [{ type: "text", text }] });
export const assistant = (text: string) => ({ role: "assistant", content: [{ type: "text", text }] });
/** A call and its result. */
export const called = (id: string): object[] => [
  { role: "assistant", content: [{ type: "tool_use", id, name: "read", input: { path: LONG } }] },
  { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: LONG }] },
];

/** `count` turns, each with a call in it but the last, which is a question alone. */
export function chat(count: number): object[] {
  return Array.from({ length: count }, (_, turn) => [
    user(`question ${turn}`),
    ...(turn < count - 1 ? [...called(`toolu_${turn}`), assistant(`answer ${turn}: ${LONG}`)] : []),
  ]).flat();
}
/** A body in Anthropic's dialect. */
export const body = (messages: readonly object[], more: object = {}): string =>
  JSON.stringify({ model: "claude-test", max_tokens: 9, ...more, messages });
interface Sent {
  readonly out: Buffer;
  readonly rewrites: readonly Rewrite[];
}

/** What the provider gets of a request, and what the plugin noted of it. */
export async function send(
  run: PluginRun,
  sent: string | Buffer,
  {
    headers = ANTHROPIC,
    path = "/v1/messages",
    answer,
  }: { headers?: string[]; path?: string; answer?: Answer } = {},
): Promise<Sent> {
  const { upstream, exchange, reply } = await run.send({ path, headers, body: sent }, answer);
  assert.equal(upstream.length, 1, String(reply.body));
  return { out: upstream[0]!.body, rewrites: rewritesOf(exchange) };
}
