import {
  type ErrorCode,
  type PublicError,
  type RawHeaders,
  type ReplyInit,
  TokenmanError,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import type { ShareBuffer } from "./share.ts";
import { type BodySource, BufferSource, IterableSource } from "./source.ts";

/** Marks a reply made by `ex.refuse`: the exchange's outcome is "refused" with this code. */
const REFUSAL: unique symbol = Symbol("refusal");
/** Marks the body of a joined {@link SharedReply}, which is followed without a generator in between. */
const SHARED: unique symbol = Symbol("shared");

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
}
type MarkedInit = ReplyInit & { readonly [REFUSAL]?: Refusal };
type SharedBody = AsyncIterable<Buffer> & { readonly [SHARED]?: () => BodySource };

export type RefusalError = Omit<PublicError, "status"> & {
  readonly status?: number;
  readonly code: ErrorCode;
};

export interface ReplyHead {
  readonly status: number;
  readonly statusText?: string | undefined;
  readonly headers: RawHeaders;
}

const HOP: ReadonlySet<string> = new Set(["connection", "transfer-encoding"]);
const LENGTH: ReadonlySet<string> = new Set([...HOP, "content-length"]);

/** Whether a plugin's value is usable as a reply. */
export function isReplyInit(value: unknown): value is ReplyInit {
  if (typeof value !== "object" || value === null) return false;
  const { status, headers, body } = value as Record<string, unknown>;
  if (!Number.isInteger(status) || (status as number) < 200 || (status as number) > 599) return false;
  if (headers !== undefined) {
    if (!Array.isArray(headers) || headers.length % 2 !== 0) return false;
    if (headers.some((part) => typeof part !== "string")) return false;
  }
  if (body === undefined || typeof body === "string" || Buffer.isBuffer(body)) return true;
  return typeof (body as AsyncIterable<Buffer>)[Symbol.asyncIterator] === "function";
}

/** Marks a refusal, for the outcome. */
export function markRefusal(init: ReplyInit, refusal: Refusal): ReplyInit {
  return { ...init, [REFUSAL]: refusal } as MarkedInit;
}

/** The refusal that the reply is marked as; undefined for any other. */
export function refusalIn(init: ReplyInit): Refusal | undefined {
  return (init as MarkedInit)[REFUSAL];
}

/** A body that follows a shared reply. */
export function followingBody(buffer: ShareBuffer): AsyncIterable<Buffer> {
  const body: SharedBody = {
    [SHARED]: () => buffer.join(),
    [Symbol.asyncIterator]: () => iterate(buffer.join()),
  };
  return body;
}

/** The head to send for a plugin's reply, with the length of a body that is at hand. */
export function headOf(init: ReplyInit): ReplyHead {
  // A shared body is as long as its head says.
  const isShared = init.body !== undefined && (init.body as SharedBody)[SHARED] !== undefined;
  const headers = withoutHeaders(init.headers ?? [], isShared ? HOP : LENGTH);
  const isBodiless = init.status === 204 || init.status === 304;
  if (
    !isBodiless &&
    init.chunked !== true &&
    (init.body === undefined || typeof init.body === "string" || Buffer.isBuffer(init.body))
  ) {
    const length = init.body === undefined ? 0 : Buffer.byteLength(init.body);
    return { status: init.status, headers: [...headers, "content-length", String(length)] };
  }
  return { status: init.status, headers };
}

/** Where a reply's body comes from. `owner` is who broke off, if it does. */
export function bodySource(init: ReplyInit, owner: string): BodySource {
  const { body } = init;
  if (body === undefined) return new BufferSource(Buffer.alloc(0));
  if (typeof body === "string") return new BufferSource(Buffer.from(body));
  if (Buffer.isBuffer(body)) return new BufferSource(body);
  const shared = (body as SharedBody)[SHARED];
  if (shared !== undefined) return shared();
  return new IterableSource(body, (cause) =>
    cause instanceof TokenmanError
      ? cause
      : new TokenmanError("TM_UPSTREAM_CUT", `${owner} broke off its answer`, { cause }),
  );
}

async function* iterate(source: BodySource): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  let wake: (() => void) | undefined;
  let ended = false;
  let failure: Error | undefined;
  source.start({
    data: (chunk) => {
      chunks.push(chunk);
      wake?.();
    },
    end: () => {
      ended = true;
      wake?.();
    },
    fail: (error) => {
      failure = error;
      wake?.();
    },
  });
  try {
    for (;;) {
      for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) yield chunk;
      if (failure !== undefined) throw failure;
      if (ended) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    source.abort();
  }
}
