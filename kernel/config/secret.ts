import { maskKeys, nearest } from "@tokenman/plugin-sdk";

/**
 * Which parts of a config are secret, by the names of keys and by what values look like. Schemas can say it exactly
 * (`.meta({ secret: true })`); this catches what is secret whatever the schema says, and text that no schema has read.
 */
export const REDACTED = "[redacted]";

/** Header names are met too, hence dashes; `max_tokens` and `key_file` are not secrets. */
const SECRET_NAME =
  /(^|[_-])(token|secret|password|passphrase|credentials?|authorization|cookie|key|apikey|webhook|webhook_url)$/i;

export function isSecretName(key: string): boolean {
  return SECRET_NAME.test(key);
}

/** Names under which secrets are written most; what is nearly one of them is probably meant to be one. */
const COMMON = ["token", "key_ref", "api_key", "secret", "password"];

/** Whether an unknown key is near a secret one, of `known` or of the common ones: its value may be that secret. */
export function isNearlySecret(key: string, known: Iterable<string> = []): boolean {
  const meant = nearest(key.toLowerCase(), [...COMMON, ...known]);
  return meant !== undefined && (isSecretName(meant) || isKeyRef(meant));
}

/** What a reference to a key may be; anything else under `key_ref` may be the key itself, written by mistake. */
const KEY_REFERENCE = /^(keyring:\/\/|keychain:|env:|file:)/;

function isKeyRef(key: string): boolean {
  return /(^|_)key_ref$/.test(key);
}

/** A URL's query and fragment: keys stand there under any name. */
const URL_QUERY = /(\b[a-z][a-z0-9+.-]{0,30}:\/\/[^\s"'?#]{1,500}[?#])[^\s"']{1,4000}/gi;

/** `value` as it may be shown under `key`. Empty text stays: it says that nothing is set. */
export function redactText(key: string, value: string): string {
  if (value === "") return value;
  if (isKeyRef(key)) return KEY_REFERENCE.test(value) ? value : REDACTED;
  return isSecretName(key) ? REDACTED : maskLike(value);
}

function maskLike(text: string): string {
  return maskKeys(text.replace(URL_QUERY, `$1${REDACTED}`), REDACTED);
}

const ASSIGNMENT = /(?<![A-Za-z0-9_-])(["']?)([A-Za-z0-9_-]{1,100})\1([ \t]{0,20}=[ \t]{0,20})("""|'''|)/g;

/**
 * A config file's text with its secrets masked, for code frames: same number of lines, and columns kept up to the
 * first secret of a line. It reads the text without parsing it, as frames are shown of files that do not parse.
 * `isSecret` says which keys' values are masked.
 */
export function maskSource(source: string, isSecret: (key: string) => boolean = isSecretName): string {
  let result = "";
  let from = 0;
  for (const match of source.matchAll(ASSIGNMENT)) {
    const start = match.index + match[0].length;
    const key = match[2]!;
    if (match.index < from) continue;
    const end = endOfValue(source, start, match[4]!);
    const value = source.slice(start, end);
    const isReference = isKeyRef(key) && KEY_REFERENCE.test(value.replace(/^["']/, ""));
    if (isReference || !(isSecret(key) || isKeyRef(key)) || /^["']{2}\s*(#|,|$)/.test(value)) continue;
    result += source.slice(from, start) + REDACTED + "\n".repeat(value.split("\n").length - 1);
    from = end;
  }
  return maskLike(result + source.slice(from));
}

/**
 * A multi-line string ends at its closing quotes, a list or an inline table at its closing bracket, and everything at
 * the end of that line: too much rather than too little.
 */
function endOfValue(source: string, start: number, quotes: string): number {
  let from = start;
  if (quotes !== "") from = source.indexOf(quotes, start);
  else if (source[start] === "[" || source[start] === "{") from = closingBracket(source, start);
  const newline = from === -1 ? -1 : source.indexOf("\n", from);
  return newline === -1 ? source.length : newline;
}

const BRACKETS = /"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#[^\n]*|[[\]{}]/g;

/** Where the bracket at `start` is closed, past strings and comments; -1 where it is not. */
function closingBracket(source: string, start: number): number {
  let depth = 0;
  BRACKETS.lastIndex = start;
  for (let match = BRACKETS.exec(source); match !== null; match = BRACKETS.exec(source)) {
    const [found] = match;
    if (found === "[" || found === "{") depth++;
    else if ((found === "]" || found === "}") && --depth === 0) return match.index;
  }
  return -1;
}
