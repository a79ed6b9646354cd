import type { AttemptDecision, AttemptView } from "./attempt-policy.ts";
import { type ServiceToken, service } from "./service.ts";

/**
 * Decides whether a second attempt is begun beside one that takes long. It is no {@link AttemptPolicy}: the policy asks it
 * while an attempt is live, and does what it says.
 */
export interface Hedging {
  /**
   * What to do while `view.live` is not empty: "try" begins the second attempt now, "wait" asks to be asked again.
   * Undefined: nothing will ever be begun beside these. Synchronous and cheap.
   */
  next(view: AttemptView): AttemptDecision | undefined;
}

/** Provided by at most one plugin; without one no attempt has company. */
export const Hedging: ServiceToken<Hedging> = service<Hedging>("Hedging");
