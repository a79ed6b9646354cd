/** Variables whose value may be a credential. */
const SECRET_VARIABLE = /(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS?)(_|$)/i;
const SHORTEST = 8;

/** Vendors' key prefixes, bearer values, JSON Web Tokens, and passwords in URLs. Each pattern is linear. */
const SECRET_LIKE: readonly (readonly [pattern: RegExp, by: string])[] = [
  [/\b(?:sk|pk|rk|xox[a-z]|gh[a-z]|AIza|AKIA)[-_A-Za-z0-9]{12,500}/g, "[redacted]"],
  [/\b(bearer|basic) +[-._~+/=A-Za-z0-9]{8,4000}/gi, "$1 [redacted]"],
  [/\beyJ[-_A-Za-z0-9]{8,4000}\.[-_A-Za-z0-9]{8,4000}\.[-_A-Za-z0-9]{1,4000}/g, "[redacted]"],
  [/(\b[a-z][a-z0-9+.-]{0,30}:\/\/)[^\s/@"']{1,500}@/gi, "$1[redacted]@"],
];

/** Takes out of a text what looks like a secret. */
export type Redactor = (text: string) => string;

/**
 * For text that goes to stderr or a log and that nobody has vetted (an unexpected error's message and stack): takes out
 * what looks like a credential, and the values that variables with such names have in `env` now.
 */
export function createRedactor(env: Readonly<Record<string, string | undefined>> = process.env): Redactor {
  const values = Object.entries(env)
    .filter(([name, value]) => (value?.length ?? 0) >= SHORTEST && SECRET_VARIABLE.test(name))
    .map(([, value]) => value!);
  return (text) => {
    let result = text;
    for (const value of values) result = result.replaceAll(value, "[redacted]");
    for (const [pattern, by] of SECRET_LIKE) result = result.replace(pattern, by);
    return result;
  };
}
