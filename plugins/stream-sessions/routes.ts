import { randomUUID } from "node:crypto";
import {
  type Format,
  type HostInfo,
  headerValue,
  type PublicError,
  type RawHeaders,
  type Route,
  type RouteContext,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { lastingHeaders, ownerOf } from "./credential.ts";
import { EVENT_STREAM, type Reader } from "./reader.ts";
import type { SessionLimits } from "./schema.ts";
import type { Session, TurnWorld } from "./session.ts";
import type { Sessions } from "./sessions.ts";
import { readMessages, readTemplate } from "./template.ts";
import type { Wire } from "./wire.ts";

/** What the endpoints of one generation work on. */
export interface Endpoints {
  readonly host: HostInfo;
  readonly sessions: Sessions;
  readonly limits: SessionLimits;
  /** Told of each new reader. */
  readonly reading: (reader: Reader) => void;
}

type Handler = (endpoints: Endpoints, context: RouteContext) => Promise<void> | void;

/** The endpoints of the proxy port, each also without `/v1`. */
export function routesOf(endpoints: Endpoints): Route[] {
  const routes: [Route["method"], string, Handler][] = [
    ["POST", "/stream/create", create],
    ["POST", "/stream/:id/send", send],
    ["GET", "/stream/:id/events", events],
    ["DELETE", "/stream/:id", remove],
    ["DELETE", "/stream/:id/turn", interrupt],
  ];
  return routes.flatMap(([method, path, handler]) =>
    ["/v1", ""].map(
      (prefix): Route => ({
        port: "proxy",
        method,
        path: `${prefix}${path}`,
        handle: (context) => answered(endpoints, context, handler),
      }),
    ),
  );
}

async function create({ host, sessions, limits }: Endpoints, context: RouteContext): Promise<void> {
  const headers = context.request.rawHeaders;
  const template = readTemplate(await bodyOf(context, limits), headers);
  dialectOf(host, template.wire);
  if (sessions.closing) throw shuttingDown();
  const parts = {
    owner: ownerOf(headers, host.registry.all("format")),
    project: context.project,
    headers: lastingHeaders(headers),
    template,
    replayBytes: limits.replayBytes,
  };
  const { id } = sessions.open(parts, limits);
  const { wire, model } = template;
  const path = `/v1/stream/${id}`;
  context.json(201, { id, dialect: wire.name, model, send: `${path}/send`, events: `${path}/events` });
}

async function send(endpoints: Endpoints, context: RouteContext): Promise<void> {
  const { host, sessions, limits } = endpoints;
  const { wire } = found(endpoints, context).template;
  const messages = readMessages(await bodyOf(context, limits), wire);
  if (sessions.closing) throw shuttingDown();
  // It may have ended while the body came.
  const session = found(endpoints, context);
  const requestId = session.send(messages, worldOf(host, wire, limits));
  context.json(202, { id: session.id, turn: session.turns, request_id: requestId });
}

function events(endpoints: Endpoints, context: RouteContext): void {
  const session = found(endpoints, context);
  const { request, response, query } = context;
  const asked = headerValue(request.rawHeaders, "last-event-id") ?? query.get("last_event_id") ?? "0";
  const after = /^\d{1,15}$/.test(asked.trim()) ? Number(asked) : Number.NaN;
  if (!(after <= session.lastEventId)) {
    const message = `Last-Event-ID is the number of an event of this session, at most ${session.lastEventId}.`;
    throw new TokenmanError("TM_BAD_REQUEST", message);
  }
  if (request.method === "HEAD") {
    response.writeHead(200, EVENT_STREAM);
    response.end();
    return;
  }
  endpoints.reading(session.read(response, after, endpoints.limits.cancelUnread));
}

function remove(endpoints: Endpoints, context: RouteContext): void {
  const session = found(endpoints, context);
  session.end("deleted");
  context.json(200, { id: session.id, deleted: true });
}

function interrupt(endpoints: Endpoints, context: RouteContext): void {
  const session = found(endpoints, context);
  context.json(200, { id: session.id, turn: session.turns, interrupted: session.interrupt() });
}

function found({ host, sessions, limits }: Endpoints, { request, params }: RouteContext): Session {
  const owner = ownerOf(request.rawHeaders, host.registry.all("format"));
  return sessions.find(params["id"]!, owner, limits);
}

function worldOf(host: HostInfo, wire: Wire, { maxBodyBytes }: SessionLimits): TurnWorld {
  return { ...dialectOf(host, wire), maxBodyBytes, exchange: (request) => host.exchange(request) };
}
function dialectOf({ registry }: HostInfo, wire: Wire): Pick<TurnWorld, "dialect" | "format"> {
  const dialect = registry.all("dialect").find(({ name }) => name === wire.name);
  const format = registry.all("format").find(({ name }) => name === dialect?.format);
  if (dialect !== undefined && format !== undefined) return { dialect, format };
  throw new TokenmanError("TM_BAD_REQUEST", `The dialect ${wire.name} is not spoken here at present.`);
}

function bodyOf({ body }: RouteContext, { maxBodyBytes }: SessionLimits): Promise<Buffer> {
  return body(maxBodyBytes || Number.MAX_SAFE_INTEGER);
}
function shuttingDown(): TokenmanError {
  return new TokenmanError("TM_SHUTTING_DOWN", "TokenMan is shutting down.");
}

/** Headers that tell a client what to do about an error. */
const HINTS: Readonly<Record<string, RawHeaders>> = {
  TM_SESSION_BUSY: ["Retry-After", "1"],
  TM_SESSION_LIMIT: ["Retry-After", "30"],
  TM_SHUTTING_DOWN: ["Retry-After", "1"],
};

/** Runs a handler; its errors go out in the shape of the vendor whose marks the request bears. */
async function answered(endpoints: Endpoints, context: RouteContext, handler: Handler): Promise<void> {
  try {
    await handler(endpoints, context);
  } catch (cause) {
    if (!(cause instanceof TokenmanError) || context.response.headersSent) throw cause;
    const { code, status, message } = cause;
    const hint = HINTS[code];
    const error: PublicError = { code, status, message, ...(hint !== undefined && { headers: hint }) };
    refuse(context, formatOf(endpoints.host, context.request.rawHeaders), error);
  }
}

/** By the request alone: whose the session is must not show in the shape of an error. */
function formatOf({ registry }: HostInfo, headers: RawHeaders): Format | undefined {
  const formats = registry.all("format");
  return formats.find((format) => format.claims(headers)) ?? formats.find(({ name }) => name === "openai");
}

function refuse({ response, json }: RouteContext, format: Format | undefined, error: PublicError): void {
  if (format === undefined) {
    json(error.status, { error: { code: error.code, message: error.message } });
    return;
  }
  const id = randomUUID();
  const { status, headers = [], body = "" } = format.errorReply(error, id);
  const bytes =
    typeof body === "string" || Buffer.isBuffer(body) ? Buffer.from(body as string) : Buffer.alloc(0);
  const length = String(bytes.length);
  response.writeHead(status, [...headers, "Content-Length", length, "X-Tokenman-Request-Id", id]);
  response.end(bytes);
}
