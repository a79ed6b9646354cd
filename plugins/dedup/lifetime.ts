/** How often the next request came while the provider's cache would still have had this one's prompt. */
export interface Gaps {
  /** Requests that came after another one. */
  readonly turns: number;
  /** Of them those within five minutes, and within an hour, that began as the one before. */
  readonly within5m: number;
  readonly within1h: number;
}

export const NO_GAPS: Gaps = Object.freeze({ turns: 0, within5m: 0, within1h: 0 });

export const FIVE_MINUTES_MS = 300_000;
export const HOUR_MS = 3_600_000;

/** Counts a gap; undefined is a request that did not begin as the one before: no cache could have helped it. */
export function withGap({ turns, within5m, within1h }: Gaps, gapMs: number | undefined): Gaps {
  const isWithin = (ms: number) => (gapMs !== undefined && gapMs <= ms ? 1 : 0);
  return {
    turns: turns + 1,
    within5m: within5m + isWithin(FIVE_MINUTES_MS),
    within1h: within1h + isWithin(HOUR_MS),
  };
}

export type Lifetime = "5m" | "1h";

/** Prices in units of plain input (Anthropic's price list); a few models read for a little less. */
const READ = 0.1;
const WRITE: Readonly<Record<Lifetime, number>> = { "5m": 1.25, "1h": 2 };

/** Before any gap is known, the share of those that are short enough: so that after a single long one nothing is marked. */
const GUESS = 0.4;

/** The dearer writes are sure and the long gaps a guess from few: an hour must come out a tenth cheaper. */
const HOUR_MARGIN = 0.9;

/**
 * The lifetime to ask for, or undefined where plain input is expected to cost less. Compares what a turn costs on the
 * average if the gaps go on as they were: `size` was there the turn before, `growth` comes new with each turn (in any one
 * unit). What is found is read, the rest is written.
 */
export function lifetimeFor(
  gaps: Gaps,
  size: number,
  growth: number,
  mayTakeHour: boolean,
): Lifetime | undefined {
  const cost = (lifetime: Lifetime): number => {
    const found = (gaps[lifetime === "5m" ? "within5m" : "within1h"] + GUESS) / (gaps.turns + 1);
    return growth * WRITE[lifetime] + size * (found * READ + (1 - found) * WRITE[lifetime]);
  };
  const plain = size + growth;
  const short = cost("5m");
  const long = mayTakeHour ? cost("1h") : Number.POSITIVE_INFINITY;
  if (Math.min(short, long) >= plain) return undefined;
  return long < HOUR_MARGIN * short ? "1h" : "5m";
}

/** The longer of two; undefined is none. */
export function longer(a: Lifetime | undefined, b: Lifetime | undefined): Lifetime | undefined {
  return a === "1h" || b === "1h" ? "1h" : (a ?? b);
}
