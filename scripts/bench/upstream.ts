/**
 * The bench's upstream, its own process: answers both dialects with the fixed bytes of replies.ts and counts what
 * arrived. It never parses a body; the model name is read from the first bytes. Prints `{"port":N}` when it listens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type BenchDialect, BUFFERED, bufferedReply, type ReplySpec, specIn, streamedReply } from "./replies.ts";

/** Answer of `GET /bench/stats`: counts since the start. */
export interface UpstreamStats {
  requests: number;
  bodyBytes: number;
  /** Streams whose reader left before the last event. */
  aborted: number;
}

const stats: UpstreamStats = { requests: 0, bodyBytes: 0, aborted: 0 };
const buffered: Record<BenchDialect, Buffer> = {
  openai: bufferedReply("openai"),
  anthropic: bufferedReply("anthropic"),
};

function answer(response: ServerResponse, dialect: BenchDialect, spec: ReplySpec): void {
  if (spec.events === 0) {
    const body = buffered[dialect];
    response.writeHead(200, {
      "Content-Type": "application/json",
      "Content-Length": body.length,
      "x-request-id": "req_bench",
    });
    response.end(body);
    return;
  }
  const events = streamedReply(dialect, spec.events);
  response.writeHead(200, {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "x-request-id": "req_bench",
  });
  let next = 0;
  const step = (): boolean => {
    if (response.destroyed) {
      stats.aborted++;
      return false;
    }
    const event = events[next++];
    if (next < events.length) response.write(event);
    else response.end(event);
    return next < events.length;
  };
  // Each event is its own write in its own loop turn, so that a proxy sees them as apart as a provider sends them.
  if (spec.delayMs === 0) {
    const run = (): void => {
      if (step()) setImmediate(run);
    };
    run();
  } else if (step()) {
    const timer = setInterval(() => {
      if (!step()) clearInterval(timer);
    }, spec.delayMs);
  }
}

function handle(request: IncomingMessage, response: ServerResponse): void {
  if (request.method !== "POST") {
    request.resume();
    const text = request.url === "/bench/stats" ? JSON.stringify(stats) : '{"status":"ok"}';
    response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
    response.end(request.method === "HEAD" ? undefined : text);
    return;
  }
  const dialect: BenchDialect = request.url?.includes("/messages") ? "anthropic" : "openai";
  let spec: ReplySpec | undefined;
  request.on("data", (chunk: Buffer) => {
    stats.bodyBytes += chunk.length;
    spec ??= specIn(chunk);
  });
  request.on("end", () => {
    stats.requests++;
    answer(response, dialect, spec ?? BUFFERED);
  });
}

const server = createServer({ keepAliveTimeout: 120_000, requestTimeout: 0 }, handle);
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  process.stdout.write(`${JSON.stringify({ port: (server.address() as AddressInfo).port })}\n`);
});
