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

/** What a reference to a key may be; anything else under `key_ref` may be the key itself, written by mistake. */
const KEY_REFERENCE = /^(keyring:\/\/|keychain:|env:|file:)/;

/** Vendors' key prefixes, and passwords in URLs. */
const KEY_LIKE = /\b(?:(?:sk|pk|rk)[-_]|xox[a-z]-|gh[a-z]_|AIza|AKIA)[-_A-Za-z0-9]{8,200}/g;
const URL_CREDENTIAL = /(\b[a-z][a-z0-9+.-]{0,30}:\/\/)[^\s/@"']{1,500}@/gi;

/** `value` as it may be shown under `key`. Empty text stays: it says that nothing is set. */
export function redactText(key: string, value: string): string {
  if (value === "") return value;
  if (/(^|_)key_ref$/.test(key)) return KEY_REFERENCE.test(value) ? value : REDACTED;
  return isSecretName(key) ? REDACTED : maskLike(value);
}

function maskLike(text: string): string {
  return text.replace(URL_CREDENTIAL, `$1${REDACTED}@`).replace(KEY_LIKE, REDACTED);
}

const ASSIGNMENT = /(?<![A-Za-z0-9_-])(["']?)([A-Za-z0-9_-]{1,100})\1([ \t]{0,20}=[ \t]{0,20})("""|'''|)/g;

/**
 * A config file's text with its secrets masked, for code frames: same number of lines, and columns kept up to the
 * first secret of a line. It reads the text without parsing it, as frames are shown of files that do not parse.
 */
export function maskSource(source: string): string {
  let result = "";
  let from = 0;
  for (const match of source.matchAll(ASSIGNMENT)) {
    const start = match.index + match[0].length;
    const key = match[2]!;
    if (match.index < from) continue;
    const end = endOfValue(source, start, match[4]!);
    const value = source.slice(start, end);
    const isReference = /(^|_)key_ref$/.test(key) && KEY_REFERENCE.test(value.replace(/^["']/, ""));
    if (isReference || !(isSecretName(key) || /(^|_)key_ref$/.test(key)) || /^["']{2}\s*(#|,|$)/.test(value))
      continue;
    result += source.slice(from, start) + REDACTED + "\n".repeat(value.split("\n").length - 1);
    from = end;
  }
  return maskLike(result + source.slice(from));
}

/** A multi-line string ends at its closing quotes, anything else at the line's end: too much rather than too little. */
function endOfValue(source: string, start: number, quotes: string): number {
  const closing = quotes === "" ? -1 : source.indexOf(quotes, start);
  const from = quotes === "" ? start : closing === -1 ? source.length : closing;
  const newline = source.indexOf("\n", from);
  return newline === -1 ? source.length : newline;
}
