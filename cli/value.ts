import { TokenmanError } from "@tokenman/plugin-sdk";

/** An option's value in seconds, as milliseconds. Throws TM_USAGE. */
export function seconds(value: unknown, flag: string, fallback: number): number {
  const number = value === undefined ? fallback : Number(value);
  if (!(number >= 0 && number <= 86_400) || value === "") {
    throw new TokenmanError(
      "TM_USAGE",
      `${flag}: expected a number of seconds from 0 to 86400, found "${value}"`,
    );
  }
  return number * 1000;
}

/** An option's value as text; undefined where it was not given. */
export function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
