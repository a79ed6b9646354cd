/**
 * The floor that every proxy is measured against: node:http in front, undici's dispatch behind, raw headers less
 * hop-by-hop, the body buffered and forwarded, the reply piped with backpressure. It looks at nothing.
 * Usage: node floor.ts UPSTREAM_PORT. Prints `{"port":N}` when it listens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Agent } from "undici";

const origin = `http://127.0.0.1:${Number(process.argv[2])}`;
const agent = new Agent({
  allowH2: false,
  headersTimeout: 600_000,
  bodyTimeout: 600_000,
  keepAliveTimeout: 60_000,
});

/** RFC 9110 section 7.6.1, and the fields that undici writes itself on the next hop. */
const DROPPED = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "host",
  "content-length",
  "expect",
]);

function requestHeaders(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index]!;
    if (!DROPPED.has(name.toLowerCase())) kept.push(name, raw[index + 1]!);
  }
  return kept;
}

function replyHeaders(raw: readonly Buffer[]): string[] {
  const kept: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index]!.toString("latin1");
    const lower = name.toLowerCase();
    if (lower === "content-length" || !DROPPED.has(lower))
      kept.push(name, raw[index + 1]!.toString("latin1"));
  }
  return kept;
}

function forward(request: IncomingMessage, response: ServerResponse, body: Buffer | null): void {
  let abort: ((error?: Error) => void) | undefined;
  let ended = false;
  response.on("close", () => {
    if (!response.writableFinished && !ended) abort?.();
  });
  // The older handler interface is the one that hands over raw header bytes, and undici's own inner one.
  agent.dispatch(
    {
      origin,
      path: request.url ?? "/",
      method: request.method ?? "GET",
      headers: requestHeaders(request.rawHeaders),
      body,
    },
    {
      onConnect(abortRequest) {
        if (response.destroyed) abortRequest();
        else abort = abortRequest;
      },
      onHeaders(status, raw, resume, statusText) {
        if (status < 200) return true;
        response.on("drain", resume);
        response.writeHead(status, statusText, replyHeaders(raw));
        return true;
      },
      onData(chunk) {
        return response.write(chunk);
      },
      onComplete() {
        ended = true;
        response.end();
      },
      onError() {
        ended = true;
        if (response.headersSent) response.destroy();
        else response.writeHead(502).end();
      },
    },
  );
}

const server = createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = chunks.length === 0 ? null : chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    forward(request, response, body);
  });
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`);
});
