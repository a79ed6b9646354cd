import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { definePlugin, type Exchange, type ReplyInit, type Rewrite, rewritesOf } from "@tokenman/plugin-sdk";
import {
  dialectOf,
  providersAt,
  type RecordedRequest,
  type RecordingUpstream,
  recordingUpstream,
  replyTo,
  sendRequest,
  textReply,
} from "@tokenman/plugin-sdk/testkit";
import { summarizePlugin } from "../../plugins/summarize/index.ts";
import { INTRODUCTION } from "../../plugins/summarize/maker.ts";
import { ANTHROPIC } from "./client-heads.ts";
import { startTokenman, type Tokenman } from "./kernel.ts";

export const limits = { timeout: 30_000 };
export const MINUTE_MS = 60_000;
/** A text that is worth a summary, and the summary. */
export const LONG = "some words that were said long ago, and of which nobody thinks any more. ".repeat(400);
export const SUMMARY = "The user asked questions, and all of them were answered.";
/** The user agent of the requests that ask for a summary. */
export const AGENT = "tokenman-summarize";

/** A TokenMan whose time is `at`, between a client and a provider that answers summaries with {@link SUMMARY}. */
class World {
  at = Date.now();
  readonly dataDir: string;
  readonly upstream: RecordingUpstream;
  readonly config: string;
  tokenman!: Tokenman;
  /** Client exchanges that have ended, in order. */
  readonly ended: Exchange[] = [];
  /** What the provider's next answers to the client say of its cache. */
  usage: object | undefined;
  #wake: (() => void) | undefined;

  constructor(dataDir: string, upstream: RecordingUpstream, config: string) {
    this.dataDir = dataDir;
    this.upstream = upstream;
    this.config = config;
    upstream.script(async (call) => {
      await call.received;
      const dialect = dialectOf(call.request.target)!;
      if (isOwn(call.request)) return call.reply(billed(textReply(dialect, SUMMARY)));
      if (this.usage === undefined) return call.reply(billed(replyTo(call.request)));
      const content = [{ type: "text", text: "ok" }];
      const reply = { type: "message", role: "assistant", content };
      const usage = { output_tokens: 2, ...this.usage };
      return call.reply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: JSON.stringify({ ...reply, model: "claude-opus-4-5", stop_reason: "end_turn", usage }),
      });
    });
  }
  /** `isUsual`: with the plugin at its usual place, on the usual clock. */
  async start(more = "", isUsual = false): Promise<void> {
    const probe = definePlugin({
      name: "probe",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) => {
          hooks.lifecycle.for("settled").tap((exchange) => {
            if (exchange.madeBy === undefined) this.ended.push(exchange);
            this.#wake?.();
          });
        }),
    });
    this.tokenman = await startTokenman({
      dataDir: this.dataDir,
      plugins: isUsual ? [probe] : [summarizePlugin({ now: () => this.at }), probe],
      config: `${providersAt(this.upstream.url)}\n[compression.dedup]\nenabled = false\n[compression.rules]\nenabled = false\n[compression.summarization]\nenabled = true\n${more || this.config}\n`,
    });
  }
  /** Sends a request, and waits for its exchange's end. Gives what reached the provider, and what was noted. */
  async send(
    body: string | Buffer,
    { path = "/v1/messages", headers = ANTHROPIC }: { path?: string; headers?: readonly string[] } = {},
  ): Promise<{ out: Buffer; rewrites: readonly Rewrite[]; exchange: Exchange }> {
    const before = this.ended.length;
    const reply = await sendRequest(`${this.tokenman.proxy}${path}`, { headers, body });
    assert.equal(reply.status, 200, String(reply.body));
    while (this.ended.length === before) await new Promise<void>((resolve) => (this.#wake = resolve));
    const exchange = this.ended.at(-1)!;
    const out = this.upstream.requests.filter((request) => !isOwn(request)).at(-1)!.body;
    return { out, rewrites: rewritesOf(exchange).filter(({ plugin }) => plugin === "summarize"), exchange };
  }
  get own(): readonly RecordedRequest[] {
    return this.upstream.requests.filter(isOwn);
  }
  async metric(name: string, outcome: string): Promise<number> {
    const text = await (await fetch(`${this.tokenman.dashboard}/metrics`)).text();
    return Number(new RegExp(`${name}\\{outcome="${outcome}"\\} (\\d+)`).exec(text)?.[1]);
  }
  /** Resolves when no summary is being made. */
  async idle(): Promise<void> {
    for (;;) {
      const text = await (await fetch(`${this.tokenman.dashboard}/metrics`)).text();
      if (/^tokenman_summaries_under_way 0$/m.test(text)) return;
    }
  }
  /** Resolves when so many summaries have come to this end. */
  async summaries(count: number, outcome = "made"): Promise<void> {
    while ((await this.metric("tokenman_summaries_total", outcome)) < count);
  }
}

/** As if a model that has a price had answered. */
const billed = (reply: ReplyInit): ReplyInit => ({
  ...reply,
  body: String(reply.body).replace(/"model":"[^"]*"/, '"model":"claude-opus-4-5"'),
});
const isOwn = (request: RecordedRequest): boolean => request.header("user-agent") === AGENT;

/** Runs `use` in a world of its own, with the plugin's `config`. */
export async function inWorld(
  use: (world: World) => Promise<void>,
  config = "max_messages = 12\nsummary_max_tokens = 100",
): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), "summarize-"));
  await using upstream = await recordingUpstream();
  const world = new World(dataDir, upstream, config);
  await world.start();
  try {
    await use(world);
    for (const plugin of world.tokenman.status().plugins) assert.equal(plugin.failures, 0, plugin.name);
  } finally {
    await world.tokenman.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** A body in Anthropic's dialect. */
export const body = (messages: readonly object[], more: object = {}): string =>
  JSON.stringify({ model: "claude-opus-4-5", max_tokens: 9, ...more, messages });
/** What stands in the place of what was summed up. */
export const summary = { role: "assistant", content: `${INTRODUCTION}\n\n${SUMMARY}` };
