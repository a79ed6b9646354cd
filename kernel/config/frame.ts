import { maskSource } from "./secret.ts";

const LINES_BEFORE = 2;
const LINES_AFTER = 1;
const MAX_WIDTH = 120;

/**
 * The lines of `source` around a place, numbered, with a caret under the place; ready for a terminal. Secrets and
 * control characters are masked. `line` and `column` count from 1; `width` is how many characters are at fault.
 */
export function codeFrame(source: string, line: number, column: number, width = 1): string {
  const lines = maskSource(source).split(/\r?\n/);
  const first = Math.max(1, line - LINES_BEFORE);
  const last = Math.min(lines.length, line + LINES_AFTER);
  const gutter = String(last).length;
  // Long lines are shown from just before the place on.
  const cut = column > MAX_WIDTH - 20 ? column - 40 : 0;
  const out: string[] = [];
  for (let number = first; number <= last; number++) {
    const text = printable(lines[number - 1] ?? "").slice(cut, cut + MAX_WIDTH);
    out.push(`${number === line ? ">" : " "} ${String(number).padStart(gutter)} | ${text}`.trimEnd());
    if (number !== line) continue;
    const visible = Math.max(1, Math.min(width, text.length - (column - 1 - cut)));
    out.push(`  ${" ".repeat(gutter)} | ${" ".repeat(column - 1 - cut)}${"^".repeat(visible)}`);
  }
  return out.join("\n");
}

/** One character for one, so that the caret stays where it belongs. */
function printable(line: string): string {
  return line.replace(/\t/g, " ").replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, "\ufffd");
}
