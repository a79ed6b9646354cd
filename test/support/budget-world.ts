import type { Pricing, RawHeaders, ReplyInit, Tokenizer } from "@tokenman/plugin-sdk";
import {
  type Answer,
  installHost,
  type PluginSettings,
  runPlugin,
  type Sent,
} from "@tokenman/plugin-sdk/testkit";
import { testHost } from "../../cli/test-host.ts";
import budget from "../../plugins/budget/index.ts";
import { MemoryLedger } from "./memory-ledger.ts";
import { pricing } from "./pricing.ts";

installHost(testHost);

/** A dollar per million tokens in, ten out: 1,000 and 10,000 nano-dollars a token. `pricey` is ten times as dear. */
const prices: Pricing = await pricing({
  plain: { input: 1, output: 10 },
  pricey: { input: 10, output: 100 },
});

type Table = NonNullable<PluginSettings["config"]>;
/** The plugin over a ledger in memory, with prices. */
interface Running extends AsyncDisposable {
  readonly ledger: MemoryLedger;
  ask(
    body?: Record<string, unknown>,
    answer?: Answer,
    more?: { readonly project?: string; readonly path?: string; readonly headers?: RawHeaders },
  ): Promise<Sent>;
  /** Spent in each window that was ever reserved in, by scope and period. */
  spent(): Promise<Record<string, number>>;
  readonly run: Awaited<ReturnType<typeof runPlugin>>;
}

/** Runs the plugin, switched on, with `config`. */
export async function running(
  config: Table,
  settings: Omit<PluginSettings, "config" | "services"> = {},
  services: { readonly tokenizer?: Tokenizer; readonly pricing?: Pricing } = {},
): Promise<Running> {
  const ledger = new MemoryLedger();
  const run = await runPlugin(budget, {
    ...settings,
    config: { enabled: true, ...config },
    services: { ledger, pricing: prices, ...services },
  });
  return {
    ledger,
    run,
    ask: (body = {}, answer = bill(100, 10), more = {}) =>
      run.send(
        { path: "/v1/messages", body: { model: "plain", max_tokens: 100, messages: [], ...body }, ...more },
        answer,
      ),
    async spent() {
      const found: Record<string, number> = {};
      for (const { reservation } of ledger.reservations.values())
        for (const window of reservation.windows)
          found[`${window.scope} ${window.period}`] = (await ledger.used([window]))[0]!;
      return found;
    },
    [Symbol.asyncDispose]: () => run.stop(),
  };
}

/** A reply that bills these tokens. */
export function bill(input: number, output: number): ReplyInit {
  return {
    status: 200,
    headers: ["Content-Type", "application/json"],
    body: JSON.stringify({
      type: "message",
      role: "assistant",
      model: "plain",
      content: [],
      stop_reason: "end_turn",
      usage: { input_tokens: input, output_tokens: output },
    }),
  };
}
