/** Strings as they stand, and white space between them (RFC 8259 §2). */
const STRING_OR_SPACE = /"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\n\r]+/g;

/**
 * A text that is nothing but a JSON object or array, without its white space; the text itself where it is none. Numbers,
 * escapes, duplicate keys and all else stay as they are written.
 */
export function minifyJson(text: string): string {
  if (!isBracketed(text)) return text;
  try {
    JSON.parse(text);
  } catch {
    return text;
  }
  return text.replace(STRING_OR_SPACE, (match) => (match.startsWith('"') ? match : ""));
}

function isBracketed(text: string): boolean {
  const first = text.charCodeAt(0);
  if (first !== 0x7b && first !== 0x5b) return false;
  const last = text.trimEnd().at(-1);
  return last === (first === 0x7b ? "}" : "]");
}
