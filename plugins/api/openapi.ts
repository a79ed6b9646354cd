import { ERRORS, type HostInfo, type Route, z } from "@tokenman/plugin-sdk";
import type { Endpoint } from "./endpoint.ts";
import { whereOff } from "./endpoints.ts";
import { others } from "./others.ts";

const error = z
  .strictObject({
    error: z.strictObject({ code: z.string(), message: z.string() }),
  })
  .describe("What went wrong. The codes are in docs/errors.md.");

/** The OpenAPI 3.1 document of the dashboard port: this plugin's paths, and those of all others. */
export function openApi(own: readonly Endpoint[], host: HostInfo): object {
  const isTold = ({ port, path }: Route): boolean =>
    port !== "proxy" && path !== "/" && path !== whereOff.path;
  const routes = host.registry.all("route").filter(isTold);
  const isServed = ({ method, path }: Endpoint) =>
    routes.some((route) => route.method === method && route.path === path);
  const described = [...own, ...others.filter(isServed)];
  const paths: Record<string, Record<string, object>> = {};
  for (const { method, path, ...rest } of described) add(paths, method, path, operation({ path, ...rest }));
  // What nobody describes is there all the same.
  for (const route of routes) {
    if (described.some((each) => each.path === route.path && each.method === route.method)) continue;
    if (route.method !== "HEAD") add(paths, route.method, route.path, undescribed(route));
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "TokenMan",
      version: host.version,
      description:
        "The JSON API on TokenMan's dashboard port. Times are milliseconds since 1970, money is in US dollars.",
    },
    paths,
    components: {
      schemas: { Error: schemaOf(error, "output") },
      securitySchemes: { token: { type: "http", scheme: "bearer", description: "Where `[auth]` is on." } },
    },
    security: [{}, { token: [] }],
  };
}

function add(
  paths: Record<string, Record<string, object>>,
  method: Route["method"],
  path: string,
  described: object,
): void {
  const written = path.replace(/\/:(\w+)/g, "/{$1}").replace(/\/\*$/, "/{rest}");
  paths[written] = { ...paths[written], [method.toLowerCase()]: described };
}

function operation({ path, summary, parameters, answer }: Omit<Endpoint, "method" | "handle">): object {
  const { properties = {}, required = [] } = schemaOf(parameters, "input") as {
    readonly properties?: Record<string, { readonly description?: string }>;
    readonly required?: readonly string[];
  };
  const query = Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: "query",
    required: required.includes(name),
    ...(description !== undefined && { description }),
    schema,
  }));
  return {
    summary,
    parameters: [...pathParameters(path), ...query],
    responses: { 200: response("The answer.", answer), ...errors(path) },
  };
}

function undescribed({ path }: Route): object {
  return {
    summary: "Of a plugin that does not describe it",
    parameters: pathParameters(path),
    responses: errors(path),
  };
}

function pathParameters(path: string): object[] {
  return [...path.matchAll(/\/:(\w+)/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
}

function response(description: string, answer: z.ZodType): object {
  const { contentType = "application/json", ...schema } = schemaOf(answer, "output") as {
    contentType?: string;
  };
  return { description, content: { [contentType]: { schema } } };
}

function errors(path: string): Record<string, object> {
  const statuses = new Set<number>([
    ERRORS.TM_BAD_QUERY.status,
    ERRORS.TM_UNAUTHORIZED.status,
    ERRORS.TM_HOST_REFUSED.status,
  ]);
  if (path.includes("/:")) statuses.add(ERRORS.TM_NOT_FOUND.status);
  statuses.add(ERRORS.TM_LEDGER_UNAVAILABLE.status);
  const content = { "application/json": { schema: { $ref: "#/components/schemas/Error" } } };
  return Object.fromEntries([...statuses].map((status) => [status, { description: "An error.", content }]));
}

/** JSON Schema, in the version that OpenAPI 3.1 uses. */
function schemaOf(schema: z.ZodType, io: "input" | "output"): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io,
    unrepresentable: "any",
    target: "draft-2020-12",
  });
  return rest;
}
