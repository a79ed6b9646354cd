import type { TextKind } from "./codes.ts";

/**
 * Rows on their way to the writer are numbers, one after another in one array that changes hands without being copied,
 * and that no collection of garbage looks at: texts that recur travel once and are numbers from then on (names.ts). NaN is
 * what a column calls NULL. These are the places of the columns, counted from where a record begins.
 */

/** An exchange that begins; `LINK` is where its end is in the same array, 0 for not yet. The id is four cells of 32 bits. */
export const BEGIN = {
  ID: 0,
  LINK: 4,
  PROJECT: 5,
  SESSION: 6,
  CLIENT: 7,
  METHOD: 8,
  PATH: 9,
  DIALECT: 10,
  MODEL: 11,
  STREAM: 12,
  LENGTH: 13,
} as const;

/** The columns that hold names, and of which kind. */
export const BEGIN_NAMES: readonly (readonly [number, TextKind])[] = [
  [BEGIN.PROJECT, "project"],
  [BEGIN.SESSION, "session"],
  [BEGIN.CLIENT, "client"],
  [BEGIN.METHOD, "method"],
  [BEGIN.PATH, "path"],
  [BEGIN.DIALECT, "dialect"],
  [BEGIN.MODEL, "model"],
];

/** An exchange that ends. Behind `LENGTH`: its attempts, savings and timings. */
export const END = {
  ID: 0,
  /** Its place among the bodies of the batch; NaN for none. */
  BODIES: 4,
  OUTCOME: 5,
  STATUS: 6,
  ORIGIN: 7,
  CODE: 8,
  PROVIDER: 9,
  CACHE: 10,
  DURATION_US: 11,
  FIRST_BYTE_US: 12,
  BYTES_SENT: 13,
  /** Its place among the texts of the batch. */
  ERROR: 14,
  ATTEMPTS: 15,
  SAVINGS: 16,
  TIMINGS: 17,
  PROMPT_CACHE: 18,
  LENGTH: 19,
} as const;

/** Where a column's value is a name's number, its kind; "text" where it is a place among the batch's texts. */
export const ATTEMPT_COLUMNS = [
  ["number"],
  // Travels as a time.
  ["after_ms"],
  ["provider", "provider"],
  ["model", "model"],
  ["result"],
  ["body_end"],
  ["bytes_sent"],
  ["status"],
  ["code", "code"],
  ["said", "text"],
  ["head_us"],
  ["first_byte_us"],
  ["duration_us"],
  ["answered_model", "model"],
  ["tier", "tier"],
  ["complete"],
  ["exact"],
  ["input"],
  ["cache_read"],
  ["cache_write_5m"],
  ["cache_write_1h"],
  ["output"],
  ["reasoning"],
  ["server_tools", "text"],
  ["cost_input"],
  ["cost_cache_read"],
  ["cost_cache_write_5m"],
  ["cost_cache_write_1h"],
  ["cost_output"],
  ["cost_server_tools"],
  ["cost"],
  ["estimated"],
  ["unpriced", "reason"],
] as const satisfies readonly (readonly [column: string, text?: TextKind | "text"])[];
export const ATTEMPT_LENGTH: number = ATTEMPT_COLUMNS.length;

/** Kind, plugin, tokens, nano-dollars. */
export const SAVING_LENGTH = 4;
/** Plugin, hook, microseconds. */
export const TIMING_LENGTH = 3;

/** What travels. */
export interface RowBatch {
  readonly cells: Float64Array<ArrayBuffer>;
  /** Where records begin: those that begin an exchange, then those that only end one. */
  readonly begun: readonly number[];
  readonly ended: readonly number[];
  readonly texts: readonly string[];
  readonly names: NewNames;
}

/** Names that were not sent before, in the order of their numbers. */
export interface NewNames {
  /** Their numbers begin anew; those before them are no more. */
  readonly anew: boolean;
  readonly kinds: readonly number[];
  readonly values: readonly string[];
}
