import {
  type AttemptDecision,
  type AttemptPolicy,
  type AttemptView,
  type Candidate,
  TokenmanError,
} from "@tokenman/plugin-sdk";

/** The policy of a TokenMan without a retry plugin: the first candidate that is not skipped, once. */
export const singleAttempt: AttemptPolicy = Object.freeze({
  holdFirstEvent: () => false,
  next: ({ attempts, untried }: AttemptView): AttemptDecision => {
    const candidate = untried[0];
    if (candidate === undefined || attempts.some((attempt) => attempt.result?.kind !== "skipped"))
      return { kind: "stop" };
    return { kind: "try", candidate };
  },
  accept: () => true,
});

/** A policy is a plugin's. Throws TM_PLUGIN_RESULT for what is no decision. */
export function checkDecision(decision: AttemptDecision): AttemptDecision {
  const { kind, candidate } = (decision ?? {}) as { readonly kind?: unknown; readonly candidate?: Candidate };
  if (kind === "wait" || kind === "stop") return decision;
  if (kind === "try" && typeof candidate?.provider?.name === "string") return decision;
  throw new TokenmanError("TM_PLUGIN_RESULT", "the AttemptPolicy's next() returned no decision");
}
