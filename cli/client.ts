import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { Readable } from "node:stream";
import { type Asked, TokenmanError, z } from "@tokenman/plugin-sdk";
import { runningInstance } from "./pid-file.ts";
import { type CliSettings, dashboardUrl } from "./settings.ts";
import { VERSION } from "./version.ts";

/** Asks the dashboard port of an instance on this machine. */
export type Ask = (
  path: string,
  init?: { readonly method?: string; readonly body?: string },
) => Promise<Response>;

const TIMEOUT_MS = 60_000;

export interface Client extends Asked {
  readonly ask: Ask;
}

/** How a reload ended, as `/api/reload` and `/api/status` tell it. */
export const reloadShape = z.object({
  ok: z.boolean(),
  generation: z.number(),
  error: z.string().optional(),
});
export type Reloaded = z.output<typeof reloadShape>;

/** What commands use of `/api/status`. */
export const statusShape = z.object({
  generation: z.number(),
  activeExchanges: z.number(),
  proxyAddress: z.string(),
  dashboardAddress: z.string(),
  lastReload: z.object({ ...reloadShape.shape, at: z.number() }).optional(),
  draining: z.boolean(),
  plugins: z.array(z.object({ name: z.string(), state: z.string(), reason: z.string().optional() })),
});

export type Status = z.output<typeof statusShape>;

/**
 * How to ask the instance that runs with the configured data folder, else whatever listens on the configured port. Adds
 * the `[auth]` token. Rejects with TM_NOT_RUNNING where nothing listens, and where no instance is known and the file is
 * broken: its port may be another one than what could be read of it says, and a stranger is not to get the token.
 */
export function createClient(settings: CliSettings): Client {
  const { broken, server } = settings;
  const host = { version: VERSION };
  const running = runningInstance(server.data_dir)?.dashboard;
  if (running === undefined && broken !== undefined) {
    const unknown = new TokenmanError(
      "TM_NOT_RUNNING",
      `no TokenMan runs with ${server.data_dir}, and the config file is too broken to say where one listens: ${broken.message}`,
      { cause: broken },
    );
    return {
      host,
      get dashboardUrl(): string {
        throw unknown;
      },
      ask: () => Promise.reject(unknown),
    };
  }
  const url = running ?? dashboardUrl(settings);
  const headers: Record<string, string> = { accept: "application/json" };
  if (settings.auth.token !== "") headers["authorization"] = `Bearer ${settings.auth.token}`;
  return {
    host,
    dashboardUrl: url,
    ask: (path, init = {}) => send(new URL(path, url), init, headers, settings),
  };
}

function send(
  target: URL,
  { method = "GET", body }: { readonly method?: string; readonly body?: string },
  headers: Readonly<Record<string, string>>,
  { server }: CliSettings,
): Promise<Response> {
  const secure = target.protocol === "https:";
  const options: RequestOptions = {
    method,
    headers: { ...headers, ...(body !== undefined && { "content-type": "application/json" }) },
    timeout: TIMEOUT_MS,
    agent: false,
    ...(secure && pinned(server.cert_file)),
  };
  const { promise, resolve, reject } = Promise.withResolvers<Response>();
  const request = (secure ? httpsRequest : httpRequest)(target, options, (reply) => {
    // A stream has no end to wait for.
    const type = reply.headers["content-type"] ?? "";
    if (/^text\/event-stream\b/.test(type)) {
      const body = Readable.toWeb(reply) as ReadableStream<Uint8Array>;
      resolve(new Response(body, { status: reply.statusCode ?? 500, headers: { "content-type": type } }));
      return;
    }
    const chunks: Buffer[] = [];
    reply.on("data", (chunk: Buffer) => chunks.push(chunk));
    reply.on("error", reject);
    reply.on("end", () => {
      const status = reply.statusCode ?? 500;
      const type = reply.headers["content-type"];
      const empty = status === 204 || status === 304;
      resolve(
        new Response(empty ? null : Buffer.concat(chunks), {
          status,
          ...(type !== undefined && { headers: { "content-type": type } }),
        }),
      );
    });
  });
  request.on("timeout", () => request.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
  request.on("error", (cause) => {
    reject(
      new TokenmanError(
        "TM_NOT_RUNNING",
        `no TokenMan answers at ${target.origin} (${cause.message}); "tokenman start" starts one`,
        {
          cause,
        },
      ),
    );
  });
  request.end(body);
  return promise;
}

/** The certificate is the configured one, whatever names it is for: the connection stays on this machine. */
function pinned(certFile: string): RequestOptions {
  const options: RequestOptions & { allowPartialTrustChain: boolean } = {
    ca: readFileSync(certFile),
    allowPartialTrustChain: true,
    checkServerIdentity: () => undefined,
  };
  return options;
}
