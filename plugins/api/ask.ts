import { type CommandContext, formatUsd, readAnswer, TokenmanError, type z } from "@tokenman/plugin-sdk";

/**
 * The answer of the instance that runs. Rejects with TM_USAGE where it does not understand the question, and with
 * TM_NOT_RUNNING for one that has not what `shape` names.
 */
export async function ask<S extends z.ZodType>(
  context: CommandContext,
  path: string,
  query: Record<string, string>,
  shape: S,
): Promise<z.output<S>> {
  const reply = await context.fetch(`${path}?${new URLSearchParams(query)}`);
  if (reply.ok) return readAnswer(context, reply, shape);
  throw new TokenmanError(reply.status === 400 ? "TM_USAGE" : "TM_NOT_RUNNING", await said(reply));
}

/** What an answer that is none says. */
export async function said(reply: Response): Promise<string> {
  const text = (await reply.text()).slice(0, 1_000);
  try {
    return (JSON.parse(text) as { error: { message: string } }).error.message;
  } catch {
    return `the answer is ${reply.status}: ${text}`;
  }
}

export function dollars(usd: number): string {
  return formatUsd(Math.round(usd * 1e9));
}
/** 950, 12.3k, 4.56M. */
export function amount(tokens: number): string {
  if (tokens < 10_000) return String(tokens);
  return tokens < 1e6 ? `${(tokens / 1e3).toFixed(1)}k` : `${(tokens / 1e6).toFixed(2)}M`;
}
/** Columns of the terminal. */
export function width(): number {
  return process.stdout.isTTY === true ? process.stdout.columns : Number.POSITIVE_INFINITY;
}

/** An option as it was typed; undefined for none. */
export function textOf(value: unknown): string | undefined {
  return value === undefined || value === "" ? undefined : String(value);
}
