import { type LedgerFigures, z } from "@tokenman/plugin-sdk";

const NANO = 1e9;

/** US dollars of billionths of them, which nine decimals hold exactly. */
export function usd(nanoUsd: number): number {
  return nanoUsd / NANO;
}

const count = () => z.int().min(0);
const dollars = (about: string) => z.number().describe(`${about} US dollars.`);

const byKind = z
  .strictObject({
    input: dollars("Plain input."),
    cacheRead: dollars("Input read from the provider's cache."),
    cacheWrite5m: dollars("Input written to it for five minutes."),
    cacheWrite1h: dollars("Input written to it for an hour."),
    output: dollars("Output."),
    serverTools: dollars("Tools that the provider runs."),
  })
  .describe("Of what has a known price.");

const saving = z.strictObject({
  savedUsd: dollars("Gross."),
  lostUsd: dollars("What it lost where it was meant to save, as a positive number."),
});

export const figures = z.strictObject({
  requests: count(),
  outcomes: z.strictObject({
    answered: count(),
    aborted: count(),
    partial: count(),
    refused: count(),
    failed: count(),
    interrupted: count(),
  }),
  errors: count().describe("Answered with a status of 400 or above."),
  streams: count(),
  attempts: count(),
  tokens: z.strictObject({
    input: count().describe("Input that the provider's cache did not read or write."),
    cacheRead: count(),
    cacheWrite5m: count(),
    cacheWrite1h: count(),
    output: count(),
    reasoning: count().describe("A part of the output."),
  }),
  cost: z.strictObject({
    usd: z.number().nullable().describe("Of what has a known price; null where nothing has one."),
    estimatedUsd: dollars("The part that rests on estimated tokens."),
    unpriced: count().describe("Attempts that used tokens of unknown price: they are not in the cost."),
    byKind,
  }),
  savings: z.strictObject({
    tokens: z.number().describe("Net."),
    netUsd: dollars("Saved less lost, over all causes."),
    responseCache: saving,
    providerCache: saving,
    compression: saving,
  }),
  cache: z
    .strictObject({
      hits: count(),
      coalesced: count(),
      misses: count(),
      hitRate: z
        .number()
        .nullable()
        .describe(
          "Answered without a provider (hits and coalesced) of those and misses, 0 to 100; null without any.",
        ),
    })
    .describe("TokenMan's own response cache."),
  latency: z.strictObject({
    meanMs: z.number().nullable(),
    meanFirstByteMs: z.number().nullable(),
  }),
});

/** The ledger's figures as the API gives them out. */
export function figuresOf(sums: LedgerFigures): z.input<typeof figures> {
  const saved = (gross: number, lost: number) => ({ savedUsd: usd(gross), lostUsd: usd(lost) });
  const net =
    sums.savedResponseCache -
    sums.lostResponseCache +
    sums.savedProviderCache -
    sums.lostProviderCache +
    sums.savedCompression -
    sums.lostCompression;
  const { requests, errors, streams, attempts } = sums;
  const spared = sums.cacheHits + sums.cacheCoalesced;
  const { answered, aborted, partial, refused, failed, interrupted } = sums;
  return {
    requests,
    outcomes: { answered, aborted, partial, refused, failed, interrupted },
    errors,
    streams,
    attempts,
    tokens: {
      input: sums.inputTokens,
      cacheRead: sums.cacheReadTokens,
      cacheWrite5m: sums.cacheWrite5mTokens,
      cacheWrite1h: sums.cacheWrite1hTokens,
      output: sums.outputTokens,
      reasoning: sums.reasoningTokens,
    },
    cost: {
      // Nothing but unpriced attempts: 0 would be a price.
      usd: sums.cost === 0 && sums.unpriced > 0 ? null : usd(sums.cost),
      estimatedUsd: usd(sums.costEstimated),
      unpriced: sums.unpriced,
      byKind: {
        input: usd(sums.costInput),
        cacheRead: usd(sums.costCacheRead),
        cacheWrite5m: usd(sums.costCacheWrite5m),
        cacheWrite1h: usd(sums.costCacheWrite1h),
        output: usd(sums.costOutput),
        serverTools: usd(sums.costServerTools),
      },
    },
    savings: {
      tokens: sums.savedTokens,
      netUsd: usd(net),
      responseCache: saved(sums.savedResponseCache, sums.lostResponseCache),
      providerCache: saved(sums.savedProviderCache, sums.lostProviderCache),
      compression: saved(sums.savedCompression, sums.lostCompression),
    },
    cache: {
      hits: sums.cacheHits,
      coalesced: sums.cacheCoalesced,
      misses: sums.cacheMisses,
      hitRate: share(spared, spared + sums.cacheMisses, 100),
    },
    latency: {
      meanMs: share(sums.durationUs, requests, 1e-3),
      meanFirstByteMs: share(sums.firstByteUs, sums.firstBytes, 1e-3),
    },
  };
}

function share(part: number, whole: number, scale: number): number | null {
  return whole === 0 ? null : (part / whole) * scale;
}
