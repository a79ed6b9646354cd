import { TEXT_KINDS, type TextKind } from "./codes.ts";
import type { Dictionary } from "./dictionary.ts";
import type { NewNames } from "./row-cells.ts";

/** Longer ones are cut: clients choose these texts. */
export const MAX_NAME_LENGTH = 200;
/** Then numbers begin anew: of sessions there is no end. */
const MAX_NAMES = 20_000;

/** Gives numbers to texts that recur, on the side that sends; from 1 on. */
export class NameNumbers {
  readonly #numbers: readonly Map<string, number>[] = TEXT_KINDS.map(() => new Map());
  /** Of each kind the text that was asked for last, which mostly comes again, and its number. */
  readonly #lastTexts: (string | undefined)[] = TEXT_KINDS.map(() => undefined);
  readonly #lastNumbers: number[] = TEXT_KINDS.map(() => 0);
  #kinds: number[] = [];
  #values: string[] = [];
  #sent = 0;

  /** NaN for no text. */
  of(kind: number, text: string | undefined): number {
    if (text === undefined) return Number.NaN;
    if (text === this.#lastTexts[kind]) return this.#lastNumbers[kind]!;
    const number = this.#numbers[kind]!.get(text) ?? this.#add(kind, text);
    this.#lastTexts[kind] = text;
    this.#lastNumbers[kind] = number;
    return number;
  }
  #add(kind: number, text: string): number {
    if (text.length > MAX_NAME_LENGTH) return this.of(kind, text.slice(0, MAX_NAME_LENGTH));
    this.#kinds.push(kind);
    const number = this.#values.push(text);
    this.#numbers[kind]!.set(text, number);
    return number;
  }

  /** What is new since the last call. */
  take(): NewNames {
    const sent = this.#sent;
    const fresh = {
      anew: sent === 0,
      kinds: this.#kinds.slice(sent),
      values: this.#values.slice(sent),
    };
    this.#sent = this.#values.length;
    if (this.#sent > MAX_NAMES) {
      for (const numbers of this.#numbers) numbers.clear();
      this.#lastTexts.fill(undefined);
      this.#kinds = [];
      this.#values = [];
      this.#sent = 0;
    }
    return fresh;
  }
  /** Sends everything again: whoever was told is gone. */
  again(): void {
    this.#sent = 0;
  }
}

/** The same numbers on the side that receives, as ids of the database. */
export class ReceivedNames {
  readonly #kinds: number[] = [];
  readonly #values: string[] = [];
  readonly #ids: number[] = [];
  #times = -1;

  add({ kinds, values }: NewNames): void {
    for (const kind of kinds) this.#kinds.push(kind);
    for (const value of values) this.#values.push(value);
  }
  /** The id of a name; null for NaN. */
  id(number: number, dictionary: Dictionary): number | null {
    if (Number.isNaN(number)) return null;
    if (this.#times !== dictionary.timesForgotten) {
      this.#times = dictionary.timesForgotten;
      this.#ids.length = 0;
    }
    return this.#ids[number] ?? this.#find(number, dictionary);
  }
  #find(number: number, dictionary: Dictionary): number {
    const id = dictionary.id(TEXT_KINDS[this.#kinds[number - 1]!] as TextKind, this.#values[number - 1]!);
    this.#ids[number] = id;
    return id;
  }
}
