import QuickLRU from "quick-lru";
import { familyOf, firstRatio } from "./encoding.ts";

/** How many bills of a model are remembered: enough that a few odd ones do not move the middle one. */
const WINDOW = 31;
/** A ratio beyond these is a misunderstanding (an edit, a file that was not counted), not a tokenizer. */
const LOWEST = 0.2;
const HIGHEST = 5;
const MAX_MODELS = 200;

interface Learned {
  /** The last ratios of billed to uncorrected, the oldest first. */
  readonly ratios: readonly number[];
  /** Relative errors of the estimates that were corrected with what was known before each bill. */
  readonly errors: readonly number[];
  readonly ratio: number;
}

/**
 * What providers bill for what was counted, by model. The correction is the median of the last bills' ratios: one odd
 * bill, or a dozen, does not move it far.
 */
export class Corrections {
  readonly #models = new QuickLRU<string, Learned>({ maxSize: MAX_MODELS });

  /** Tokens of the provider for one that was counted. */
  ratio(model: string): number {
    return this.#models.get(familyOf(model))?.ratio ?? firstRatio(model);
  }

  /** Mean relative error of past estimates; undefined before the first bill. */
  error(model: string): number | undefined {
    const errors = this.#models.get(familyOf(model))?.errors;
    return errors === undefined ? undefined : mean(errors);
  }

  /** Takes in a bill. Returns false where it says nothing: no tokens, or a ratio beyond belief. */
  learn(model: string, uncorrected: number, billed: number): boolean {
    const ratio = billed / uncorrected;
    if (!(uncorrected > 0 && billed > 0 && ratio >= LOWEST && ratio <= HIGHEST)) return false;
    const family = familyOf(model);
    const known = this.#models.get(family);
    const estimated = uncorrected * this.ratio(model);
    const ratios = [...(known?.ratios ?? []), ratio].slice(-WINDOW);
    const errors = [...(known?.errors ?? []), Math.abs(estimated - billed) / billed].slice(-WINDOW);
    this.#models.set(family, { ratios, errors, ratio: median(ratios) });
    return true;
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
