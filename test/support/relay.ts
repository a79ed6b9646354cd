import assert from "node:assert/strict";
import crypto from "node:crypto";
import { definePlugin, type Exchange, type Plugin, type Reply } from "@tokenman/plugin-sdk";
import { startTokenman, type Tokenman } from "./kernel.ts";
import { type RecordedRequest, type RecordingUpstream, recordingUpstream } from "./upstream.ts";
import { WireClient } from "./wire-client.ts";

/** A TokenMan before one recording upstream, which both vendors' providers lead to. */
export interface Relay {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  client(): Promise<WireClient>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function startRelay(
  options: { readonly plugins?: readonly Plugin[]; readonly config?: string; readonly prefix?: string } = {},
): Promise<Relay> {
  const { plugins = [], config = "", prefix = "" } = options;
  const upstream = await recordingUpstream();
  const provider = (name: string): string =>
    `[providers.${name}]\napi_base = "${upstream.url}${prefix}"\nauth = "client"\n`;
  const tokenman = await startTokenman({
    plugins,
    config: `${config}\n${provider("anthropic")}${provider("openai")}`,
  });
  return {
    upstream,
    tokenman,
    client: () => WireClient.connect(tokenman.proxy),
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(upstream.failures, []);
      const errors = tokenman.log.filter(({ level }) => level === "error");
      assert.deepEqual(errors, [], "nothing failed inside the kernel");
    },
  };
}

/** The ways in which plugins may look at a reply without changing it. Each is a project's name. */
export const WAYS = ["plain", "observed", "mapped", "read"] as const;
export type Way = (typeof WAYS)[number];

/** What {@link looking} saw of one reply. */
export interface Seen {
  readonly way: Way;
  readonly bytes: Buffer;
  readonly events: number;
  readonly end: string;
  readonly truncated: boolean;
}

export interface Looking {
  readonly plugin: Plugin;
  /** The project "plain", in which nothing looks. */
  readonly config: string;
  /** What was seen of the next reply, as soon as its end was told. */
  next(): Promise<Seen>;
  /** How many were told and not asked for. */
  readonly unread: number;
}

/** A plugin that looks at replies in the way that the project is named after. */
export function looking(): Looking {
  const told: Seen[] = [];
  let waiting: ((seen: Seen) => void) | undefined;
  const tell = (seen: Seen): void => {
    if (waiting === undefined) told.push(seen);
    else waiting(seen);
    waiting = undefined;
  };
  const plugin = definePlugin({
    name: "looking",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => {
          if (exchange.project === "observed") exchange.trackUsage();
        });
        hooks.response.tap((reply, exchange) => look(reply, exchange, tell));
      });
    },
  });
  return {
    plugin,
    config: '[projects.plain]\ndisable = ["looking", "access-log"]\n',
    get unread() {
      return told.length;
    },
    next: () =>
      new Promise((resolve) => {
        const first = told.shift();
        if (first !== undefined) resolve(first);
        else waiting = resolve;
      }),
  };
}

async function look(reply: Reply, { project }: Exchange, tell: (seen: Seen) => void): Promise<void> {
  if (project === "mapped") reply.mapEvents({ event: (event) => event });
  // A body that is too large to be read, or cannot be decoded, is the client's all the same.
  if (project === "read" && !reply.streaming) await reply.read().catch(() => undefined);
  const chunks: Buffer[] = [];
  let events = 0;
  reply.observe({
    data: (chunk) => void chunks.push(chunk),
    event: () => void events++,
    end: (end, truncated) =>
      tell({ way: project as Way, bytes: Buffer.concat(chunks), events, end, truncated }),
  });
}

export interface RequestParts {
  readonly method?: string;
  readonly target?: string;
  /** Field lines as they are written, in latin1. */
  readonly lines?: readonly string[];
  readonly body?: Buffer | string;
  /** Sizes of the chunks in which the body goes out in chunked coding; the last size is repeated. */
  readonly chunks?: readonly number[];
  readonly version?: string;
}

/** A request's bytes, with Host first and the framing last. */
export function requestBytes(parts: RequestParts): Buffer {
  const { method = "POST", target = "/v1/messages", lines = [], body, chunks, version = "1.1" } = parts;
  const bytes: Buffer | undefined = body === undefined ? undefined : Buffer.from(body as string);
  const framing =
    bytes === undefined
      ? []
      : [chunks === undefined ? `Content-Length: ${bytes.length}` : "Transfer-Encoding: chunked"];
  const head = [`${method} ${target} HTTP/${version}`, "Host: localhost", ...lines, ...framing, "", ""];
  const pieces: Buffer[] = [Buffer.from(head.join("\r\n"), "latin1")];
  if (bytes !== undefined) pieces.push(chunks === undefined ? bytes : chunked(bytes, chunks));
  return Buffer.concat(pieces);
}

/** Bytes in chunked coding, cut at the given sizes. */
export function chunked(bytes: Buffer, sizes: readonly number[], trailers = ""): Buffer {
  const pieces: Buffer[] = [];
  let at = 0;
  for (let number = 0; at < bytes.length; number++) {
    const piece = bytes.subarray(at, at + Math.max(1, sizes[Math.min(number, sizes.length - 1)]!));
    pieces.push(Buffer.from(`${piece.length.toString(16)}\r\n`), piece, Buffer.from("\r\n"));
    at += piece.length;
  }
  pieces.push(Buffer.from(`0\r\n${trailers}\r\n`, "latin1"));
  return Buffer.concat(pieces);
}

export function sha256(bytes: Buffer): string {
  return crypto.hash("sha256", bytes);
}

/** Asserts that two bodies are the same, without printing megabytes where they are not. */
export function assertSameBytes(actual: Buffer, expected: Buffer, what: string): void {
  if (actual.equals(expected)) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  const from = Math.max(0, (at < 0 ? Math.min(actual.length, expected.length) : at) - 20);
  assert.fail(
    `${what}: ${actual.length} bytes for ${expected.length}, different from byte ${at}: ` +
      `${JSON.stringify(actual.toString("latin1", from, from + 60))} for ` +
      `${JSON.stringify(expected.toString("latin1", from, from + 60))}`,
  );
}

const HOP = new Set(["host", "connection", "content-length", "transfer-encoding"]);
/** A request's headers as pairs, less those that are each hop's own. */
export function endToEnd(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (!HOP.has(headers[index]!.toLowerCase())) kept.push(`${headers[index]}: ${headers[index + 1]}`);
  }
  return kept;
}

export function latest(upstream: RecordingUpstream): RecordedRequest {
  return upstream.last();
}
