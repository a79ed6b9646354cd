/** Random JSON source text: odd white space and escapes, duplicate keys, extreme numbers, lone surrogates. */
import type { Random } from "./random.ts";

const KEYS = [
  "model",
  "stream",
  "a",
  "b",
  "",
  "__proto__",
  "a/b",
  "m~n",
  'q"',
  "é",
  "-",
  "0",
  "1",
  "long key ".repeat(8),
];
const TEXTS = [
  "",
  "x",
  'say "hi"',
  "back\\slash\\",
  "line\nbreak\t",
  "é€😀",
  "\ud800",
  "/",
  "{[,:]}",
  "\u001b[0m",
  'x"'.repeat(50),
];
const NUMBERS = ["0", "-0", "1.0", "12345678901234567890", "-1.5e+10", "1E-2", "1e400", "42"];

/** A random document, with white space around it. */
export function randomJson(random: Random, depth = 4): string {
  return space(random) + randomValue(random, depth) + space(random);
}

/** A random value with no white space around it. */
export function randomValue(random: Random, depth: number): string {
  const kind = depth === 0 ? random.below(4) : random.below(9);
  if (kind === 0) return random.pick(["true", "false", "null"]);
  if (kind === 1) return random.pick(NUMBERS);
  if (kind <= 3) return randomString(random, random.pick(TEXTS) + random.pick(TEXTS));
  const parts: string[] = [];
  for (let count = random.below(6); count > 0; count--) {
    const value = space(random) + randomValue(random, depth - 1) + space(random);
    parts.push(
      kind % 2 === 0
        ? value
        : `${space(random)}${randomString(random, random.pick(KEYS))}${space(random)}:${value}`,
    );
  }
  const inside = parts.length === 0 ? space(random) : parts.join(",");
  return kind % 2 === 0 ? `[${inside}]` : `{${inside}}`;
}

/** A literal for `text`, with some characters escaped that need not be. */
export function randomString(random: Random, text: string): string {
  if (random.chance(0.6)) return JSON.stringify(text);
  let literal = "";
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (random.chance(0.2)) literal += `\\u${unit.toString(16).padStart(4, "0")}`;
    else if (text[at] === "/" && random.chance(0.5)) literal += "\\/";
    else if (unit >= 0xd800 && unit <= 0xdfff) literal += `\\u${unit.toString(16).toUpperCase()}`;
    else literal += JSON.stringify(text[at]).slice(1, -1);
  }
  return `"${literal}"`;
}

function space(random: Random): string {
  if (random.chance(0.7)) return "";
  return Array.from({ length: random.below(4) }, () => random.pick([" ", "\n", "\r", "\t"])).join("");
}
