import { maskKeys } from "@tokenman/plugin-sdk";

/** What stands for all values of a label beyond its bound. */
export const OTHER = "other";

/** The longest value of a label, in UTF-16 units; the rest is cut off. */
const MAX_LENGTH = 100;

/**
 * The values of one label, at most `max` of them: clients choose the names of models and projects, and every new one is
 * a new series for whoever scrapes.
 */
export class LabelValues {
  readonly #known = new Map<string, string>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  /** The value to use. `admit` says whether a new one may take one of the places. */
  of(value: string, admit: boolean): string {
    const known = this.#known.get(value);
    if (known !== undefined) return known;
    if (!admit || this.#known.size >= this.#max || value.length > MAX_LENGTH * 10) return OTHER;
    const label = maskKeys(value).slice(0, MAX_LENGTH);
    this.#known.set(value, label);
    return label;
  }
}

/** Something for each combination of label values that occurred. A tree of maps: looking one up builds no key. */
export class Series<T> {
  readonly #names: readonly string[];
  readonly #make: () => T;
  readonly #root = new Map<string, unknown>();

  constructor(names: readonly string[], make: () => T) {
    this.#names = names;
    this.#make = make;
  }

  /** One value for each name of the constructor, in its order. */
  at(...values: readonly string[]): T {
    let level = this.#root;
    const last = this.#names.length - 1;
    for (let depth = 0; depth < last; depth++) {
      const value = values[depth]!;
      let next = level.get(value) as Map<string, unknown> | undefined;
      if (next === undefined) {
        next = new Map();
        level.set(value, next);
      }
      level = next;
    }
    const value = values[last]!;
    let found = level.get(value) as T | undefined;
    if (found === undefined) {
      found = this.#make();
      level.set(value, found);
    }
    return found;
  }

  *entries(): Generator<readonly [labels: Readonly<Record<string, string>>, value: T]> {
    yield* this.#walk(this.#root, []);
  }
  *#walk(
    level: ReadonlyMap<string, unknown>,
    path: readonly string[],
  ): Generator<readonly [Readonly<Record<string, string>>, T]> {
    for (const [value, below] of level) {
      const values = [...path, value];
      if (values.length < this.#names.length)
        yield* this.#walk(below as ReadonlyMap<string, unknown>, values);
      else yield [Object.fromEntries(this.#names.map((name, at) => [name, values[at]!])), below as T];
    }
  }
}

export interface Count {
  value: number;
}
export function noCount(): Count {
  return { value: 0 };
}
