import assert from "node:assert/strict";
import type { LedgerAttempt, LedgerRecord } from "@tokenman/plugin-sdk";
import {
  type RecordingUpstream,
  recordingUpstream,
  type Script,
  selfSigned,
  textScript,
} from "@tokenman/plugin-sdk/testkit";
import { type Ledgered, startLedgered } from "./ledgered.ts";
import type { Sdk, SdkOptions } from "./sdks.ts";

/** What a client of the farm saw: the text, the status of an error, or that the stream broke or had an error in it. */
export type Seen =
  | { readonly text: string }
  | {
      readonly status: number;
      readonly message: string;
      /** Read from where the vendor's SDK finds them. */
      readonly type: string | undefined;
      readonly code: string | undefined;
    }
  | { readonly broken: string };

/**
 * Providers with real sockets, a TokenMan with everything on that bears on them, and its ledger. Each format has its
 * provider and a spare one with a key of its own; beside them one whose certificate nobody trusts, one whose name does not
 * resolve, and one that falls silent: they are asked for by models of these names, and have no spare.
 */
export interface Farm extends AsyncDisposable {
  readonly tokenman: Ledgered;
  readonly first: RecordingUpstream;
  readonly second: RecordingUpstream;
  readonly secure: RecordingUpstream;
  /** What the two providers of each format do next, one after the other; afterwards they answer properly. */
  play(first?: readonly Script[], second?: readonly Script[]): void;
  see(sdk: Sdk, streamed: boolean, options?: SdkOptions): Promise<Seen>;
  /** The next exchange that ended, as it is read back from the ledger. */
  recorded(): Promise<LedgerRecord>;
}

/** What the two SDKs throw: Anthropic's has the body as it came, OpenAI's has its `error` taken apart. */
interface VendorError {
  readonly status?: number;
  readonly message: string;
  readonly type?: string;
  readonly code?: string;
  readonly error?: {
    readonly error?: { readonly type?: string; readonly details?: { readonly error_code?: string } };
  };
}

export async function startFarm(): Promise<Farm> {
  const first = await recordingUpstream();
  const second = await recordingUpstream();
  const secure = await recordingUpstream({ tls: selfSigned() });
  process.env["FARM_TEST_KEY"] = "spare-key";
  const table = (name: string, lines: Readonly<Record<string, string | number | readonly string[]>>) =>
    `[providers.${name}]\n${Object.entries(lines)
      .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
      .join("")}`;
  const only = (model: string) => ({ models: [model] });
  const keyed = { key_ref: "env:FARM_TEST_KEY" };
  const providers = ["anthropic", "openai"].flatMap((format) => [
    table(format, { api_base: first.url, auth: "client" }),
    table(`${format}-spare`, { ...keyed, format, api_base: second.url, priority: 1 }),
    table(`${format}-tls`, { ...keyed, ...only(`${format}-tls`), format, api_base: secure.url }),
    table(`${format}-dns`, {
      ...keyed,
      ...only(`${format}-dns`),
      format,
      api_base: "http://nowhere.invalid",
    }),
    table(`${format}-idle`, {
      ...keyed,
      ...only(`${format}-idle`),
      format,
      api_base: first.url,
      idle_timeout: 0.1,
    }),
  ]);
  const map = ["anthropic", "openai"].flatMap((format) =>
    ["tls", "dns", "idle"].map((what) => `${format}-${what} = "${format}-${what}"`),
  );
  const tokenman = await startLedgered({
    also: ["retry", "breaker"],
    // Nothing is remembered from one case to the next: the breaker never opens, and no conversation stays elsewhere.
    config: `[cache]
enabled = false
[pricing."*"]
input = 3
output = 15
[resilience]
retry_max_attempts = 2
retry_base_delay_ms = 1
retry_max_delay_ms = 5
cb_failure_threshold = 1000
cb_error_rate = 0
[routing]
affinity_seconds = 0
[routing.model_map]
${map.join("\n")}
${providers.join("\n")}`,
  });
  return {
    tokenman,
    first,
    second,
    secure,
    play(ofFirst = [], ofSecond = []) {
      assert.deepEqual([...first.failures, ...second.failures], []);
      for (const [upstream, scripts] of [
        [first, ofFirst],
        [second, ofSecond],
      ] as const) {
        let next = 0;
        upstream.script((call) => (scripts[next++] ?? textScript())(call));
      }
    },
    async see(sdk, streamed, options) {
      let text = "";
      const onText = (so: string) => {
        text = so;
        options?.onText?.(so);
      };
      try {
        const whole = streamed
          ? await sdk.stream(tokenman.proxy, { ...options, onText })
          : await sdk.ask(tokenman.proxy, options);
        return { text: whole };
      } catch (cause) {
        const { status, message, error, code, type } = cause as VendorError;
        if (status === undefined) return { broken: text };
        const inner = error?.error;
        return { status, message, type: inner?.type ?? type, code: inner?.details?.error_code ?? code };
      }
    },
    async recorded() {
      const [row] = await tokenman.ended();
      const found = await tokenman.ledger.request(row!.exchangeId);
      assert.ok(found !== undefined, "it can be read back");
      return found;
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      for (const upstream of [first, second, secure]) await upstream.stop();
    },
  };
}

/**
 * An attempt in words: its provider, how it ended, and its bill: "paid" by the provider's own usage, "estimated",
 * "unknown" where something was used and nobody knows what, "free" where nothing was.
 */
export function told({ provider, result, cost, estimated, unpriced }: LedgerAttempt): string {
  const end =
    result.kind === "reply"
      ? `${result.status}${result.body === "complete" || result.status >= 300 ? "" : ` ${result.body}`}`
      : result.kind === "error"
        ? result.code.replace("TM_UPSTREAM_", "")
        : result.kind;
  const isPaid = cost !== undefined && cost.total > 0;
  const bill = isPaid ? (estimated ? "estimated" : "paid") : unpriced === undefined ? "free" : "unknown";
  return `${provider.replace(/^(anthropic|openai)/, "it")} ${end} ${bill}`;
}
