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

/** A UUID as four numbers of 32 bits; NaN for anything else. Without a text or a buffer in between: it is on the way of requests. */
export function writeUuid(id: string, cells: Float64Array, at: number): void {
  let digits = 0;
  let word = 0;
  let isHex = id.length === 36;
  for (let index = 0; index < id.length && isHex; index++) {
    const code = id.charCodeAt(index);
    if (index === 8 || index === 13 || index === 18 || index === 23) {
      isHex = code === DASH;
      continue;
    }
    const digit = code >= 97 ? code - 87 : code >= 65 ? code - 55 : code >= 48 && code <= 57 ? code - 48 : 16;
    isHex = digit < 16;
    word = word * 16 + digit;
    if (++digits % 8 === 0) {
      cells[at + digits / 8 - 1] = word;
      word = 0;
    }
  }
  if (!isHex) cells.fill(Number.NaN, at, at + 4);
}
const DASH = 45;

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
