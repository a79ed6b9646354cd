import crypto from "node:crypto";

const POOL_BYTES = 4096;
/** Hexadecimal digits that are needed for one id beside the time. */
const RANDOM_DIGITS = 19;
const VARIANTS = "89ab";

let random = "";
let used = 0;
let lastMs = -1;
let time = "";

/** A UUID of version 7 (RFC 9562 §5.7): 48 bits of milliseconds, then random bits. Sorts by time. */
export function uuidv7(nowMs = Date.now()): string {
  if (used + RANDOM_DIGITS > random.length) {
    random = crypto.randomBytes(POOL_BYTES).toString("hex");
    used = 0;
  }
  if (nowMs !== lastMs) {
    lastMs = nowMs;
    const digits = nowMs.toString(16).padStart(12, "0");
    time = `${digits.slice(0, 8)}-${digits.slice(8)}-7`;
  }
  const from = used;
  used += RANDOM_DIGITS;
  const variant = VARIANTS[Number.parseInt(random[from + 3]!, 16) & 3]!;
  return `${time}${random.slice(from, from + 3)}-${variant}${random.slice(from + 4, from + 7)}-${random.slice(from + 7, used)}`;
}
