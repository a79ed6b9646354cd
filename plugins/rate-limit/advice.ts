import { parseDuration, type RawHeaders } from "@tokenman/plugin-sdk";

/** No advice holds for longer than this: a provider's clock may be wrong, a header absurd. */
export const MAX_ADVICE_MS = 15 * 60_000;

export interface Quota {
  readonly remaining: number;
  /** Milliseconds until it is full again. */
  readonly resetMs: number;
}

/** What a provider's reply says about its limits. */
export interface Advice {
  /** How long it wants to be left alone. */
  readonly pauseMs: number | undefined;
  readonly requests: Quota | undefined;
  /** The scarcest kind of tokens. */
  readonly tokens: Quota | undefined;
}

/** `anthropic-ratelimit-input-tokens-remaining`, and whoever writes it in that order. */
const UNIT_FIRST = /^[a-z-]{0,40}ratelimit-(requests|tokens|input-tokens|output-tokens)-(remaining|reset)$/;
/** `x-ratelimit-remaining-requests`, as OpenAI and its kin have it. */
const UNIT_LAST = /^x-ratelimit-(remaining|reset)-(requests|tokens)$/;

/** Statuses with which Retry-After is about the provider, not about this one request. */
const PAUSES: ReadonlySet<number> = new Set([429, 503, 529]);

/** `now`: milliseconds since the epoch, which the vendors' absolute times are read by. What is not understood is left out. */
export function adviceOf(status: number, headers: RawHeaders, now: number): Advice {
  const found = new Map<string, { remaining?: number; resetMs?: number }>();
  let seconds: number | undefined;
  let exact: number | undefined;
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index]!.toLowerCase();
    const value = headers[index + 1]!.trim();
    if (name === "retry-after") seconds ??= timeMs(value, now);
    else if (name === "retry-after-ms")
      exact ??= /^\d{1,15}(\.\d{1,6})?$/.test(value) ? Number(value) : undefined;
    if (!name.includes("ratelimit-")) continue;
    const [, unit, what] = UNIT_FIRST.exec(name) ?? [];
    const [, whatFirst, unitLast] = UNIT_LAST.exec(name) ?? [];
    const kind = unit ?? unitLast;
    if (kind === undefined) continue;
    const quota = found.get(kind) ?? {};
    found.set(kind, quota);
    if ((what ?? whatFirst) === "remaining") {
      if (/^-?\d{1,15}$/.test(value)) quota.remaining = Number(value);
    } else {
      const ms = timeMs(value, now);
      if (ms !== undefined) quota.resetMs = ms;
    }
  }
  const quotas = (...kinds: string[]): Quota[] =>
    kinds.flatMap((kind) => {
      const { remaining, resetMs } = found.get(kind) ?? {};
      return remaining === undefined || resetMs === undefined ? [] : [{ remaining, resetMs: clamp(resetMs) }];
    });
  const pauseMs = exact ?? seconds;
  return {
    pauseMs: pauseMs === undefined || !PAUSES.has(status) ? undefined : clamp(pauseMs),
    requests: quotas("requests")[0],
    tokens: quotas("tokens", "input-tokens", "output-tokens").sort(
      (left, right) => left.remaining - right.remaining,
    )[0],
  };
}

/** Milliseconds from now: seconds, a duration such as "6m0s", or a date. */
function timeMs(value: string, now: number): number | undefined {
  if (value.length > 64) return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) {
    const number = Number(value);
    // Seconds since the epoch, as some write them, are no waiting time.
    return number > 1e9 ? number * 1_000 - now : number * 1_000;
  }
  try {
    return parseDuration(value);
  } catch {
    // Date.parse takes nearly everything for a date; one without a time of day is none here.
    const date = /\d:\d\d/.test(value) ? Date.parse(value) : Number.NaN;
    return Number.isNaN(date) ? undefined : date - now;
  }
}

function clamp(ms: number): number {
  return Math.min(Math.max(ms, 0), MAX_ADVICE_MS);
}
