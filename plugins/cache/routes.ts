import { type Route, type RouteContext, TokenmanError } from "@tokenman/plugin-sdk";
import type { Cache } from "./cache.ts";

/** `/api/cache` on the dashboard port. The kernel has checked Host, Origin and token. */
export function cacheRoutes(cache: Cache): readonly Route[] {
  const port = "dashboard";
  const purge = async ({ json }: RouteContext, project: string | undefined): Promise<void> => {
    try {
      json(200, { purged: await cache.purge(project) });
    } catch (error) {
      if (!(error instanceof TokenmanError)) throw error;
      json(error.status, { error: { code: error.code, message: error.message } });
    }
  };
  return [
    { port, method: "GET", path: "/api/cache", handle: ({ json }) => json(200, cache.stats()) },
    {
      port,
      method: "DELETE",
      path: "/api/cache",
      handle: (context) => purge(context, context.query.get("project") ?? undefined),
    },
    {
      port,
      method: "POST",
      path: "/api/cache/purge",
      async handle(context) {
        const asked = projectIn(await context.body());
        if (asked instanceof TokenmanError)
          context.json(asked.status, { error: { code: asked.code, message: asked.message } });
        else await purge(context, asked);
      },
    },
  ];
}

/** The project that a body names; undefined where it names none: all of them. What is not understood purges nothing. */
function projectIn(body: Buffer): string | undefined | TokenmanError {
  if (body.length === 0) return undefined;
  try {
    const asked: unknown = JSON.parse(body.toString("utf8"));
    if (typeof asked === "object" && asked !== null && !Array.isArray(asked)) {
      const { project, ...rest } = asked as { readonly project?: unknown };
      const isKnown = Object.keys(rest).length === 0;
      if (isKnown && (project === undefined || typeof project === "string")) return project;
    }
  } catch {
    // As below.
  }
  return new TokenmanError("TM_BAD_REQUEST", 'expected {"project": "NAME"}, or {} for all projects');
}
