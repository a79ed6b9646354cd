import { TokenmanError } from "@tokenman/plugin-sdk";

/**
 * The table's key of an exchange: the milliseconds at the head of its UUID v7 times this, plus a number that tells those
 * of one millisecond apart. So the table lies in the order of time, a time range is a key range, and an exchange is
 * found by its id without an index. Fits a double until the year 2248.
 */
export const KEYS_PER_MS = 1024;

const MAX_MS = Math.floor(Number.MAX_SAFE_INTEGER / KEYS_PER_MS) - 1;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The first key of a millisecond. */
export function keyAt(ms: number): number {
  return Math.min(Math.max(0, Math.floor(ms)), MAX_MS) * KEYS_PER_MS;
}

/** Milliseconds since the epoch of a key. */
export function msOf(key: number): number {
  return Math.floor(key / KEYS_PER_MS);
}

export function isUuid(id: string): boolean {
  return UUID.test(id);
}

/** The 16 bytes of a UUID. Throws TM_LEDGER_QUERY on anything else. */
export function uuidBytes(id: string): Buffer {
  if (!isUuid(id)) throw new TokenmanError("TM_LEDGER_QUERY", "an exchange's id is a UUID");
  return Buffer.from(id.replaceAll("-", ""), "hex");
}

/** The value of each hexadecimal digit by its character's code; 16 for any other. */
const DIGITS = new Uint8Array(256).fill(16);
for (let digit = 0; digit < 16; digit++) {
  DIGITS[digit.toString(16).charCodeAt(0)] = digit;
  DIGITS[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}
/** Where the digits of each 32 bits begin, and how many there are before a dash. */
const WORDS = [
  [0, 8],
  [9, 4, 14, 4],
  [19, 4, 24, 4],
  [28, 8],
] as const;
const DASH = 45;

/** A UUID as four numbers of 32 bits; NaN for anything else. Without a text or a buffer in between: it is on the way of requests. */
export function writeUuid(id: string, cells: Float64Array, at: number): void {
  let wrong =
    id.length !== 36 ||
    id.charCodeAt(8) !== DASH ||
    id.charCodeAt(13) !== DASH ||
    id.charCodeAt(18) !== DASH ||
    id.charCodeAt(23) !== DASH;
  for (let word = 0; word < 4 && !wrong; word++) {
    const runs = WORDS[word]!;
    let bits = 0;
    let seen = 0;
    for (let run = 0; run < runs.length; run += 2) {
      const end = runs[run]! + runs[run + 1]!;
      for (let index = runs[run]!; index < end; index++) {
        const code = id.charCodeAt(index);
        const digit = code < 256 ? DIGITS[code]! : 16;
        seen |= digit;
        bits = (bits << 4) | digit;
      }
    }
    wrong = seen > 15;
    cells[at + word] = bits >>> 0;
  }
  if (wrong) cells.fill(Number.NaN, at, at + 4);
}

/** The 16 bytes of what {@link writeUuid} wrote. Throws TM_LEDGER_QUERY where that was no UUID. */
export function readUuid(
  cells: Float64Array,
  at: number,
  into: Buffer<ArrayBuffer> = Buffer.allocUnsafe(16),
): Buffer<ArrayBuffer> {
  if (Number.isNaN(cells[at])) throw new TokenmanError("TM_LEDGER_QUERY", "an exchange's id is a UUID");
  for (let word = 0; word < 4; word++) {
    const bits = cells[at + word]!;
    const to = word * 4;
    into[to] = bits >>> 24;
    into[to + 1] = bits >>> 16;
    into[to + 2] = bits >>> 8;
    into[to + 3] = bits;
  }
  return into;
}

export function uuidText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The first of the keys that an exchange with this id may have. */
export function keyOfUuid(bytes: Buffer): number {
  return keyAt(bytes.readUIntBE(0, 6));
}
