/** Durations, sizes and money as people write and read them. */

const DURATION_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
export type DurationUnit = keyof typeof DURATION_MS;

const SIZE_BYTES: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

const PLAIN_NUMBER = /^[0-9]+(?:\.[0-9]+)?$/;
const DURATION = /^(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d) ?)+$/;
const DURATION_PART = /([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)/g;
const SIZE = /^([0-9]+(?:\.[0-9]+)?) ?([a-z]+)$/;

/** Longer texts are refused unread: no unit needs them, and it bounds the patterns above. */
const MAX_TEXT_LENGTH = 64;

/**
 * Milliseconds in a duration such as "1500ms", "10s", "1.5m", "2h", "7d" or "1h30m". A number, or a text without a unit, is
 * in `defaultUnit`. Throws RangeError on anything else, negative and infinite numbers included.
 */
export function parseDuration(duration: string | number, defaultUnit: DurationUnit = "ms"): number {
  const text = typeof duration === "string" ? duration.trim().toLowerCase() : "";
  let ms = Number.NaN;
  if (typeof duration === "number") ms = duration * DURATION_MS[defaultUnit];
  else if (text.length > MAX_TEXT_LENGTH) ms = Number.NaN;
  else if (PLAIN_NUMBER.test(text)) ms = Number(text) * DURATION_MS[defaultUnit];
  else if (DURATION.test(text)) {
    ms = 0;
    for (const [, amount, unit] of text.matchAll(DURATION_PART)) {
      ms += Number(amount) * DURATION_MS[unit as DurationUnit];
    }
  }
  if (!(ms >= 0 && ms < Number.POSITIVE_INFINITY)) {
    throw new RangeError(
      `expected a duration such as "1500ms", "10s", "5m", "2h" or "7d", found ${show(duration)}`,
    );
  }
  return ms;
}

/**
 * A duration in milliseconds as `parseDuration` reads it: 1500 is "1.5s", 5400000 "1h30m". Exact to the millisecond;
 * below one, to three digits. Throws RangeError on a negative or infinite number.
 */
export function formatDuration(ms: number): string {
  if (!(ms >= 0 && ms < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`expected milliseconds, found ${show(ms)}`);
  }
  if (ms < 1) return `${Number(ms.toFixed(3))}ms`;
  let rest = Math.round(ms);
  if (rest < DURATION_MS.s) return `${rest}ms`;
  let text = "";
  for (const unit of ["d", "h", "m"] as const) {
    const count = Math.floor(rest / DURATION_MS[unit]);
    rest -= count * DURATION_MS[unit];
    if (count > 0) text += `${count}${unit}`;
  }
  return rest > 0 ? `${text}${rest / DURATION_MS.s}s` : text;
}

/**
 * Bytes in a size such as "32MiB" (powers of 1024), "100MB" or "1kb" (powers of 1000), "512b"; a number, or a text without
 * a unit, is in bytes. A fraction of a byte is rounded. Throws RangeError on anything else.
 */
export function parseSize(size: string | number): number {
  let bytes = Number.NaN;
  if (typeof size === "number") bytes = size;
  else if (size.length <= MAX_TEXT_LENGTH) {
    const text = size.trim().toLowerCase();
    const [, amount, unit] = SIZE.exec(text) ?? [];
    if (PLAIN_NUMBER.test(text)) bytes = Number(text);
    else if (unit !== undefined && Object.hasOwn(SIZE_BYTES, unit))
      bytes = Number(amount) * SIZE_BYTES[unit]!;
  }
  bytes = Math.round(bytes);
  if (!(bytes >= 0 && bytes <= Number.MAX_SAFE_INTEGER)) {
    throw new RangeError(
      `expected a size such as "32MiB", "100MB", "1kb" or a number of bytes, found ${show(size)}`,
    );
  }
  return bytes;
}

/**
 * A number of bytes for people, in the largest binary unit that it fills: "512B", "507.8KiB", "32MiB". Rounded to a tenth of
 * that unit. Throws RangeError on a negative or infinite number.
 */
export function formatSize(bytes: number): string {
  if (!(bytes >= 0 && bytes < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`expected a number of bytes, found ${show(bytes)}`);
  }
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = Math.round(bytes);
  let unit = 0;
  // What rounds to 1024 of a unit is 1 of the next.
  while (unit < units.length - 1 && Math.round(amount * 10) >= 10_240) {
    amount /= 1024;
    unit++;
  }
  return `${Math.round(amount * 10) / 10}${units[unit]}`;
}

const NANOS_PER_USD = 1_000_000_000n;
const NANOS_PER_CENT = 10_000_000n;

/**
 * US dollars for people, from billionths of a dollar: cents from one dollar up ("$12.35"), below it three significant
 * digits but never less than cents ("$0.50", "$0.0123"), so that the price of one small call does not read as nothing. Rounds half away
 * from zero; a loss is "-$0.42". Throws RangeError on a number that is not finite.
 */
export function formatUsd(nanoUsd: bigint | number): string {
  if (typeof nanoUsd === "number" && !Number.isFinite(nanoUsd)) {
    throw new RangeError(`expected billionths of a US dollar, found ${show(nanoUsd)}`);
  }
  const nanos =
    typeof nanoUsd === "bigint" ? nanoUsd : BigInt(Math.sign(nanoUsd) * Math.round(Math.abs(nanoUsd)));
  const amount = nanos < 0n ? -nanos : nanos;
  let step = NANOS_PER_CENT;
  // From $0.10 up three digits are tenths of a cent, and so on down to one billionth.
  if (amount > 0n && amount < NANOS_PER_USD) step = 10n ** BigInt(Math.max(0, amount.toString().length - 3));
  const rounded = ((amount + step / 2n) / step) * step;
  const sign = nanos < 0n && rounded > 0n ? "-" : "";
  const fraction = (rounded % NANOS_PER_USD).toString().padStart(9, "0").replace(/0+$/, "").padEnd(2, "0");
  return `${sign}$${rounded / NANOS_PER_USD}.${fraction}`;
}

function show(found: unknown): string {
  return typeof found === "string" ? JSON.stringify(found.slice(0, MAX_TEXT_LENGTH)) : String(found);
}
