import { type CircuitFigures, type CircuitView, z } from "@tokenman/plugin-sdk";

const shape = {
  state: z.enum(["closed", "open", "half-open"]),
  failuresInRow: z.int().min(0),
  recentCalls: z.int().min(0).describe("Attempts within the sliding window."),
  recentFailures: z.int().min(0),
  openedAt: z.number().nullable().describe("Milliseconds since 1970; null while it is closed."),
  probeInMs: z
    .number()
    .nullable()
    .describe("Milliseconds until it is tried again; null where it is not waited for."),
  reason: z.string().nullable().describe("Why it opened the last time."),
};

/** A provider's circuit, as the API gives it out. */
export const circuit = z.strictObject({
  ...shape,
  forced: z.boolean().describe("Whether somebody set it by hand."),
  models: z
    .array(z.strictObject({ model: z.string(), ...shape }))
    .describe("The models that failed lately, each with a circuit of its own."),
});

export function circuitOf(view: CircuitView): z.input<typeof circuit> {
  const models = view.models.map((each) => ({ model: each.model, ...figuresOf(each) }));
  return { ...figuresOf(view), forced: view.forced, models };
}

function figuresOf(figures: CircuitFigures) {
  const { state, failuresInRow, recentCalls, recentFailures, openedAt, probeInMs, reason } = figures;
  return {
    state,
    failuresInRow,
    recentCalls,
    recentFailures,
    openedAt: openedAt ?? null,
    probeInMs: probeInMs ?? null,
    reason: reason ?? null,
  };
}
