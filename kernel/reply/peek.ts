import {
  type Dialect,
  type EventVerdict,
  headerValue,
  type SseEvent,
  SseSplitter,
} from "@tokenman/plugin-sdk";
import type { ExchangeState } from "../exchange.ts";
import { contentCoding, decodeBody } from "./codec.ts";
import type { KernelReply } from "./reply.ts";
import type { HeldBody, PushSource } from "./source.ts";

/** How much of an error reply's body a policy may look at. */
const ERROR_BODY_BYTES = 64 * 1024;

/** Up to 64 KiB of a body, decoded; undefined where it does not decode. The bytes stay where they are. */
export function peekErrorBody(
  reply: KernelReply,
  source: PushSource,
  look: (body: Buffer | undefined) => void,
): void {
  source.peek(({ chunks, ended, full }: HeldBody) => {
    if (!ended && !full) return false;
    const raw = Buffer.concat(chunks as Buffer[]);
    const coding = contentCoding(headerValue(reply.headers, "content-encoding"));
    if (coding === undefined) look(raw.subarray(0, ERROR_BODY_BYTES));
    else void decodeBody(raw, coding, ERROR_BODY_BYTES).then(look);
    return true;
  });
}

/** The dialect's verdict on the first event. A compressed stream is not judged: holding it back would take a decoder. */
export function peekFirstEvent(
  exchange: ExchangeState,
  reply: KernelReply,
  source: PushSource,
  look: (verdict: EventVerdict | undefined) => void,
): void {
  const { dialect } = exchange;
  if (dialect === undefined || contentCoding(headerValue(reply.headers, "content-encoding")) !== undefined) {
    look(undefined);
    return;
  }
  const splitter = new SseSplitter({ maxEventBytes: ERROR_BODY_BYTES });
  let seen = 0;
  let verdict: EventVerdict | undefined;
  source.peek(({ chunks, ended, full, error }: HeldBody) => {
    for (; seen < chunks.length && verdict === undefined; seen++) {
      splitter.push(chunks[seen]!, (event) => {
        verdict ??= judge(dialect, event);
      });
    }
    if (error !== undefined && verdict === undefined) {
      verdict = { kind: "error", type: "cut", status: undefined, retryable: true, message: error.message };
    }
    if (verdict === undefined && !ended && !full) return false;
    look(verdict);
    return true;
  });
}

/** A dialect is a plugin's: one that fails has no opinion. */
function judge(dialect: Dialect, event: SseEvent): EventVerdict {
  try {
    return dialect.judgeEvent(event);
  } catch {
    return { kind: "content" };
  }
}
