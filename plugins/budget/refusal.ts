import { type BudgetWindow, type Exchange, formatUsd, type ReplyInit } from "@tokenman/plugin-sdk";
import { timeOf } from "./alerts.ts";

const NANOS_PER_USD = 1_000_000_000;

/** 429, with the time to the window's end, and the word that to try again before is no use. */
export function exceeded(
  exchange: Exchange,
  window: BudgetWindow,
  { spent, reserved, now }: { readonly spent: number; readonly reserved: number; readonly now: number },
): ReplyInit {
  const { scope, period, limitNanoUsd, to } = window;
  const open = reserved > 0 ? ` and ${formatUsd(reserved)} reserved by requests under way` : "";
  return exchange.refuse({
    code: "TM_BUDGET_EXCEEDED",
    message: `The ${period} budget (${scope}) of ${formatUsd(limitNanoUsd)} has no room for this request: ${formatUsd(spent)} are spent${open}. It begins anew at ${timeOf(to)}.`,
    headers: ["Retry-After", String(Math.max(1, Math.ceil((to - now) / 1_000))), "x-should-retry", "false"],
    details: {
      scope,
      period,
      limit: limitNanoUsd / NANOS_PER_USD,
      spent: spent / NANOS_PER_USD,
      reserved: reserved / NANOS_PER_USD,
      resets_at: timeOf(to),
    },
  });
}

export function unavailable(exchange: Exchange): ReplyInit {
  return exchange.refuse({
    code: "TM_BUDGET_UNAVAILABLE",
    message: "A budget is set, and what requests spend cannot be written down at present.",
    headers: ["Retry-After", "5"],
  });
}

/** `what` is a model's name, or undefined for a request that no dialect reads. */
export function unpriced(exchange: Exchange, what: string | undefined): ReplyInit {
  const subject = what === undefined ? "this path" : `the model ${JSON.stringify(what.slice(0, 100))}`;
  return exchange.refuse({
    code: "TM_BUDGET_UNPRICED",
    message: `Nobody knows the price of ${subject}, and the budget blocks what has none.`,
    headers: ["x-should-retry", "false"],
  });
}
