import { AssertionError } from "node:assert";
import { type JsonNode, parseIndex } from "../src/json-index.ts";

type Bytes = Buffer | string;
const CONTEXT_BYTES = 48;

/** Throws AssertionError, with the first difference and what is around it, unless both are the same bytes. */
export function assertBytesEqual(actual: Bytes, expected: Bytes, message = "the bytes differ"): void {
  const [left, right] = [bytesOf(actual), bytesOf(expected)];
  if (left.equals(right)) return;
  throw failure(message, left, right, firstDifference(left, right), assertBytesEqual);
}

/** Throws AssertionError likewise unless `actual` begins with `prefix`. */
export function assertBytesStart(actual: Bytes, prefix: Bytes, message = "the bytes differ"): void {
  const [left, right] = [bytesOf(actual), bytesOf(prefix)];
  if (left.subarray(0, right.length).equals(right)) return;
  throw failure(message, left, right, firstDifference(left, right), assertBytesStart);
}

/** The offset of the first byte that differs; of a missing one, the shorter length. */
export function firstDifference(left: Buffer, right: Buffer): number {
  const common = Math.min(left.length, right.length);
  for (let offset = 0; offset < common; offset++) if (left[offset] !== right[offset]) return offset;
  return common;
}

/**
 * Both sides around an offset, one below the other, with a caret below the byte and, in a JSON body, its pointer.
 *
 * @example
 * at byte 27, /messages/0/content:
 *   actual    …ges":[{"content":"Hello
 *   expected  …ges":[{"content":"hello
 *                                 ^
 */
export function showDifference(actual: Buffer, expected: Buffer, offset: number): string {
  const from = Math.max(0, offset - CONTEXT_BYTES);
  const cut = from > 0 ? "…" : "";
  const before = cut + readable(actual.subarray(from, offset));
  const rest = (bytes: Buffer): string => {
    const shown = readable(bytes.subarray(offset, offset + CONTEXT_BYTES));
    return shown + (bytes.length > offset + CONTEXT_BYTES ? "…" : bytes.length <= offset ? "(end)" : "");
  };
  const pointer = pointerAt(actual, offset) ?? pointerAt(expected, offset);
  const where = pointer === undefined ? "" : `, ${pointer === "" ? "the root" : pointer}`;
  return [
    `at byte ${offset}${where} (${actual.length} bytes, expected ${expected.length}):`,
    `  actual    ${before}${rest(actual)}`,
    `  expected  ${before}${rest(expected)}`,
    `            ${" ".repeat([...before].length)}^`,
  ].join("\n");
}

/** The JSON pointer of the innermost value at an offset; undefined where the bytes are no JSON. */
export function pointerAt(bytes: Buffer, offset: number): string | undefined {
  let node: JsonNode;
  try {
    node = parseIndex(bytes);
  } catch {
    return undefined;
  }
  let pointer = "";
  for (;;) {
    const children: readonly (readonly [string, number, JsonNode])[] =
      node.kind === "array"
        ? node.items().map((item, index) => [String(index), item.start, item] as const)
        : node.entries().map((member) => [member.key, member.keyStart, member.value] as const);
    const child = children.find(([, start, { end }]) => start <= offset && offset < end);
    if (child === undefined) return pointer;
    pointer += `/${child[0].replaceAll("~", "~0").replaceAll("/", "~1")}`;
    node = child[2];
  }
}

/** Text with its control characters escaped; bytes that are no UTF-8 in hexadecimal. One character a column. */
function readable(bytes: Buffer): string {
  return [...bytes.toString("utf8")]
    .map((char) => {
      const code = char.codePointAt(0)!;
      if (char === "\n") return "\\n";
      if (char === "\r") return "\\r";
      if (code < 32 || code === 0x7f) return `\\x${code.toString(16).padStart(2, "0")}`;
      return char;
    })
    .join("");
}

function bytesOf(value: Bytes): Buffer {
  return typeof value === "string" ? Buffer.from(value) : value;
}

function failure(
  message: string,
  actual: Buffer,
  expected: Buffer,
  offset: number,
  stackStartFn: (...args: never[]) => void,
): AssertionError {
  return new AssertionError({
    message: `${message} ${showDifference(actual, expected, offset)}`,
    actual: actual.toString("utf8"),
    expected: expected.toString("utf8"),
    operator: "bytes",
    stackStartFn: stackStartFn as never,
  });
}
