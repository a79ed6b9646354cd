/**
 * Exact arithmetic on rates: fractions of big integers. Prices are decimals such as 0.075, which binary floating point
 * does not hold; sums of them drift.
 */
export interface Rational {
  readonly numerator: bigint;
  /** Positive. */
  readonly denominator: bigint;
}

export const ONE: Rational = Object.freeze({ numerator: 1n, denominator: 1n });

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
    ? { numerator, denominator }
    : { numerator: numerator / divisor, denominator: denominator / divisor };
}

export function times(left: Rational, right: Rational): Rational {
  if (right === ONE) return left;
  return ratio(left.numerator * right.numerator, left.denominator * right.denominator);
}

/** `count` times the rate, to the nearest whole number; halves go away from zero. `count` is whole, zero or more. */
export function rounded(count: number, rate: Rational): bigint {
  if (count === 0) return 0n;
  const exact = BigInt(count) * rate.numerator;
  return (2n * exact + rate.denominator) / (2n * rate.denominator);
}

/** The nearest floating-point number: for estimates, never for a bill. */
export function approximate(rate: Rational): number {
  return Number(rate.numerator) / Number(rate.denominator);
}
