import http from "node:http";
import type { RawHeaders } from "../src/headers.ts";
import type { Turn } from "./conversation.ts";
import type { SendTurn } from "./prefix.ts";
import type { PluginRun } from "./run-plugin.ts";
import type { RunningKernel } from "./start-kernel.ts";
import type { RecordingUpstream } from "./upstream.ts";

export interface ClientRequestInit {
  readonly method?: string;
  /** name, value, name, value …, sent with this case, order and duplicates. Host and Content-Length are added. */
  readonly headers?: RawHeaders;
  readonly body?: Buffer | string;
  readonly signal?: AbortSignal;
}

/** What a client got, byte for byte. */
export interface ClientReply {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly body: Buffer;
  readonly trailers: RawHeaders;
  /** False where the connection broke before the reply's end. */
  readonly complete: boolean;
}

/**
 * Sends a request over a connection of its own and reads the reply to its end, without decoding or following anything.
 * A reply that breaks off is given with `complete: false`; without a head, it rejects.
 */
export function sendRequest(url: string, init: ClientRequestInit = {}): Promise<ClientReply> {
  const { method = init.body === undefined ? "GET" : "POST", headers = [], body, signal } = init;
  const length = body === undefined ? [] : ["Content-Length", String(Buffer.byteLength(body))];
  return new Promise((resolve, reject) => {
    const request = http.request(url, {
      method,
      headers: ["Host", new URL(url).host, ...headers, ...length],
      agent: false,
      ...(signal !== undefined && { signal }),
    });
    request.on("error", reject);
    request.on("response", (response) => {
      // From here on a failure is the end of the reply.
      request.off("error", reject).on("error", () => {});
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", () => {});
      response.on("close", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.rawHeaders,
          body: Buffer.concat(chunks),
          trailers: response.rawTrailers,
          complete: response.complete,
        }),
      );
    });
    request.end(body);
  });
}

const HEADERS: RawHeaders = ["Content-Type", "application/json", "Authorization", "Bearer test-key"];

/** Sends turns through a whole kernel whose providers are at `upstream` (see `providersAt`). */
export function throughKernel(kernel: RunningKernel, upstream: RecordingUpstream): SendTurn {
  return async (turn) => {
    const seen = upstream.requests.length;
    const reply = await sendRequest(`${kernel.proxy}${turn.path}`, { headers: HEADERS, body: turn.body });
    const request = upstream.requests[seen];
    if (request === undefined) throw notSent(turn, reply.status, reply.body);
    return request.body;
  };
}

/** Sends turns through one plugin. */
export function throughPlugin(run: PluginRun): SendTurn {
  return async (turn) => {
    const { upstream, reply } = await run.send({ path: turn.path, body: turn.body });
    if (upstream[0] === undefined) throw notSent(turn, reply.status, reply.body);
    return upstream[0].body;
  };
}

function notSent(turn: Turn, status: number, body: Buffer): Error {
  return new Error(
    `turn ${turn.number} was not sent: answered with ${status} ${body.toString("utf8", 0, 500)}`,
  );
}
