import {
  type Dialect,
  type EventVerdict,
  headerValue,
  type SseEvent,
  SseSplitter,
} from "@tokenman/plugin-sdk";
import type { ExchangeState } from "../exchange.ts";
import { contentCoding, decodeBody, isKnownCoding, StreamDecoder } from "./codec.ts";
import type { KernelReply } from "./reply.ts";
import type { HeldBody, PushSource } from "./source.ts";

/** How much of an error reply's body a policy may look at. */
const ERROR_BODY_BYTES = 64 * 1024;
/** How much of a coded stream is decoded in search of its first event: one that grows beyond it has none. */
const DECODED_BYTES = 1024 * 1024;

/** How long an error's body may take before it is judged by what has come. */
const ERROR_BODY_MS = 1_000;

/**
 * Up to 64 KiB of a body, or as much as comes within a second, decoded; undefined where it does not decode. The bytes stay
 * where they are. What is returned gives up: then `look` is called no more.
 */
export function peekErrorBody(
  reply: KernelReply,
  source: PushSource,
  look: (body: Buffer | undefined) => void,
): () => void {
  let chunks: readonly Buffer[] = [];
  let isDone = false;
  let isGivenUp = false;
  const done = (): void => {
    isDone = true;
    clearTimeout(late);
    const raw = Buffer.concat(chunks as Buffer[]);
    const coding = contentCoding(headerValue(reply.headers, "content-encoding"));
    if (coding === undefined) look(raw.subarray(0, ERROR_BODY_BYTES));
    else
      void decodeBody(raw, coding, ERROR_BODY_BYTES).then((body) => {
        if (!isGivenUp) look(body);
      });
  };
  let late: NodeJS.Timeout | undefined;
  source.peek((held: HeldBody) => {
    if (isDone) return true;
    // The list itself: what comes later is in it, too.
    chunks = held.chunks;
    if (!held.ended && !held.full) return false;
    done();
    return true;
  });
  if (!isDone) late = setTimeout(done, ERROR_BODY_MS);
  return () => {
    isDone = true;
    isGivenUp = true;
    clearTimeout(late);
  };
}

/**
 * The dialect's verdict on the first event, of a decoded copy where the stream is coded. The bytes stay where they are.
 * What is returned gives up: then there is no verdict, and none later.
 */
export function peekFirstEvent(
  exchange: ExchangeState,
  reply: KernelReply,
  source: PushSource,
  look: (verdict: EventVerdict | undefined) => void,
): () => void {
  const { dialect } = exchange;
  const coding = contentCoding(headerValue(reply.headers, "content-encoding"));
  if (dialect === undefined || (coding !== undefined && !isKnownCoding(coding))) {
    look(undefined);
    return ignore;
  }
  const splitter = new SseSplitter({ maxEventBytes: ERROR_BODY_BYTES });
  let verdict: EventVerdict | undefined;
  const take = (chunk: Buffer): EventVerdict | undefined => {
    splitter.push(chunk, (event) => {
      verdict ??= judge(dialect, event);
    });
    return verdict;
  };
  if (coding !== undefined) return peekDecoded(source, coding, take, look);
  let seen = 0;
  let isDone = false;
  const done = (): void => {
    if (isDone) return;
    isDone = true;
    look(verdict);
  };
  source.peek(({ chunks, ended, full, error }: HeldBody) => {
    while (seen < chunks.length && verdict === undefined && !isDone) take(chunks[seen++]!);
    if (verdict === undefined && error !== undefined) verdict = cutOff(error);
    if (verdict !== undefined || ended || full) done();
    return isDone;
  });
  return done;
}

function cutOff({ message }: Error): EventVerdict {
  return { kind: "error", type: "cut", status: undefined, retryable: true, message };
}

/** Decodes as far as to the first verdict, and no further. What does not decode has none. */
function peekDecoded(
  source: PushSource,
  coding: string,
  take: (chunk: Buffer) => EventVerdict | undefined,
  look: (verdict: EventVerdict | undefined) => void,
): () => void {
  let seen = 0;
  let decoded = 0;
  let isDone = false;
  const done = (verdict: EventVerdict | undefined): void => {
    if (isDone) return;
    isDone = true;
    decoder.destroy();
    look(verdict);
  };
  const decoder = new StreamDecoder(coding, {
    data(chunk) {
      decoded += chunk.length;
      const verdict = take(chunk);
      if (verdict !== undefined || decoded > DECODED_BYTES) done(verdict);
    },
    drain() {},
    end: () => done(undefined),
    fail: () => done(undefined),
  });
  source.peek(({ chunks, ended, full, error }: HeldBody) => {
    while (seen < chunks.length && !isDone) decoder.write(chunks[seen++]!);
    if (error !== undefined) decoder.cut(() => done(cutOff(error)));
    else if (ended) decoder.end();
    else if (full) decoder.cut(() => done(undefined));
    return isDone || ended || full;
  });
  return () => done(undefined);
}

function ignore(): void {}

/** A dialect is a plugin's: one that fails has no opinion. */
function judge(dialect: Dialect, event: SseEvent): EventVerdict {
  try {
    return dialect.judgeEvent(event);
  } catch {
    return { kind: "content" };
  }
}
