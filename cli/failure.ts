import { ERRORS, TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { createRedactor } from "./secrets.ts";

export interface Failure {
  /** What a person is to read: all problems, each with its place, code and code frame. */
  readonly text: string;
  readonly exit: number;
}

/** How a command that failed ends. Only an unforeseen error shows its stack. */
export function describeFailure(error: unknown): Failure {
  const redact = createRedactor();
  if (error instanceof TokenmanErrors && error.errors.length > 0) {
    const all = error.errors.map((each) => each.describe());
    const text = all.length === 1 ? all[0]! : `${all.join("\n")}\n${all.length} problems`;
    return { text: redact(text), exit: error.exit };
  }
  if (error instanceof TokenmanError) return { text: redact(error.describe()), exit: error.exit };
  const { stack } = error instanceof Error ? error : new Error(String(error));
  return { text: redact(`TM_INTERNAL ${stack}`), exit: ERRORS.TM_INTERNAL.exit };
}
