import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { Readable } from "node:stream";
import { TokenmanError } from "@tokenman/plugin-sdk";
import { runningInstance } from "./pid-file.ts";
import { type CliSettings, dashboardUrl } from "./settings.ts";

/** Asks the dashboard port of an instance on this machine. */
export type Ask = (
  path: string,
  init?: { readonly method?: string; readonly body?: string },
) => Promise<Response>;

const TIMEOUT_MS = 60_000;

/**
 * How to ask the instance that runs with the configured data folder, else whatever listens on the configured port. Adds
 * the `[auth]` token. Rejects with TM_NOT_RUNNING where nothing listens.
 */
export function createClient(settings: CliSettings): { readonly url: string; readonly ask: Ask } {
  const url = runningInstance(settings.server.data_dir)?.dashboard ?? dashboardUrl(settings);
  const headers: Record<string, string> = { accept: "application/json" };
  if (settings.auth.token !== "") headers["authorization"] = `Bearer ${settings.auth.token}`;
  return { url, ask: (path, init = {}) => send(new URL(path, url), init, headers, settings) };
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
    if (/^text\/event-stream\b/.test(reply.headers["content-type"] ?? "")) {
      const body = Readable.toWeb(reply) as ReadableStream<Uint8Array>;
      resolve(new Response(body, { status: reply.statusCode ?? 500 }));
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
