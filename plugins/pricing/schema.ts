import { z } from "@tokenman/plugin-sdk";

const usd = (description: string) => z.number().min(0).max(1_000_000).optional().describe(description);

const prices = {
  cache_read: usd("USD per million input tokens read from the provider's cache."),
  cache_write_5m: usd("USD per million tokens written to it for five minutes."),
  cache_write_1h: usd("USD per million tokens written to it for an hour."),
};
const input = z.number().min(0).max(1_000_000).describe("USD per million input tokens.");
const output = z
  .number()
  .min(0)
  .max(1_000_000)
  .describe("USD per million output tokens, reasoning included.");

const tier = z.strictObject({
  above: z
    .int()
    .min(1)
    .describe("Input tokens, cached ones included, beyond which these prices bill all of a request."),
  input,
  output,
  ...prices,
});

const model = z.strictObject({
  input,
  output,
  ...prices,
  tools: z
    .record(z.string().min(1), z.number().min(0).max(1_000_000))
    .default({})
    .describe("USD per thousand uses of tools that the provider runs, by their name in its usage."),
  tiers: z.array(tier).default([]).describe("Prices for long inputs."),
  service_tiers: z
    .record(z.string().min(1), z.number().min(0).max(1_000))
    .default({})
    .describe("What service tiers multiply all token prices with: { batch = 0.5 }."),
});

export type ModelPrices = z.output<typeof model>;

/** `[pricing."MODEL"]`. */
export const pricingSchema = z
  .record(z.string().min(1), model)
  .default({})
  .describe(
    "Prices by model, \"PROVIDER/MODEL\" for one provider's; * stands for any text. They replace the catalogue's as a whole.",
  );

export type PricingConfig = z.output<typeof pricingSchema>;
