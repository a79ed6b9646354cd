import QuickLRU from "quick-lru";
import { type Cut, cut } from "./cut.ts";
import type { Encoding } from "./encoding.ts";
import type { Piece } from "./messages.ts";
import type { CountingPool } from "./pool.ts";

/** Something to count. It is cut into pieces only if its count is not known. */
export interface Countable {
  /** What the count is remembered by; undefined: it is not. */
  readonly key: string | undefined;
  readonly form: Piece["form"];
  /** Characters, at least roughly, without reading the text. */
  readonly length: number;
  cut(): Cut;
}

/** A definition that is longer is no definition: it is counted as text. */
export const MAX_TOOL = 262_144;

export function countableText(
  text: string,
  key: string | undefined,
  form: Piece["form"] = "text",
): Countable {
  if (form === "text" || text.length > MAX_TOOL) {
    return { key, form: "text", length: text.length, cut: () => cut(text) };
  }
  return { key, form, length: text.length, cut: () => ({ pieces: [text], factor: 1 }) };
}

/** Characters of one question that are counted at most; what is beyond is taken to be like it. */
const MAX_CHARACTERS = 4_194_304;
/** Characters that make a job: the threads share a large question, and small ones get their turn between. */
const JOB = 131_072;
/** Characters a token, where nothing could be counted: rather too many tokens than too few. */
const GUESS = 3;

/** Counts through the pool, and remembers: the same text is counted once, however many ask for it at once. */
export class Counter {
  readonly #pool: CountingPool;
  readonly #maxEntries: number;
  /** One for each encoding and form: keys stay as they come, which are looked up for every segment of every turn. */
  readonly #memories = new Map<string, Memory>();

  constructor(pool: CountingPool, maxEntries: number) {
    this.#pool = pool;
    this.#maxEntries = maxEntries;
  }

  /** Tokens of each, in order. Never rejects: what could not be counted is guessed from its length, and not remembered. */
  async count(encoding: Encoding, items: readonly Countable[]): Promise<readonly number[]> {
    const counts: (number | undefined)[] = new Array(items.length);
    // Most of a turn is known: only what is not costs a promise.
    const waiting: Promise<void>[] = [];
    const batch = new Batch(this.#pool, encoding);
    const memories = { text: this.#memory(encoding, "text"), tool: this.#memory(encoding, "tool") };
    let characters = 0;
    for (let index = 0; index < items.length; index++) {
      const item = items[index]!;
      const { key, form } = item;
      const { known, pending } = memories[form];
      const count = item.length === 0 ? 0 : key === undefined ? undefined : known.get(key);
      if (count !== undefined) {
        counts[index] = count;
        continue;
      }
      let counting = key === undefined ? undefined : pending.get(key);
      if (counting === undefined) {
        // What is over is left undefined, and guessed from the rest.
        if (characters > MAX_CHARACTERS) continue;
        const { pieces, factor } = item.cut();
        characters += pieces.reduce((sum, piece) => sum + piece.length, 0);
        counting = batch.add(form, pieces, factor);
        if (key !== undefined) counting = remember(memories[form], key, counting);
      }
      waiting.push(
        counting.then((counted) => {
          counts[index] = counted;
        }),
      );
    }
    batch.send();
    if (waiting.length > 0) await Promise.all(waiting);
    return complete(items, counts);
  }

  /**
   * Tokens of each as far as they are remembered, and of the others from their lengths, at the rate of those; undefined
   * where the others have more than `most` characters, or nothing is remembered.
   */
  guess(encoding: Encoding, items: readonly Countable[], most: number): readonly number[] | undefined {
    const memories = { text: this.#memory(encoding, "text"), tool: this.#memory(encoding, "tool") };
    let unknown = 0;
    const counts = items.map(({ key, form, length }) => {
      const count = length === 0 ? 0 : key === undefined ? undefined : memories[form].known.get(key);
      if (count === undefined) unknown += length;
      return count;
    });
    return unknown > most || unknown === sumOf(items) ? undefined : complete(items, counts);
  }

  /** How many counts are remembered. */
  get size(): number {
    return [...this.#memories.values()].reduce((sum, { known }) => sum + known.size, 0);
  }

  #memory(encoding: Encoding, form: Piece["form"]): Memory {
    const name = `${encoding} ${form}`;
    let memory = this.#memories.get(name);
    if (memory === undefined) {
      memory = { known: new QuickLRU({ maxSize: this.#maxEntries }), pending: new Map() };
      this.#memories.set(name, memory);
    }
    return memory;
  }
}

interface Memory {
  readonly known: QuickLRU<string, number>;
  readonly pending: Map<string, Promise<number | undefined>>;
}

function remember(
  { known, pending }: Memory,
  key: string,
  counting: Promise<number | undefined>,
): Promise<number | undefined> {
  const remembered = counting.then((count) => {
    pending.delete(key);
    if (count !== undefined) known.set(key, count);
    return count;
  });
  pending.set(key, remembered);
  return remembered;
}

function sumOf(items: readonly Countable[]): number {
  return items.reduce((sum, { length }) => sum + length, 0);
}

/** Fills in what was not counted, at the rate of what was. */
function complete(items: readonly Countable[], counts: readonly (number | undefined)[]): readonly number[] {
  if (!counts.includes(undefined)) return counts as readonly number[];
  let tokens = 0;
  let characters = 0;
  for (const [index, item] of items.entries()) {
    const count = counts[index];
    if (count === undefined) continue;
    tokens += count;
    characters += item.length;
  }
  const rate = tokens > 0 && characters > 0 ? tokens / characters : 1 / GUESS;
  return counts.map((count, index) => count ?? Math.ceil(items[index]!.length * rate));
}

/** Collects the pieces of one question into jobs. */
class Batch {
  readonly #pool: CountingPool;
  readonly #encoding: Encoding;
  #pieces: Piece[] = [];
  #characters = 0;
  #sent = Promise.withResolvers<readonly number[] | undefined>();

  constructor(pool: CountingPool, encoding: Encoding) {
    this.#pool = pool;
    this.#encoding = encoding;
  }

  /** Tokens of the pieces together. */
  add(form: Piece["form"], pieces: readonly string[], factor: number): Promise<number | undefined> {
    const parts: Promise<number | undefined>[] = [];
    for (const text of pieces) {
      if (this.#characters > 0 && this.#characters + text.length > JOB) this.send();
      const at = this.#pieces.length;
      this.#pieces.push({ form, text });
      this.#characters += text.length;
      parts.push(this.#sent.promise.then((counts) => counts?.[at]));
    }
    return Promise.all(parts).then((counts) => {
      const sum = counts.reduce<number>((total, count) => total + (count ?? Number.NaN), 0);
      return Number.isNaN(sum) ? undefined : Math.round(sum * factor);
    });
  }

  send(): void {
    if (this.#pieces.length === 0) return;
    this.#sent.resolve(this.#pool.count(this.#encoding, this.#pieces));
    this.#pieces = [];
    this.#characters = 0;
    this.#sent = Promise.withResolvers();
  }
}
