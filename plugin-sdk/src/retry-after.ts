import { headerValue, type RawHeaders } from "./headers.ts";

const NUMBER = /^[+-]?\d+(?:\.\d+)?$/;
/** The three forms of RFC 9110, 5.6.7, told by the weekday that each begins with. */
const DATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? /i;

/**
 * How many milliseconds from now the provider asks to be left alone: `retry-after-ms`, else `Retry-After` in seconds or as
 * an HTTP date (RFC 9110, 10.2.3). 0 for a time that has passed; undefined where it says nothing that can be read.
 * May be infinite. `now`: milliseconds since the epoch.
 */
export function retryAfterMs(headers: RawHeaders, now: number): number | undefined {
  const ms = headerValue(headers, "retry-after-ms")?.trim();
  if (ms !== undefined && NUMBER.test(ms)) return Math.max(0, Number(ms));
  const value = headerValue(headers, "retry-after")?.trim();
  if (value === undefined) return undefined;
  if (NUMBER.test(value)) return Math.max(0, Number(value) * 1_000);
  if (!DATE.test(value)) return undefined;
  // The oldest of the forms names no zone; all three mean GMT.
  const at = Date.parse(/\b(?:GMT|UTC)$/i.test(value) ? value : `${value} GMT`);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
