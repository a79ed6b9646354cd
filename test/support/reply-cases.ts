import zlib from "node:zlib";
import { chunked } from "./relay.ts";
import type { UpstreamCall } from "./upstream.ts";

/** The content type of streams. */
export const SSE = "Content-Type: text/event-stream; charset=utf-8";

/** Events of all kinds. */
export const EVENTS = [
  'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3}}}\n\n',
  "event: ping\ndata: {}\n\n",
  ": a comment\n\n",
  'event: content_block_delta\r\ndata: {"text":"né €😀"}\r\n\r\n',
  "data:no space\ndata: two lines\nid: 7\nretry: 10\nunknown: field\n\n",
  "\n\n\r\n",
  'event: message_stop\ndata: {"type":"message_stop"}\n\n',
];
const STREAM = Buffer.from(EVENTS.join(""));
const CR_STREAM = Buffer.from("data: a\r\rdata: b\r\r: c\r\r");
const BIG_EVENT = Buffer.from(`data: ${"x€".repeat(2_500_000)}\n\ndata: end\n\n`);
const JSON_BODY = Buffer.from(
  '{"id":"x", "usage":{"input_tokens":1e0,"output_tokens":12345678901234567890}, "a":1,"a":2}\n',
);

/** A reply as a provider may send it. */
export interface Case {
  readonly name: string;
  readonly head: readonly string[];
  /** The body as the upstream frames it; `cut` sizes are separate writes. */
  readonly body: Buffer;
  readonly status?: string;
  readonly method?: string;
  readonly framing?: "length" | "chunked" | "close";
  readonly writes?: number;
  readonly trailers?: string;
  /** What the decoded body is, where observers can know. */
  readonly decoded?: Buffer;
}

const gzipped = (body: Buffer): Buffer =>
  zlib.gzipSync(body, { flush: zlib.constants.Z_SYNC_FLUSH } as zlib.ZlibOptions);
const CODINGS = [
  ["gzip", gzipped],
  ["br", zlib.brotliCompressSync],
  ["zstd", zlib.zstdCompressSync],
  ["deflate", zlib.deflateSync],
] as const;

