import { STATUS_CODES } from "node:http";
import { headerValue, type RawHeaders } from "../src/headers.ts";
import type { ReplyInit } from "../src/reply.ts";
import type { UpstreamCall } from "./upstream.ts";

/**
 * Answers one request. It begins when the request's head has come: `await call.received` to let the body come first.
 * The next request of the same connection waits until it returns.
 */
export type Script = (call: UpstreamCall) => void | Promise<void>;

/** Bytes to write (each its own write), a promise to wait for, or anything to do with the call. */
export type ScriptStep = Buffer | string | PromiseLike<unknown> | Script;

/** Reads the request, then takes the steps in order. */
export function steps(...list: readonly ScriptStep[]): Script {
  return async (call) => {
    await call.received;
    for (const step of list) {
      if (typeof step === "string" || Buffer.isBuffer(step)) await call.write(step);
      else if (typeof step === "function") await step(call);
      else await step;
    }
  };
}

/** Reads the request, then sends a reply: with a Content-Length, or in chunked coding where the body is a stream. */
export function wholeReply(init: ReplyInit): Script {
  return async (call) => {
    await call.received;
    await call.reply(init);
  };
}

/** A reply's status line and headers, with the empty line. Adds no header. */
export function headBytes(status: number, headers: RawHeaders = []): Buffer {
  let text = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\n`;
  for (let index = 0; index + 1 < headers.length; index += 2)
    text += `${headers[index]}: ${headers[index + 1]}\r\n`;
  return Buffer.from(`${text}\r\n`, "latin1");
}

/** One chunk of chunked coding; of no bytes, the last one. */
export function chunkBytes(bytes: Buffer | string): Buffer {
  const data = Buffer.from(bytes as Buffer);
  return Buffer.concat([Buffer.from(`${data.length.toString(16)}\r\n`), data, Buffer.from("\r\n")]);
}

/**
 * A reply as a sequence of writes, up to and including `bodyBytes` bytes of its body: nothing that tells its end is
 * written where the body is longer.
 */
export async function* replyBytes(
  init: ReplyInit,
  bodyBytes = Number.POSITIVE_INFINITY,
): AsyncGenerator<Buffer> {
  const { status, headers = [], body = "" } = init;
  const framed = ["content-length", "transfer-encoding"].some((name) => headerValue(headers, name));
  if (typeof body === "string" || Buffer.isBuffer(body)) {
    const bytes = Buffer.from(body as Buffer);
    const length = framed ? [] : ["Content-Length", String(bytes.length)];
    yield Buffer.concat([headBytes(status, [...headers, ...length]), bytes.subarray(0, bodyBytes)]);
    return;
  }
  yield headBytes(status, framed ? headers : [...headers, "Transfer-Encoding", "chunked"]);
  let left = bodyBytes;
  for await (const bytes of body) {
    const part = bytes.subarray(0, left);
    if (part.length > 0) yield framed ? part : chunkBytes(part);
    left -= part.length;
    if (part.length < bytes.length) return;
  }
  if (!framed) yield chunkBytes("");
}
