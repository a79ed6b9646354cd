/**
 * Exact arithmetic on rates: fractions of big integers. Prices are decimals such as 0.075, which binary floating point
 * does not hold; sums of them drift.
 */
export interface Rational {
  readonly numerator: bigint;
  /** Positive. */
  readonly denominator: bigint;
  /** The same as numbers, where both are small enough to count with; else 0 and 0. */
  readonly small: readonly [numerator: number, denominator: number];
}

/** Products of two such numbers and a token count in the millions stay within what a double holds exactly. */
const SMALL = 1n << 30n;

function rational(numerator: bigint, denominator: bigint): Rational {
  const isSmall = numerator < SMALL && numerator > -SMALL && denominator < SMALL;
  return Object.freeze({
    numerator,
    denominator,
    small: isSmall ? ([Number(numerator), Number(denominator)] as const) : NOT_SMALL,
  });
}
const NOT_SMALL = [0, 0] as const;

export const ONE: Rational = rational(1n, 1n);

const DECIMAL = /^([0-9]+)(?:\.([0-9]+))?(?:e([+-][0-9]+))?$/;

/**
 * The decimal that a number was written as: its shortest spelling, which is how JavaScript prints it. So 0.1 is 1/10.
 * Throws RangeError on a number that is negative or not finite.
 */
export function decimal(value: number): Rational {
  const match = DECIMAL.exec(String(value));
  if (match === null) throw new RangeError(`expected a number of zero or more, found ${value}`);
  const [, whole = "", fraction = "", exponent = "0"] = match;
  const power = BigInt(Number(exponent) - fraction.length);
  const digits = BigInt(whole + fraction);
  return power < 0n ? ratio(digits, 10n ** -power) : ratio(digits * 10n ** power, 1n);
}

/** A fraction in lowest terms. Throws RangeError where the denominator is not positive. */
export function ratio(numerator: bigint, denominator: bigint): Rational {
  if (denominator <= 0n) throw new RangeError("a denominator must be positive");
  let [divisor, rest] = [numerator < 0n ? -numerator : numerator, denominator];
  while (rest !== 0n) [divisor, rest] = [rest, divisor % rest];
  return divisor === 0n
    ? rational(numerator, denominator)
    : rational(numerator / divisor, denominator / divisor);
}

export function times(left: Rational, right: Rational): Rational {
  if (right === ONE) return left;
  return ratio(left.numerator * right.numerator, left.denominator * right.denominator);
}

/**
 * `count` times the rate, to the nearest whole number; halves go away from zero. `count` and the rate are zero or more, and
 * `count` is whole. Exact up to 2^53: in numbers where all that comes up is below 2^52, whose quotients then round down as
 * they must, else in big integers.
 */
export function rounded(count: number, rate: Rational): number {
  if (count === 0) return 0;
  const [numerator, denominator] = rate.small;
  const twice = 2 * count * numerator + denominator;
  if (denominator > 0 && twice < EXACT) return Math.floor(twice / (2 * denominator));
  const exact = BigInt(count) * rate.numerator;
  return Number((2n * exact + rate.denominator) / (2n * rate.denominator));
}
const EXACT = 2 ** 52;

/** The nearest floating-point number: for estimates, never for a bill. */
export function approximate(rate: Rational): number {
  return Number(rate.numerator) / Number(rate.denominator);
}
