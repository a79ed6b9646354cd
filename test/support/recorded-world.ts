import type { Ledger, LedgerRecord } from "@tokenman/plugin-sdk";
import {
  type KernelSettings,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
} from "@tokenman/plugin-sdk/testkit";
import type { Tokenman } from "./kernel.ts";
import { startLedgered } from "./ledgered.ts";

/** A key of the test's client: it must be in no row. */
export const KEY = "sk-ant-api03-canary0canary0canary0";
/** $1 and $10 a million tokens: 1,000 and 10,000 nano-dollars each. */
const PRICES = '[pricing."test-model"]\ninput = 1\noutput = 10\n';

/** All of TokenMan before an upstream, and the ledger that it writes. */
export interface RecordedWorld extends AsyncDisposable {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  readonly ledger: Ledger;
  /** The only record, or the newest, once it has ended. */
  ended(): Promise<LedgerRecord>;
}

/** `also`: plugins that tests leave out unless they name them, as `retry`. */
export async function recordedWorld(
  config = "",
  env: Record<string, string> = {},
  also: NonNullable<KernelSettings["also"]> = [],
): Promise<RecordedWorld> {
  const upstream = await recordingUpstream();
  const tokenman = await startLedgered({
    // The same request twice is to be answered by the provider twice.
    config: `${config}\n[cache]\nenabled = false\n${PRICES}${providersAt(upstream.url)}`,
    env,
    also,
  });
  const { ledger } = tokenman;
  return {
    upstream,
    tokenman,
    ledger,
    async ended() {
      const [row] = await tokenman.ended();
      return (await ledger.request(row!.exchangeId))!;
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
    },
  };
}

/** A request of a client, whatever its dialect: members that one does not know do no harm. */
export function ask(
  base: string,
  path: string,
  body: object,
  headers: readonly string[] = [],
  signal?: AbortSignal,
) {
  return sendRequest(`${base}${path}`, {
    headers: [
      "content-type",
      "application/json",
      "authorization",
      `Bearer ${KEY}`,
      "user-agent",
      "test/1.0",
      ...headers,
    ],
    body: JSON.stringify({
      model: "test-model",
      max_tokens: 64,
      messages: [{ role: "user", content: "hi" }],
      ...body,
    }),
    ...(signal !== undefined && { signal }),
  });
}

/** A client that reads a stream until this word has come, and leaves in its midst. */
export async function leaveAfter(word: string, base: string, path: string): Promise<void> {
  const abort = new AbortController();
  const reply = await fetch(`${base}${path}`, {
    method: "POST",
    headers: { "x-api-key": KEY, "content-type": "application/json" },
    body: JSON.stringify({
      model: "test-model",
      max_tokens: 64,
      stream: true,
      messages: [{ role: "user", content: "hi" }],
    }),
    signal: abort.signal,
  });
  const reader = reply.body!.getReader();
  let seen = "";
  while (!seen.includes(word)) seen += Buffer.from((await reader.read()).value!).toString();
  abort.abort();
  await reader.read().catch(() => undefined);
}
