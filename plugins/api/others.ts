import { z } from "@tokenman/plugin-sdk";
import { circuit } from "./circuit.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventParameters } from "./query.ts";

const NOTHING = z.strictObject({});

const reload = z.object({
  ok: z.boolean(),
  generation: z.number(),
  error: z.string().optional().describe("What failed, in words."),
  files: z.array(z.string()).optional(),
});

const plugin = z.object({
  name: z.string(),
  version: z.string(),
  source: z.string(),
  state: z.enum(["on", "off", "quarantined"]),
  reason: z.string().optional().describe("Why it is off or quarantined."),
  failures: z.number(),
});

/** As the plugin that has it gives it out: what there is none of is left out. */
const circuitView = z.looseObject({ ...circuit.partial().shape, provider: z.string() });

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
      lastReload: reload.extend({ at: z.number() }).nullable(),
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
