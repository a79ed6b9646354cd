import { z } from "@tokenman/plugin-sdk";

const usd = z.number().describe("US dollars.");

/** What `GET /api/security/budget` answers, be it by the plugin that keeps budgets or, where that is off, in its place. */
export const budget = z.object({
  enabled: z.boolean(),
  reserve: z.enum(["expected", "max"]).optional(),
  unpriced: z.enum(["allow", "block"]).optional(),
  time_zone: z.string().optional(),
  windows: z.array(
    z.object({
      scope: z.string(),
      period: z.enum(["hourly", "daily", "monthly"]),
      limit: usd,
      spent: usd,
      reserved: usd.describe("By requests under way."),
      resets_at: z.string().describe("ISO 8601."),
    }),
  ),
});
