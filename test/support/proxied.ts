import type { Plugin } from "@tokenman/plugin-sdk";
import { startTokenman, type Tokenman } from "./kernel.ts";
import { type OutcomeRecorder, outcomeRecorder, type Settled } from "./outcomes.ts";
import { type RawClient, type RawRequest, rawClient, requestBytes } from "./raw-client.ts";

/** A TokenMan whose provider is configured by the test alone. */
export interface Reaching {
  readonly tokenman: Tokenman;
  readonly outcomes: OutcomeRecorder;
  /** Sends a request on a connection of its own. */
  ask(request?: RawRequest): Promise<RawClient>;
  /** The whole text of the reply to a request. */
  reply(request?: RawRequest): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ReachingOptions {
  /** Lines of `[providers.anthropic]`. */
  readonly provider: Readonly<Record<string, string | number | boolean>>;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly also?: readonly ("retry" | "breaker")[];
  readonly plugins?: readonly Plugin[];
  readonly more?: string;
}

export const QUESTION =
  '{"model":"claude-x","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}';

export function providerTable(lines: ReachingOptions["provider"]): string {
  const told = Object.entries({ auth: "client", ...lines }).map(
    ([key, value]) => `${key} = ${JSON.stringify(value)}`,
  );
  return `[providers.anthropic]\n${told.join("\n")}\n`;
}

export async function reaching(options: ReachingOptions): Promise<Reaching> {
  const outcomes = outcomeRecorder();
  const tokenman = await startTokenman({
    config: `${options.more ?? ""}\n${providerTable(options.provider)}`,
    plugins: [outcomes.plugin, ...(options.plugins ?? [])],
    ...(options.env !== undefined && { env: options.env }),
    ...(options.also !== undefined && { also: options.also }),
  });
  const ask = async (request: RawRequest = {}): Promise<RawClient> => {
    const client = await rawClient(tokenman.proxy);
    await client.send(requestBytes({ body: QUESTION, headers: ["Connection: close"], ...request }));
    return client;
  };
  return {
    tokenman,
    outcomes,
    ask,
    async reply(request) {
      const client = await ask(request);
      await client.ended;
      return client.text;
    },
    [Symbol.asyncDispose]: () => tokenman.stop(),
  };
}

/** The kind, status and code of an outcome. */
export function summary({ outcome }: Settled): string {
  return [outcome.kind, outcome.status, outcome.code].filter((part) => part !== undefined).join(" ");
}
