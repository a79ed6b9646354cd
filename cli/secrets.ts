import { maskKeys } from "@tokenman/plugin-sdk";

/** Variables whose value may be a credential. */
const SECRET_VARIABLE = /(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS?)(_|$)/i;
const SHORTEST = 8;

/** As headers have them. */
const AUTHORIZATION = /\b(bearer|basic) +[-._~+/=A-Za-z0-9]{8,4000}/gi;

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
    return maskKeys(result.replace(AUTHORIZATION, "$1 [redacted]"));
  };
}