/** What replies there may be: streams, lengths, codings, statuses, headers. */
export const CASES: readonly Case[] = [
  { name: "a stream of all kinds of events", head: [SSE], body: STREAM, decoded: STREAM },
  { name: "a stream in 1-byte chunks and writes", head: [SSE], body: STREAM, writes: 1, decoded: STREAM },
  {
    name: "a stream with a byte order mark",
    head: [SSE],
    body: Buffer.concat([Buffer.from("\ufeff"), STREAM]),
    writes: 2,
  },
  { name: "a stream of CR line ends", head: [SSE], body: CR_STREAM, writes: 1, decoded: CR_STREAM },
  {
    name: "a stream that ends within an event",
    head: [SSE],
    body: STREAM.subarray(0, -3),
    decoded: STREAM.subarray(0, -3),
  },
  { name: "a stream that is none", head: [SSE], body: Buffer.from([0, 255, 10, 10, 13, 254, 10]), writes: 1 },
  {
    name: "a stream of known length",
    head: [SSE],
    body: STREAM,
    framing: "length",
    writes: 50,
    decoded: STREAM,
  },
  { name: "an event of 10 MB", head: [SSE], body: BIG_EVENT, writes: 100_000, decoded: BIG_EVENT },
  { name: "an empty stream", head: [SSE], body: Buffer.alloc(0), decoded: Buffer.alloc(0) },
  {
    name: "a stream with trailers",
    head: [SSE, "Trailer: X-Sum, x-sum"],
    body: STREAM,
    trailers: "X-Sum: a b\r\nx-sum: \xe9\r\n",
    decoded: STREAM,
  },
  {
    name: "JSON of known length",
    head: ["content-type: application/json"],
    body: JSON_BODY,
    framing: "length",
    decoded: JSON_BODY,
  },
  {
    name: "JSON in chunks",
    head: ["Content-Type: application/json"],
    body: JSON_BODY,
    writes: 3,
    decoded: JSON_BODY,
  },
  {
    name: "JSON that ends with its connection",
    head: ["Content-Type: application/json", "Connection: close"],
    body: JSON_BODY,
    framing: "close",
    decoded: JSON_BODY,
  },
  {
    name: "JSON with trailers",
    head: ["Content-Type: application/json"],
    body: JSON_BODY,
    trailers: "x-t: 1\r\n",
  },
  {
    name: "an HTML error",
    status: "502 Bad Gateway",
    head: ["Content-Type: text/html"],
    body: Buffer.from("<html>\r\n502</html>"),
    framing: "length",
  },
  {
    name: "an error with a reason of its own",
    status: "529 Site is overloaded: caf\xc3\xa9!",
    head: ["retry-after: 3", "x-should-retry: true"],
    body: Buffer.from('{"type":"error"}'),
    framing: "length",
  },
  {
    name: "a reason of one word, with which the usual one ends",
    status: "500 Error",
    head: ["Content-Type: text/plain"],
    body: Buffer.from("no"),
    framing: "length",
  },
  {
    name: "a reason that leaves out how the usual one begins",
    status: "503 Unavailable",
    head: ["Content-Type: text/plain"],
    body: Buffer.from("no"),
    framing: "length",
  },
  { name: "a reply without a reason phrase", status: "200 ", head: [], body: JSON_BODY, framing: "length" },
  {
    name: "a status that is not registered",
    status: "299 Fine",
    head: [],
    body: JSON_BODY,
    framing: "length",
  },
  {
    name: "a redirect",
    status: "307 Temporary Redirect",
    head: ["Location: http://127.0.0.1:1/elsewhere"],
    body: Buffer.alloc(0),
    framing: "length",
  },
  { name: "204", status: "204 No Content", head: ["x-a: 1"], body: Buffer.alloc(0), framing: "close" },
  {
    name: "304",
    status: "304 Not Modified",
    head: ['ETag: "x"', "Content-Length: 77"],
    body: Buffer.alloc(0),
    framing: "close",
  },
  {
    name: "a reply to HEAD with a length",
    method: "HEAD",
    head: ["Content-Length: 5000", SSE],
    body: Buffer.alloc(0),
    framing: "close",
  },
  {
    name: "a reply to HEAD without one",
    method: "HEAD",
    head: ["Content-Encoding: gzip", SSE],
    body: Buffer.alloc(0),
    framing: "close",
  },
  {
    name: "an empty reply",
    head: ["Content-Type: application/json"],
    body: Buffer.alloc(0),
    framing: "length",
  },
  {
    name: "an empty reply that calls itself coded",
    head: ["Content-Type: application/json", "Content-Encoding: gzip"],
    body: Buffer.alloc(0),
    framing: "length",
    decoded: Buffer.alloc(0),
  },
  {
    name: "bytes that are nothing",
    head: ["content-type: audio/wav"],
    body: Buffer.alloc(200_000, "\xff\0\r\n"),
    writes: 7_001,
  },
  ...CODINGS.flatMap(([coding, encode]): Case[] => [
    {
      name: `JSON in ${coding}`,
      head: ["Content-Type: application/json", `Content-Encoding: ${coding}`],
      body: encode(JSON_BODY),
      framing: "length",
      writes: 10,
      decoded: JSON_BODY,
    },
    {
      name: `chunked JSON in ${coding}`,
      head: ["Content-Type: application/json", `content-encoding: ${coding}`],
      body: encode(JSON_BODY),
      decoded: JSON_BODY,
    },
    {
      name: `a stream in ${coding}`,
      head: [SSE, `Content-Encoding: ${coding}`],
      body: encode(STREAM),
      writes: 1,
      decoded: STREAM,
    },
  ]),
  {
    name: "JSON in an unknown coding",
    head: ["Content-Type: application/json", "Content-Encoding: snappy"],
    body: JSON_BODY,
    framing: "length",
  },
  {
    name: "JSON in a coding that it is not of",
    head: ["Content-Type: application/json", "Content-Encoding: gzip"],
    body: JSON_BODY,
    framing: "length",
  },
  {
    name: "JSON in a coding that stops short",
    head: ["Content-Type: application/json", "Content-Encoding: br"],
    body: zlib.brotliCompressSync(JSON_BODY).subarray(0, -4),
    framing: "length",
  },
  {
    name: "JSON in two codings",
    head: ["Content-Type: application/json", "Content-Encoding: gzip, gzip"],
    body: zlib.gzipSync(zlib.gzipSync(JSON_BODY)),
    framing: "length",
  },
  {
    name: "headers of every kind",
    head: [
      "Content-Type: application/json",
      "Set-Cookie: a=1; Path=/",
      "set-cookie: b=2",
      "SET-COOKIE: a=1; Path=/",
      "request-id: req_1",
      "anthropic-ratelimit-requests-remaining: 5",
      "x-empty:",
      "x-latin1: caf\xe9 \xff",
      "X-RateLimit-Limit: 1",
      "Server: cloudflare",
      "Via: 1.1 google",
      "!#$%&'*+-.^_`|~: odd",
    ],
    body: JSON_BODY,
    framing: "length",
  },
];

function headOf({ head, status = "200 OK", framing = "chunked", body, trailers }: Case): Buffer {
  const lines = [`HTTP/1.1 ${status}`, ...head];
  if (framing === "length") lines.push(`Content-Length: ${body.length}`);
  if (framing === "chunked" || trailers !== undefined) lines.push("Transfer-Encoding: chunked");
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
}

function wireOf(one: Case): Buffer[] {
  const { body, framing = "chunked", writes, trailers = "" } = one;
  const size = writes ?? Math.max(1, body.length);
  const isChunked = framing === "chunked" || trailers !== "";
  const bytes = isChunked ? chunked(body, [size], trailers) : body;
  // 1-byte chunks take several bytes on the wire; long bodies are not cut into a million writes.
  const step = Math.max(size, Math.ceil(bytes.length / 2_000));
  const cut: Buffer[] = [headOf(one)];
  for (let at = 0; at < bytes.length; at += step) cut.push(bytes.subarray(at, at + step));
  return cut;
}

/** Answers a call so. */
export async function replay(call: UpstreamCall, one: Case): Promise<void> {
  await call.received;
  for (const piece of wireOf(one)) await call.write(piece);
  if (one.framing === "close" && one.method !== "HEAD" && one.status === undefined) await call.end();
}
