import { definePlugin, Ledger, type LedgerRecord } from "@tokenman/plugin-sdk";
import {
  type KernelSettings,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";

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
  let ledger: Ledger | undefined;
  const probe = definePlugin({
    name: "probe",
    version: "1.0.0",
    apiVersion: 1,
    needs: { ledger: Ledger },
    setup: ({ services }) => {
      ledger = services.ledger;
    },
  });
  const tokenman = await startTokenman({
    plugins: [probe],
    // The same request twice is to be answered by the provider twice.
    config: `${config}\n[cache]\nenabled = false\n${PRICES}${providersAt(upstream.url)}`,
    env,
    also,
  });
  const found = ledger!;
  const ends: string[] = [];
  const waiting: (() => void)[] = [];
  found.watch(({ kind, row }) => {
    if (kind !== "end") return;
    ends.push(row.exchangeId);
    for (const wake of waiting.splice(0)) wake();
  });
  return {
    upstream,
    tokenman,
    ledger: found,
    async ended() {
      while (ends.length === 0) await new Promise<void>((resolve) => waiting.push(resolve));
      const id = ends.shift()!;
      await found.flush();
      return (await found.request(id))!;
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
