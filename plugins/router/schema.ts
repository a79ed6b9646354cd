import { z } from "@tokenman/plugin-sdk";
import { connectionKeys } from "./connection.ts";

/** Node's timers hold no more than 2^31 - 1 milliseconds. */
const MAX_SECONDS = 2_000_000;

/** Providers that exist without being configured: each is named as its format, and reached at the vendor's own host. */
export const BUILT_IN = ["anthropic", "openai"] as const;

function seconds(fallback: number, description: string) {
  return z.number().min(0).max(MAX_SECONDS).default(fallback).describe(description);
}

/** Text that may be left empty, which is the same as leaving it out. */
function text(description: string) {
  return z
    .string()
    .default("")
    .transform((value) => (value === "" ? undefined : value))
    .describe(description);
}

const KEY_REF = /^(?:env:[A-Za-z_][A-Za-z0-9_]*|file:\/\/\/.+|keyring:\/\/.+|keychain:.+)$/;

const keyRef = z.string().refine((value) => value === "" || KEY_REF.test(value), {
  error:
    "expected env:NAME, file:///PATH or keyring://tokenman/NAME: a reference to the key, not the key itself",
});

const apiBase = z
  .string()
  .default("")
  .superRefine((value, context) => {
    const problem = value === "" ? undefined : baseProblem(value);
    if (problem !== undefined) context.addIssue({ code: "custom", message: problem });
  })
  .transform((value) => (value === "" ? undefined : normalBase(value)))
  .describe("The server: its URL up to, but without, /v1/…. Empty: the vendor's own.");

const provider = z.strictObject({
  name: text("A second name by which model_map and default_provider may call it."),
  format: text('The API it speaks: "anthropic" or "openai". Empty: told from its name, then from api_base.'),
  api_base: apiBase,
  auth: z
    .enum(["client", "key", "none"])
    .optional()
    .describe(
      'Whose credential it gets. Not set: the client\'s, but only at the vendor\'s own host, else key_ref. "client": the client\'s, else key_ref; you vouch for the server. "key": always key_ref. "none": none.',
    ),
  key_ref: z
    .union([keyRef, z.array(keyRef.min(1)).min(1)])
    .default("")
    .transform((value) => (typeof value === "string" ? (value === "" ? [] : [value]) : value))
    .describe(
      "Where its key is: env:NAME, file:///PATH; a list where it has several. Empty: TOKENMAN_KEY_NAME, where that variable is set.",
    ),
  models: z
    .array(z.string().min(1))
    .default([])
    .describe("Models it serves, * standing for any text. Empty: every model of its format."),
  enabled: z.boolean().default(true).describe("Whether it is used at all."),
  priority: z.int().default(0).describe("The lower goes first among providers that serve the same model."),
  weight: z
    .number()
    .min(0)
    .max(1_000_000)
    .default(0)
    .describe(
      "Its part of the conversations among providers of equal priority that have a weight; those without follow.",
    ),
  timeout: seconds(600, "Seconds from the request's last byte to the reply's head; 0: no limit."),
  connect_timeout: seconds(10, "Seconds to connect, TLS included; 0: no limit."),
  ...connectionKeys,
});

export type ProviderConfig = z.output<typeof provider>;

/** `[providers.NAME]`. A slash ends the provider's name in model_map, so names have none. */
export const providersSchema = z
  .record(
    z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, {
      error: "expected a provider's name of letters, digits, dots, dashes and underscores",
    }),
    provider,
  )
  .superRefine((providers, context) => {
    for (const [name, { api_base, format }] of Object.entries(providers)) {
      const isVendors = (BUILT_IN as readonly string[]).includes(name) || format === name;
      if (api_base !== undefined || isVendors) continue;
      const path = [name, "api_base"];
      context.addIssue({ code: "custom", path, message: "expected the URL of the server, found none" });
    }
  })
  .default({});

export type ProvidersConfig = z.output<typeof providersSchema>;

const target = z.string().regex(/^[^/\s]+(?:\/\S+)?$/, {
  error: 'expected "PROVIDER", "PROVIDER/MODEL" or another model of the map',
});

/** `[routing]`. */
export const routingSchema = z.strictObject({
  default_provider: z
    .string()
    .min(1)
    .default("anthropic")
    .describe("Goes first among equals, and gets what nothing else claims."),
  fallback_enabled: z
    .boolean()
    .default(true)
    .describe("Whether further providers that serve the model follow as candidates for another attempt."),
  affinity_seconds: z
    .number()
    .min(0)
    .max(MAX_SECONDS)
    .default(600)
    .describe(
      "How long after its last request a conversation stays with the provider and key that took it over; 0: not at all.",
    ),
  models_ttl_seconds: z
    .number()
    .min(0)
    .max(MAX_SECONDS)
    .default(300)
    .describe("How long a provider's list of models is good for /v1/models."),
  models_wait_seconds: z
    .number()
    .min(0)
    .max(60)
    .default(2)
    .describe("How long /v1/models waits for lists that are not there; then it answers with those that are."),
  models_of_all_formats: z
    .boolean()
    .default(false)
    .describe("Whether /v1/models also lists models that the client's own format does not reach."),
  heartbeat_model: z
    .string()
    .default("")
    .describe("A cheaper model for polling requests; used by heartbeat."),
  model_map: z
    .record(z.string().min(1), target)
    .default({})
    .describe(
      'Models, * standing for any text, and where they go: "PROVIDER", "PROVIDER/MODEL" to rename them, or another model.',
    ),
});

export type RoutingConfig = z.output<typeof routingSchema>;

function baseProblem(value: string): string | undefined {
  const url = URL.parse(value);
  if (url === null || !/^https?:$/.test(url.protocol))
    return "expected a URL that begins with http:// or https://";
  if (url.username !== "" || url.password !== "")
    return "expected a URL without a user name or password; use key_ref";
  if (url.search !== "" || url.hash !== "") return "expected a URL without a query and fragment";
  return undefined;
}

/** Less trailing slashes and the `/v1` that requests bring themselves. */
function normalBase(value: string): string {
  const url = new URL(value);
  const path = url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "").replace(/\/+$/, "");
  return url.origin + path;
}
