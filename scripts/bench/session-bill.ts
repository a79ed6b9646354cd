/**
 * Prices a recorded agent session and compares each model call with what the recording says it cost.
 * Run: node scripts/bench/session-bill.ts SESSION.jsonl
 */
import { formatUsd, type Price, type Pricing, type Usage } from "@tokenman/plugin-sdk";
import { Catalogue } from "../../plugins/pricing/catalogue.ts";
import { Overrides } from "../../plugins/pricing/overrides.ts";
import { Pricer } from "../../plugins/pricing/pricer.ts";
import { type BilledUsage, readSession, type SessionTurn } from "./session.ts";

/** One model call's bill. */
export interface TurnBill {
  readonly index: number;
  readonly model: string;
  readonly stopReason: string;
  readonly usage: Usage;
  readonly price: Price;
  /** What the recording says, rounded to a nano-dollar; undefined where it says nothing. */
  readonly recordedNanoUsd: number | undefined;
}

export interface SessionBill {
  /** Calls whose usage the provider reported. */
  readonly billed: readonly TurnBill[];
  /** Calls that were broken off before any usage came: recorded as $0, which nobody knows to be true. */
  readonly interrupted: readonly TurnBill[];
  /** Of the billed ones, those that are not priced exactly as recorded. */
  readonly different: readonly TurnBill[];
  readonly totalNanoUsd: number;
  readonly recordedNanoUsd: number;
}

/** Prices every call of a session, as used `at` (milliseconds since the epoch). */
export function billSession(turns: readonly SessionTurn[], pricing: Pricing, at: number): SessionBill {
  const bills = turns.map(({ index, model, stopReason, usage: recorded }): TurnBill => {
    const usage = usageOf(recorded, model);
    const price = pricing.price({ model, provider: "anthropic", format: "anthropic", at }, usage);
    return { index, model, stopReason, usage, price, recordedNanoUsd: nanoUsd(recorded.costUsd) };
  });
  const billed = bills.filter(({ usage }) => hasTokens(usage));
  return {
    billed,
    interrupted: bills.filter(({ usage }) => !hasTokens(usage)),
    different: billed.filter(({ price, recordedNanoUsd }) => totalOf(price) !== recordedNanoUsd),
    totalNanoUsd: billed.reduce((sum, { price }) => sum + (totalOf(price) ?? 0), 0),
    recordedNanoUsd: billed.reduce((sum, bill) => sum + (bill.recordedNanoUsd ?? 0), 0),
  };
}

/** The recording does not tell lifetimes apart: its agent wrote for five minutes, as its costs show. */
function usageOf({ input, output, cacheRead, cacheWrite }: BilledUsage, model: string): Usage {
  return {
    source: "provider",
    inputTokens: input,
    cacheReadTokens: cacheRead,
    cacheWrite5mTokens: cacheWrite,
    cacheWrite1hTokens: 0,
    outputTokens: output,
    reasoningTokens: 0,
    serverTools: {},
    serviceTier: undefined,
    model,
    complete: true,
  };
}

function hasTokens(usage: Usage): boolean {
  return usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.outputTokens > 0;
}

function totalOf(price: Price): number | undefined {
  return price.priced ? price.cost.total : undefined;
}

/** The recording's costs are sums of floating-point products: far nearer to the true cost than half a nano-dollar. */
function nanoUsd(usd: number | undefined): number | undefined {
  return usd === undefined ? undefined : Math.round(usd * 1e9);
}

if (import.meta.main) {
  const [path] = process.argv.slice(2);
  if (path === undefined) throw new Error("usage: session-bill.ts SESSION.jsonl");
  const pricing = new Pricer(new Overrides({}), new Catalogue());
  const bill = billSession(readSession(path), pricing, Date.now());
  const lines = [
    `${bill.billed.length} calls billed, ${formatUsd(bill.totalNanoUsd)}; recorded ${formatUsd(bill.recordedNanoUsd)}`,
    `${bill.billed.length - bill.different.length} of them equal to the nano-dollar`,
    ...bill.different.map(
      ({ index, price, recordedNanoUsd }) =>
        `call ${index}: ${price.priced ? price.cost.total : price.reason}, recorded ${recordedNanoUsd}`,
    ),
    `${bill.interrupted.length} calls broken off without a usage, recorded as $0: ${bill.interrupted
      .map(({ index, stopReason }) => `${index} (${stopReason})`)
      .join(", ")}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}
