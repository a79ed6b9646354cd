import type { WriteStream } from "node:tty";
import { styleText } from "node:util";

/** Whether to colour what goes to `stream`: it is a terminal, and nobody set NO_COLOR (https://no-color.org). */
export function takesColor(stream: Pick<WriteStream, "isTTY">, env = process.env): boolean {
  return stream.isTTY === true && (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb";
}

/** `text` in a style, where `color` says so. */
export function paint(color: boolean, style: Parameters<typeof styleText>[0], text: string): string {
  return color ? styleText(style, text, { validateStream: false }) : text;
}

/** A text behind its label, broken at spaces to be no wider than `columns`; the later lines begin where the text does. */
export function labelled(label: string, text: string, columns: number): string[] {
  return wrapped(text, columns - label.length).map(
    (line, index) => (index === 0 ? label : " ".repeat(label.length)) + line,
  );
}

/** A word that is wider than `width` stays whole. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** Whole seconds, minutes, hours or days: "3 h 12 min". */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  return minutes > 0 ? `${minutes} min` : `${seconds} s`;
}
