import { z } from "@tokenman/plugin-sdk";
import { circuit } from "./circuit.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventParameters } from "./query.ts";

const NOTHING = z.strictObject({});

const reload = z.object({
  ok: z.boolean(),
  generation: z.number(),
  error: z.string().optional().describe("What failed, in words."),
  brief: z.string().optional().describe("The same as places and codes, without anything of the files."),
  files: z.array(z.string()).optional(),
});

const plugin = z.object({
  name: z.string(),
  version: z.string(),
  source: z.string(),
  digest: z.string().optional().describe("Hash over the files of a plugin that is not built in."),
  state: z.enum(["on", "off", "quarantined"]),
  reason: z.string().optional().describe("Why it is off or quarantined."),
  failures: z.number(),
});

/** As the plugin that has it gives it out: what there is none of is left out. */
const circuitView = z.looseObject({ ...circuit.partial().shape, provider: z.string() });

const tier = { entries: z.number(), bytes: z.number(), evicted: z.number() };
const cacheStats = z.object({
  hits: z.number(),
  misses: z.number(),
  coalesced: z.number().describe("Answered by another request at the same time."),
  bypassed: z.number(),
  stored: z.number(),
  inFlight: z.number(),
  memory: z.object(tier),
  disk: z.object({
    ...tier,
    written: z.number(),
    failing: z.string().nullable().describe("Why nothing can be written at present."),
  }),
});
const purged = z.object({ purged: z.number().describe("How many answers there were.") });

const rate = z.number().nullable().describe("0.9 is 90 %.");
const promptCache = z.object({
  input_tokens: z.number(),
  read_tokens: z.number(),
  written_tokens: z.number(),
  hit_rate: rate,
  turns_by_result: z.record(z.string(), z.number()),
  turns: z.array(
    z.object({
      request: z.string(),
      at: z.number(),
      project: z.string(),
      session: z.string(),
      model: z.string(),
      hints: z.enum(["dedup", "client", "none"]).describe("Whose hints the cache had."),
      result: z.string().describe("`hit`, `first`, or why the provider's cache had little of the turn."),
      input_tokens: z.number(),
      read_tokens: z.number(),
      written_tokens: z.number(),
      expected_tokens: z.number().describe("What the turn before had, and so could have been read."),
      hit_rate: rate,
    }),
  ),
});

const shownRoute = z.object({
  format: z.string(),
  candidates: z.array(
    z.object({
      provider: z.string(),
      model: z.string().optional().describe("What is sent in the place of the name asked for."),
      credential: z.enum(["the client's", "its own key", "none"]),
      account: z.string().optional(),
      reason: z.string(),
      circuit: z.string().optional(),
      coolDownMs: z.number().optional(),
    }),
  ),
  ruledOut: z.array(z.object({ provider: z.string(), reason: z.string() })),
  spread: z.boolean().describe("Whether conversations begin with different ones of them, by their weights."),
});

const text = (contentType: string) => z.string().meta({ contentType });

function other(method: Endpoint["method"], path: string, summary: string, answer: z.ZodType): Endpoint {
  return { method, path, summary, parameters: NOTHING, answer, handle: undefined };
}

/** The paths of other plugins, and those of this one whose answer is no JSON: for the document. */
export const others: readonly Endpoint[] = [
  other("GET", "/health", "Whether the process lives", z.object({ status: z.literal("ok") })),
  other(
    "GET",
    "/health/ready",
    "Whether it serves, with its checks and the last reload",
    z.object({
      status: z.enum(["ok", "draining", "failing"]),
      version: z.string(),
      bootId: z.string(),
      generation: z.number(),
      lastReload: z
        .object({
          ok: z.boolean(),
          generation: z.number(),
          at: z.number(),
          error: z.string().optional().describe("What failed, as places and codes."),
        })
        .nullable(),
      checks: z.array(
        z.object({
          name: z.string(),
          required: z.boolean(),
          ok: z.boolean(),
          detail: z.string().optional(),
        }),
      ),
    }),
  ),
  other(
    "GET",
    "/api/status",
    "The process, its addresses, its generation and its plugins",
    z.object({
      version: z.string(),
      bootId: z.string(),
      pid: z.number(),
      startedAt: z.number(),
      generation: z.number(),
      activeExchanges: z.number(),
      refusals: z.record(z.string(), z.number()).describe("Refused at the door since the start, by code."),
      proxyAddress: z.string(),
      dashboardAddress: z.string(),
      lastReload: reload.extend({ at: z.number() }).optional(),
      draining: z.boolean(),
      plugins: z.array(plugin),
    }),
  ),
  other("GET", "/api/plugins", "The plugins", z.object({ generation: z.number(), plugins: z.array(plugin) })),
  other("POST", "/api/reload", "Loads config and plugins anew; 422 where that fails", reload),
  other(
    "GET",
    "/api/circuits",
    "Which providers and models are left alone because they keep failing",
    z.object({ circuits: z.array(circuitView) }),
  ),
  other(
    "POST",
    "/api/providers/:name/circuit",
    'Sets a circuit by hand; the body is {"state": "open"}, "closed" or "auto"',
    circuitView,
  ),
  other("GET", "/api/cache", "How full the response cache is, and what it did since the start", cacheStats),
  {
    ...other("DELETE", "/api/cache", "Drops the response cache's answers: all, or one project's", purged),
    parameters: z.strictObject({ project: z.string().optional() }),
  },
  other("POST", "/api/cache/purge", 'Drops such answers; the body is {} or {"project": "NAME"}', purged),
  {
    ...other(
      "GET",
      "/api/prompt-cache",
      "What the provider's prompt cache had of the last turns",
      promptCache,
    ),
    parameters: z.strictObject({ session: z.string().optional() }),
  },
  {
    ...other(
      "GET",
      "/api/route",
      "Where requests for a model would go now",
      z.object({ routes: z.array(shownRoute) }),
    ),
    parameters: z.strictObject({
      model: z.string(),
      format: z.string().optional().describe("Only requests of this format."),
      key: z.string().optional().describe("`false`: of a client that sends no key."),
    }),
  },
  other("GET", "/metrics", "Prometheus metrics", text("text/plain")),
  {
    ...other(
      "GET",
      "/api/events",
      "Live feed of requests as they begin and end (events `begin`, `end`) and of alerts (`alert`); `Last-Event-ID` replays what is still there, " +
        "and `missed` says that something was not",
      text("text/event-stream"),
    ),
    parameters: z.strictObject(eventParameters),
  },
  other("GET", "/api/openapi.json", "This document", z.looseObject({ openapi: z.string() })),
];
