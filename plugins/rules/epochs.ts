import { NO_RULES, type Ruleset, rulesetOfId } from "./ruleset.ts";

/**
 * Which rules a conversation's messages are under: those of the config at the time when they were first sent. A change of
 * the config so concerns what comes after it, and leaves what the provider has in its cache as it is.
 */
export interface Epoch {
  /** The first message that they are for; the system prompt is of the first epoch. */
  readonly from: number;
  readonly rules: Ruleset;
}

/** A config that changes more often than this within one conversation is not followed any further. */
const MAX_EPOCHS = 50;

/** As it is written down. */
export function epochsText(epochs: readonly Epoch[]): string {
  return epochs.map(({ from, rules }) => `${from}:${rules.id}`).join(";");
}

/** Undefined where the text is none of {@link epochsText}. */
export function parseEpochs(text: string): readonly Epoch[] | undefined {
  const epochs = text.split(";").map((part): Epoch | undefined => {
    const match = /^(\d{1,9}):(\w{0,20})$/.exec(part);
    return match === null ? undefined : { from: Number(match[1]), rules: rulesetOfId(match[2]!) };
  });
  return epochs.every((epoch) => epoch !== undefined) ? epochs : undefined;
}

/**
 * The epochs for a request, and whether they are others than before. `fresh` is the index of the first message that was
 * not sent before: all that comes after the last answer. A conversation that is under way, and of which nothing is
 * known, was sent without any rewriting as far as anybody can tell.
 */
export function epochsFor(
  known: readonly Epoch[] | undefined,
  current: Ruleset,
  fresh: number,
): { readonly epochs: readonly Epoch[]; readonly isNew: boolean } {
  if (known === undefined) {
    const epochs =
      fresh === 0
        ? [{ from: 0, rules: current }]
        : [
            { from: 0, rules: NO_RULES },
            { from: fresh, rules: current },
          ];
    return { epochs, isNew: true };
  }
  const last = known.at(-1);
  if (last === undefined || last.rules === current || known.length >= MAX_EPOCHS)
    return { epochs: known, isNew: false };
  return { epochs: [...known, { from: Math.max(fresh, last.from), rules: current }], isNew: true };
}

/** The rules for a message. */
export function rulesAt(epochs: readonly Epoch[], message: number): Ruleset {
  // Asked for each segment of each request.
  for (let index = epochs.length - 1; index >= 0; index--) {
    const { from, rules } = epochs[index]!;
    if (from <= Math.max(message, 0)) return rules;
  }
  return NO_RULES;
}
