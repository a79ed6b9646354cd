import type { Dictionary } from "./dictionary.ts";
import type { ReceivedRows } from "./received-rows.ts";
import { ATTEMPT_COLUMNS, ATTEMPT_LENGTH, END, SAVING_LENGTH, TIMING_LENGTH } from "./row-cells.ts";
import { VarintReader, VarintWriter } from "./varint.ts";

/**
 * All of an exchange's end that nobody searches by, in one column: a row of a table of its own for each attempt and each
 * plugin's time costs more than all else about writing an exchange. Whole numbers (varint.ts), in this order: the
 * format, which is 1; origin, code, cache, microseconds, microseconds to the first byte, bytes sent; how many attempts,
 * and the columns of each; how many savings, and kind, plugin, tokens, nano-dollars of each; plugin, hook and
 * microseconds of each tap. Names are ids of `text`.
 *
 * What came later stands among the taps, as one of a hook that there is not and of no plugin: a program that does not know
 * it shows it so, and reads everything else. `PROMPT_CACHE_HOOK` is what the provider's prompt cache had of the turn.
 */
const FORMAT = 1;
const PROMPT_CACHE_HOOK = 16;

/** What an attempt's column holds. */
const NUMBER = 0;
const NAME = 1;
const TEXT = 2;
const HOLDS: readonly number[] = ATTEMPT_COLUMNS.map((each) =>
  each.length === 1 ? NUMBER : each[1] === "text" ? TEXT : NAME,
);
type Column = (typeof ATTEMPT_COLUMNS)[number][0];
const AFTER = ATTEMPT_COLUMNS.findIndex(([name]) => name === ("after_ms" satisfies Column));

export interface Detail {
  readonly origin: number | null;
  readonly code: number | null;
  readonly cache: number | null;
  readonly durationUs: number | null;
  readonly firstByteUs: number | null;
  readonly bytesSent: number | null;
  readonly promptCache: number | null;
  readonly attempts: readonly AttemptColumns[];
  readonly savings: readonly {
    readonly kind: number;
    readonly plugin: number | null;
    readonly tokens: number;
    readonly nanoUsd: number | null;
  }[];
  readonly taps: readonly {
    readonly plugin: number;
    readonly hook: number;
    readonly us: number;
  }[];
}
/** Of one attempt, by name. */
export type AttemptColumns = Readonly<Record<Column, number | string | null>>;

/** Packs the ends of exchanges, one after another into the same bytes. */
export class DetailWriter {
  readonly #texts: Dictionary;
  readonly #out = new VarintWriter();

  constructor(texts: Dictionary) {
    this.#texts = texts;
  }

  /** The detail of the end at `at`, of an exchange that began at `ms`; the bytes are good until the next one. */
  pack({ cells, texts, names }: ReceivedRows, at: number, ms: number): Uint8Array {
    const out = this.#out.begin();
    out.add(FORMAT);
    out.addMaybe(cells[at + END.ORIGIN]!);
    this.#name(names.id(cells[at + END.CODE]!, this.#texts));
    out.addMaybe(cells[at + END.CACHE]!);
    out.addMaybe(cells[at + END.DURATION_US]!);
    out.addMaybe(cells[at + END.FIRST_BYTE_US]!);
    out.addMaybe(cells[at + END.BYTES_SENT]!);
    let next = at + END.LENGTH;
    const attempts = cells[at + END.ATTEMPTS]!;
    out.add(attempts);
    for (let left = attempts; left > 0; left--, next += ATTEMPT_LENGTH) {
      for (let place = 0; place < ATTEMPT_LENGTH; place++) {
        const cell = cells[next + place]!;
        const holds = HOLDS[place]!;
        // Travels as a time.
        if (place === AFTER) out.addMaybe(Math.max(0, Math.round(cell - ms)) || 0);
        else if (holds === NUMBER) out.addMaybe(cell);
        else if (holds === NAME) this.#name(names.id(cell, this.#texts));
        else out.addText(Number.isNaN(cell) ? undefined : texts[cell]);
      }
    }
    const savings = cells[at + END.SAVINGS]!;
    out.add(savings);
    for (let left = savings; left > 0; left--, next += SAVING_LENGTH) {
      out.add(cells[next]!);
      this.#name(names.id(cells[next + 1]!, this.#texts));
      out.addSigned(cells[next + 2]!);
      out.addSigned(cells[next + 3]!);
    }
    for (let left = cells[at + END.TIMINGS]!; left > 0; left--, next += TIMING_LENGTH) {
      out.add(names.id(cells[next]!, this.#texts) ?? 0);
      out.add(cells[next + 1]!);
      out.add(cells[next + 2]!);
    }
    const promptCache = cells[at + END.PROMPT_CACHE]!;
    if (!Number.isNaN(promptCache)) {
      out.add(0);
      out.add(PROMPT_CACHE_HOOK);
      out.add(promptCache);
    }
    return out.bytes();
  }

  #name(id: number | null): void {
    this.#out.add(id === null ? 0 : id + 1);
  }
}

/** Reads a detail; undefined for one in a format that this program does not know. */
export function readDetail(bytes: Uint8Array): Detail | undefined {
  const from = new VarintReader(bytes);
  if (from.next() !== FORMAT) return undefined;
  const ended = {
    origin: from.maybe(),
    code: from.maybe(),
    cache: from.maybe(),
    durationUs: from.maybe(),
    firstByteUs: from.maybe(),
    bytesSent: from.maybe(),
  };
  const attempts: AttemptColumns[] = [];
  for (let left = from.next(); left > 0; left--) {
    const columns: Partial<Record<Column, number | string | null>> = {};
    for (let place = 0; place < ATTEMPT_LENGTH; place++)
      columns[ATTEMPT_COLUMNS[place]![0]] = HOLDS[place] === TEXT ? from.text() : from.maybe();
    attempts.push(columns as AttemptColumns);
  }
  const savings: Detail["savings"][number][] = [];
  for (let left = from.next(); left > 0; left--) {
    savings.push({
      kind: from.next(),
      plugin: from.maybe(),
      tokens: from.signed() ?? 0,
      nanoUsd: from.signed(),
    });
  }
  const taps: Detail["taps"][number][] = [];
  let promptCache: number | null = null;
  while (!from.atEnd) {
    const tap = { plugin: from.next(), hook: from.next(), us: from.next() };
    if (tap.hook === PROMPT_CACHE_HOOK) promptCache = tap.us;
    else taps.push(tap);
  }
  return { ...ended, promptCache, attempts, savings, taps };
}
