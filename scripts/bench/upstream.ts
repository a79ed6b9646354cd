/**
 * The bench's upstream, its own process: answers both dialects with the fixed bytes of replies.ts and counts what
 * arrived. It never parses a body; the model name is read from the first bytes. Prints `{"port":N}` when it listens.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  type BenchDialect,
  BUFFERED,
  bufferedReply,
  type ReplySpec,
  specIn,
  streamedReply,
} from "./replies.ts";

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

const chunked = new Map<string, readonly Buffer[]>();

/** The events of a streamed reply as chunks of the transfer coding (RFC 9112 section 7.1). */
function chunkedReply(dialect: BenchDialect, events: number): readonly Buffer[] {
  const key = `${dialect} ${events}`;
  const known = chunked.get(key);
  if (known !== undefined) return known;
  const made = streamedReply(dialect, events).map((event) =>
    Buffer.concat([Buffer.from(`${event.length.toString(16)}\r\n`), event, Buffer.from("\r\n")]),
  );
  chunked.set(key, made);
  return made;
}

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
  const chunks = chunkedReply(dialect, spec.events);
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
    const at = next++;
    const last = next === events.length;
    // The first event takes the head along and the last one ends the reply; between them the chunks go straight to the
    // socket, which costs half.
    if (last) response.end(events[at]);
    else if (at === 0) response.write(events[at]);
    else response.socket?.write(chunks[at]!);
    return !last;
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
    response.writeHead(200, {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(text),
    });
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
