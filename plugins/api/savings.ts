import { holdoutEffect, type LedgerSavings, MIN_TRIAL_SESSIONS, z } from "@tokenman/plugin-sdk";
import { usd } from "./figures.ts";

const group = (about: string) =>
  z
    .strictObject({
      sessions: z.int().min(0).describe("One that goes on over midnight UTC counts for each day."),
      requests: z.int().min(0),
      inputTokens: z.number().describe("Input as clients sent it."),
      paidTokens: z.number().describe("What the input cost, in tokens at the price of plain input."),
    })
    .describe(about);

/** The comparison with sessions whose text no compressor changed. */
export const holdout = z.strictObject({
  compressed: group("Sessions that compressors could change."),
  held: group("Sessions held out from them: `compression.holdout`."),
  effect: z
    .strictObject({
      savedPercent: z.number().describe("Of what a token of input costs; negative is a loss."),
      lowPercent: z.number(),
      highPercent: z.number(),
    })
    .nullable()
    .describe(
      `With a 95 % confidence interval; null with fewer than ${MIN_TRIAL_SESSIONS} sessions on either side.`,
    ),
});

export const pluginSaving = z.strictObject({
  plugin: z.string().describe("\"provider\" is the provider's cache without a plugin's help."),
  kind: z.enum(["response-cache", "provider-cache", "compression"]),
  requests: z.int().min(0).describe("On which it saved or lost."),
  tokens: z.number().describe("Net."),
  savedUsd: z.number().describe("Gross US dollars."),
  lostUsd: z.number().describe("What it lost where it was meant to save, as a positive number."),
  netUsd: z.number(),
});

export function holdoutOf({
  treated,
  held,
}: Pick<LedgerSavings, "treated" | "held">): z.input<typeof holdout> {
  const effect = holdoutEffect(treated, held);
  const groupOf = ({ sessions, requests, originalTokens, paidTokens }: LedgerSavings["held"]) => ({
    sessions,
    requests,
    inputTokens: originalTokens,
    paidTokens,
  });
  return {
    compressed: groupOf(treated),
    held: groupOf(held),
    effect:
      effect === undefined
        ? null
        : {
            savedPercent: effect.saved * 100,
            lowPercent: effect.low * 100,
            highPercent: effect.high * 100,
          },
  };
}

export function pluginSavingsOf({ plugins }: Pick<LedgerSavings, "plugins">): z.input<typeof pluginSaving>[] {
  return plugins.map(({ savedNanoUsd, lostNanoUsd, ...rest }) => ({
    ...rest,
    savedUsd: usd(savedNanoUsd),
    lostUsd: usd(lostNanoUsd),
    netUsd: usd(savedNanoUsd - lostNanoUsd),
  }));
}
