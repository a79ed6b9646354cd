import type { IncomingMessage, ServerResponse } from "node:http";
import { type RegistryView, type Route, TokenmanError } from "@tokenman/plugin-sdk";
import { readBody } from "./request.ts";

const DEFAULT_BODY_BYTES = 1024 * 1024;
const BODY_STALL_MS = 10_000;

/** Where a route's path has its first parameter. */
const OPEN = /\/[:*]/;

interface Compiled {
  readonly route: Route;
  readonly matches: RegExp;
  readonly names: readonly string[];
}
export interface RouteMatch {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

/** The endpoints that plugins contributed to one port of a generation. */
export class RouteTable {
  readonly #routes: readonly Compiled[];
  /** A path that is none of these, and begins with none of those, is no route: most are told by that. */
  readonly #fixed: ReadonlySet<string>;
  readonly #prefixes: readonly string[];

  constructor(registry: RegistryView, port: "proxy" | "dashboard") {
    this.#routes = registry
      .all("route")
      .filter((route) => route.port === port || route.port === "both")
      .map(compile)
      .sort(
        (left, right) => Number(left.route.path.endsWith("/*")) - Number(right.route.path.endsWith("/*")),
      );
    const paths = this.#routes.map(({ route }) => route.path);
    this.#fixed = new Set(paths);
    const open = paths.filter((path) => OPEN.test(path)).map((path) => path.slice(0, path.search(OPEN) + 1));
    this.#prefixes = [...new Set(open)];
  }
  #mayBeOpen(path: string): boolean {
    for (const prefix of this.#prefixes) if (path.startsWith(prefix)) return true;
    return false;
  }
  /** The route of a method and path; "method" where the path is known with other methods only. */
  match(method: string, path: string): RouteMatch | "method" | undefined {
    if (!this.#fixed.has(path) && !this.#mayBeOpen(path)) return undefined;
    let known = false;
    for (const { route, matches, names } of this.#routes) {
      const found = matches.exec(path);
      if (found === null) continue;
      known = true;
      if (route.method !== method && !(method === "HEAD" && route.method === "GET")) continue;
      const params: Record<string, string> = {};
      names.forEach((name, index) => {
        params[name] = decoded(found[index + 1]!);
      });
      return { route, params };
    }
    return known ? "method" : undefined;
  }
  /** The methods that a path takes, as an `Allow` header lists them (RFC 9110, 10.2.1). */
  allowed(path: string): string {
    const methods = new Set<string>();
    for (const { route, matches } of this.#routes) {
      if (!matches.test(path)) continue;
      methods.add(route.method);
      if (route.method === "GET") methods.add("HEAD");
    }
    return [...methods].join(", ");
  }
}

/** What is no percent-encoding stands for itself: the path is the route's all the same, and nobody else's. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Runs a route's handler. Its errors become JSON without internals; the details go to `failed`. */
export async function serveRoute(
  match: RouteMatch,
  request: IncomingMessage,
  response: ServerResponse,
  failed: (cause: unknown) => void,
  project?: string,
): Promise<void> {
  const url = request.url ?? "/";
  const query = url.indexOf("?");
  const json = (status: number, value: unknown): void => sendJson(response, status, value);
  try {
    await match.route.handle({
      request,
      response,
      params: match.params,
      project,
      query: new URLSearchParams(query < 0 ? "" : url.slice(query + 1)),
      body: (maxBytes = DEFAULT_BODY_BYTES) => readBody(request, { maxBytes, stallMs: BODY_STALL_MS }),
      json,
    });
  } catch (cause) {
    if (!(cause instanceof TokenmanError) || cause.status >= 500) failed(cause);
    if (response.headersSent) response.destroy();
    else if (cause instanceof TokenmanError && cause.status < 500) sendError(response, cause);
    else
      sendError(
        response,
        new TokenmanError("TM_INTERNAL", "This request failed inside TokenMan; the log says why."),
      );
  }
}

/** Answers with `{"error":{"code","message"}}`. */
export function sendError(response: ServerResponse, error: TokenmanError): void {
  sendJson(response, error.status, { error: { code: error.code, message: error.message } });
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, {
    "Content-Type": "application/json; charset=utf-8",
    "Content-Length": body.length,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  });
  response.end(body);
}

function compile(route: Route): Compiled {
  const names: string[] = [];
  const open = route.path.endsWith("/*");
  const path = open ? route.path.slice(0, -2) : route.path;
  const source = path
    .replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
    .replace(/\/:([A-Za-z_]\w*)/g, (_, name: string) => {
      names.push(name);
      return "/([^/]+)";
    });
  if (open) names.push("*");
  return { route, names, matches: new RegExp(open ? `^${source}/(.*)$` : `^${source}$`) };
}
