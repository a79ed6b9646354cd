/** Hours, days and months as a time zone's clocks have them. */

export const PERIODS = ["hourly", "daily", "monthly"] as const;
export type Period = (typeof PERIODS)[number];

/** A stretch of time, milliseconds since the epoch: from inclusive, to exclusive. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** Farthest time that the calendar of ECMAScript reaches, less a leap to the end of a month. */
const MAX_MS = 8.64e15 - 32 * DAY_MS;

export function isTimeZone(name: string): boolean {
  // The default, which need not load what ICU knows of times and languages: 4 MB where nobody has a budget.
  if (name === "UTC") return true;
  try {
    new Intl.DateTimeFormat("en-US", { timeZone: name });
    return name !== "";
  } catch {
    return false;
  }
}

/**
 * Which hour, day and month it is in one time zone. Days with 23 or 25 hours, days that begin at one o'clock, and hours
 * that come twice are what they are there. The last answer of each period is remembered: asking costs a comparison.
 */
export class Calendar {
  readonly #format: Intl.DateTimeFormat;
  readonly #known = new Map<Period, Span>();

  /** Throws RangeError for a zone that nobody knows. */
  constructor(timeZone: string) {
    this.#format = new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      era: "short",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
  }

  /** The period that `at` (milliseconds since the epoch) falls into. */
  span(period: Period, at: number): Span {
    const known = this.#known.get(period);
    if (known !== undefined && at >= known.from && at < known.to) return known;
    const span = this.#find(period, Math.min(Math.max(at, -MAX_MS), MAX_MS));
    this.#known.set(period, span);
    return span;
  }

  #find(period: Period, at: number): Span {
    if (period === "hourly") return this.#hour(at);
    const wall = new Date(this.#wall(at));
    const [year, month, day] = [wall.getUTCFullYear(), wall.getUTCMonth(), wall.getUTCDate()];
    return period === "daily"
      ? { from: this.#first(midnight(year, month, day)), to: this.#first(midnight(year, month, day + 1)) }
      : { from: this.#first(midnight(year, month, 1)), to: this.#first(midnight(year, month + 1, 1)) };
  }

  /** From full hour to full hour; where clocks are set by half an hour in between, up to then, or from then on. */
  #hour(at: number): Span {
    const offset = this.#offset(at);
    const from = Math.floor((at + offset) / HOUR_MS) * HOUR_MS - offset;
    const to = from + HOUR_MS;
    const begins = this.#offset(from) === offset ? from : this.#change(from, at);
    const ends = this.#offset(to - 1) === offset ? to : this.#change(at, to - 1);
    return { from: begins, to: ends };
  }

  /** The first instant at which the clock shows `wall` or, where it skips that, what is next. */
  #first(wall: number): number {
    // An offset is less than a day, so these are the ones before and after any change near by.
    const candidates = [this.#offset(wall - DAY_MS), this.#offset(wall + DAY_MS)].map(
      (offset) => wall - offset,
    );
    for (const candidate of candidates.sort((left, right) => left - right))
      if (this.#wall(candidate) === wall) return candidate;
    let [before, after] = [wall - 2 * DAY_MS, wall + 2 * DAY_MS];
    // Clocks go forward here: what they show only grows.
    while (after - before > 1) {
      const middle = Math.floor((before + after) / 2);
      if (this.#wall(middle) >= wall) after = middle;
      else before = middle;
    }
    return after;
  }

  /** The first instant with another offset than `before` has; `after` has one. */
  #change(before: number, after: number): number {
    const offset = this.#offset(before);
    let [low, high] = [before, after];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.#offset(middle) === offset) low = middle;
      else high = middle;
    }
    return high;
  }

  #offset(at: number): number {
    return this.#wall(at) - at;
  }
  /** What the clock shows, as if it were UTC. */
  #wall(at: number): number {
    const part: Partial<Record<Intl.DateTimeFormatPartTypes, string>> = {};
    for (const { type, value } of this.#format.formatToParts(at)) part[type] = value;
    const year = part.era?.startsWith("B") === true ? 1 - Number(part.year) : Number(part.year);
    const [month, day, hour] = [Number(part.month) - 1, Number(part.day), Number(part.hour)];
    const seconds = Number(part.minute) * MINUTE_MS + Number(part.second) * 1_000;
    return midnight(year, month, day) + hour * HOUR_MS + seconds + (((at % 1_000) + 1_000) % 1_000);
  }
}

/** Not Date.UTC, which takes the years 0 to 99 for those of the twentieth century. */
function midnight(year: number, month: number, day: number): number {
  return new Date(0).setUTCFullYear(year, month, day);
}
