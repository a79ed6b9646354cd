import assert from "node:assert/strict";
import type { Plugin } from "@tokenman/plugin-sdk";
import { type RecordingUpstream, recordingUpstream } from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";
import { type OutcomeRecorder, outcomeRecorder, type Settled } from "./outcomes.ts";
import { type RawClient, type RawRequest, rawClient, requestBytes } from "./raw-client.ts";

/** A TokenMan between one scripted upstream and raw clients, with its outcomes recorded. */
export interface Bench {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  readonly outcomes: OutcomeRecorder;
  /** Connects and sends a request. */
  ask(request?: RawRequest, options?: { readonly paused?: boolean }): Promise<RawClient>;
  /** Checks that every exchange was settled exactly once, and that nothing failed unseen. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface BenchOptions {
  /** Lines under `[server]`. */
  readonly server?: string;
  /** Lines under both providers. */
  readonly provider?: Readonly<Record<string, string | number | boolean>>;
  /** Further sections. */
  readonly more?: string;
  readonly plugins?: readonly Plugin[];
}

export const MESSAGE =
  '{"model":"claude-x","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}';

/** What a stream's regular end looks like. */
export const STOP = 'event: message_stop\ndata: {"type":"message_stop"}\n\n';

export async function bench(options: BenchOptions = {}): Promise<Bench> {
  const upstream = await recordingUpstream();
  const outcomes = outcomeRecorder();
  const lines = Object.entries({ api_base: upstream.url, auth: "client", ...options.provider }).map(
    ([key, value]) => `${key} = ${JSON.stringify(value)}`,
  );
  const providers = ["anthropic", "openai"].map((name) => `[providers.${name}]\n${lines.join("\n")}\n`);
  const tokenman = await startTokenman({
    config: `[server]\n${options.server ?? ""}\n${providers.join("\n")}\n${options.more ?? ""}`,
    plugins: [outcomes.plugin, ...(options.plugins ?? [])],
  });
  return {
    upstream,
    tokenman,
    outcomes,
    async ask(request = {}, how = {}) {
      const client = await rawClient(tokenman.proxy, how);
      await client.send(requestBytes({ body: request.method === "GET" ? "" : MESSAGE, ...request }));
      return client;
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(
        outcomes.all.filter(({ times }) => times !== 1),
        [],
        "every exchange is settled exactly once",
      );
      assert.equal(outcomes.all.length, outcomes.begun, "every exchange is settled");
      const errors = tokenman.log.filter(
        ({ level, message }) => level === "error" && /inside|driven|door/.test(message ?? ""),
      );
      assert.deepEqual(errors, [], "nothing failed inside the kernel");
    },
  };
}

/** The kind, status and code of an outcome. */
export function summary({ outcome }: Settled): string {
  return [outcome.kind, outcome.status, outcome.code].filter((part) => part !== undefined).join(" ");
}
