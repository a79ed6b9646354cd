import {
  Circuits,
  definePlugin,
  Ledger,
  optional,
  type RouteContext,
  TokenmanError,
  z,
} from "@tokenman/plugin-sdk";
import { apiCommands } from "./commands.ts";
import type { Endpoint } from "./endpoint.ts";
import { endpoints, whereOff } from "./endpoints.ts";
import { Feed } from "./feed.ts";
import { frontPage } from "./front-page.ts";
import { openApi } from "./openapi.ts";
import { others } from "./others.ts";
import { eventParameters, readQuery } from "./query.ts";

const configSchema = z
  .strictObject({
    event_buffer: z
      .int()
      .min(1)
      .max(100_000)
      .default(1_000)
      .describe("How many events of the live feed are kept for clients that come back or read slowly."),
    heartbeat_seconds: z
      .number()
      .min(0.05)
      .max(300)
      .default(15)
      .describe("Seconds between the live feed's signs of life."),
  })
  .describe("The JSON API on the dashboard port.");

const NOTHING = z.strictObject({});
const EVENTS = z.strictObject(eventParameters);

/** What the ledger knows, as JSON for the dashboard, the command line and scripts. */
export default definePlugin({
  name: "api",
  version: "0.1.0",
  apiVersion: 1,
  description: "Serves the JSON API on the dashboard port; tokenman stats, savings, requests",
  section: "api",
  configSchema,
  needs: { ledger: optional(Ledger), circuits: optional(Circuits) },
  stage: "ingress",
  commands: apiCommands,
  async setup(ctx) {
    const { config, host } = ctx;
    const { ledger, circuits } = ctx.services;
    const own = endpoints({ host, ledger, circuits });
    for (const { method, path, handle } of own)
      if (handle !== undefined) ctx.contribute("route", { port: "dashboard", method, path, handle });

    ctx.contribute("route", whereOff);

    const feed = await ctx.keep(
      `feed ${config.event_buffer}`,
      () => new Feed(host.bootId, config.event_buffer),
      (kept) => kept.retire(Number.POSITIVE_INFINITY),
    );
    if (ledger !== undefined)
      await ctx.effect(
        "events of the ledger",
        () => feed.follow(ledger),
        (stop) => stop(),
      );
    ctx.contribute("alertSink", { name: "api", alert: (alert) => feed.alert(alert) });
    ctx.every("heartbeat of the feed", config.heartbeat_seconds * 1000, () => feed.beat());
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/api/events",
      handle: (context) => follow(feed, context, host.generation),
    });

    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/",
      handle: frontPage(host, new Map([...summariesOf([...own, ...others]), ...SUMMARIES])),
    });
    let document: object | undefined;
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/api/openapi.json",
      handle({ json, query }) {
        readQuery(NOTHING, query);
        document ??= openApi(own, host);
        json(200, document);
      },
    });
    ctx.pipeline((_config, hooks) => {
      // A stream holds the generation that it began with.
      hooks.lifecycle.for("retire").tap(() => feed.retire(host.generation));
    });
  },
});

/** Of what is no endpoint with a schema. */
const SUMMARIES = [
  ["GET /metrics", "Prometheus metrics"],
  ["GET /health", "Whether the process is alive"],
  ["GET /api/events", "What happens, as it happens (server-sent events)"],
  ["GET /api/openapi.json", "The description of this API (OpenAPI 3.1)"],
] as const;

function summariesOf(described: readonly Endpoint[]): (readonly [string, string])[] {
  return described.map(({ method, path, summary }) => [`${method} ${path}`, summary]);
}

function follow(feed: Feed, { request, response, query, json }: RouteContext, generation: number): void {
  const { lastEventId } = readQuery(EVENTS, query);
  if (request.method === "HEAD") {
    response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" }).end();
    return;
  }
  const lastId = request.headers["last-event-id"] ?? lastEventId;
  if (feed.connect(response, typeof lastId === "string" ? lastId : undefined, generation)) return;
  const { code, status, message } = new TokenmanError("TM_TOO_MANY_CONNECTIONS");
  json(status, { error: { code, message } });
}
