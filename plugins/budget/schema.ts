import { isTimeZone, z } from "@tokenman/plugin-sdk";

const usd = (description: string) => z.number().min(0).max(1_000_000).default(0).describe(description);

const limits = z.strictObject({
  hourly_limit: usd("USD an hour. 0 is no limit."),
  daily_limit: usd("USD a day. 0 is no limit."),
  monthly_limit: usd("USD a month. 0 is no limit."),
});

export type PeriodLimits = z.output<typeof limits>;

/** `[security.budget]`. */
export const budgetSchema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Refuse requests once the money is spent."),
    ...limits.shape,
    alert_thresholds: z
      .array(z.number().min(0).max(100))
      .default([50, 75, 90])
      .describe("Percentages of a limit at which an alert is raised."),
    providers: z
      .record(z.string().min(1), limits)
      .default({})
      .describe("Limits of single providers: [security.budget.providers.NAME]."),
    models: z
      .record(z.string().min(1), limits)
      .default({})
      .describe('Limits of models; * stands for any text: [security.budget.models."gpt-*"].'),
    reserve: z
      .enum(["expected", "max"])
      .default("expected")
      .describe(
        "What a request must find room for before it is sent: the output that its model usually gives, or the most that the client allows.",
      ),
    assumed_output_tokens: z
      .int()
      .min(0)
      .default(2048)
      .describe(
        "Output expected of a model whose replies are not known yet, and of clients that set no maximum.",
      ),
    unpriced: z
      .enum(["allow", "block"])
      .default("allow")
      .describe("What becomes of requests whose price nobody knows: no limit counts them."),
    time_zone: z
      .string()
      .default("UTC")
      .refine((zone) => isTimeZone(zone), "expected an IANA time zone such as Europe/Berlin")
      .describe("Whose hours, days and months they are: an IANA name."),
    webhook: z
      .string()
      .default("")
      .refine(
        (url) => url === "" || isWebhook(url),
        "expected an https URL, or an http URL of this machine (127.0.0.1, [::1], localhost)",
      )
      .meta({ secret: true })
      .describe("Where alerts are posted as JSON, too: https, or http on this machine."),
  })
  .describe("Refuses requests once the money is spent.");

export type BudgetConfig = z.output<typeof budgetSchema>;

/** Alerts have figures in them, so they travel encrypted or not at all. */
function isWebhook(text: string): boolean {
  const url = URL.parse(text);
  if (url === null) return false;
  if (url.protocol === "https:") return true;
  return url.protocol === "http:" && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname);
}
