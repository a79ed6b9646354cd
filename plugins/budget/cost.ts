import { type Attempt, AttemptBill, type Exchange, type Pricing, priceQuery } from "@tokenman/plugin-sdk";

/** Whether the attempt certainly costs nothing: it was not sent, or the provider refused it, be it in a stream. */
export function isFree({ result, status, failedFirst }: Attempt): boolean {
  if (failedFirst) return true;
  if (result === undefined) return false;
  switch (result.kind) {
    case "skipped":
      return true;
    case "error":
      return !result.bytesSent;
    case "reply":
      return result.status >= 300;
    case "cancelled":
      return status !== undefined && status >= 300;
  }
}

/**
 * What an attempt that has ended cost, in nano-dollars: the bill, as the ledger has it; else the provider's usage at the
 * known price; else `expected`, what was estimated before, for one that was sent and never billed. Undefined where that
 * would be the answer, and it is not known.
 */
export function costOf(
  exchange: Exchange,
  attempt: Attempt,
  pricing: Pricing,
  expected: number | undefined,
): number | undefined {
  const bill = attempt.get(AttemptBill);
  if (bill?.cost !== undefined) return bill.cost.total;
  if (isFree(attempt)) return 0;
  if (bill !== undefined) return bill.unpriced === undefined ? 0 : expected;
  const { usage } = attempt;
  if (usage === undefined) return expected;
  const price = pricing.price(priceQuery(exchange, attempt), usage);
  if (!price.priced) return expected;
  // A reply that broke off was still being generated when its usage was told.
  if (usage.complete) return price.cost.total;
  return expected === undefined ? undefined : Math.max(price.cost.total, expected);
}
