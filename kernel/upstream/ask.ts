import { type Answer, headerValue, type Provider, type Question, TokenmanError } from "@tokenman/plugin-sdk";
import { contentCoding, decodeBody } from "../reply/codec.ts";
import type { PushSource } from "../reply/source.ts";
import type { Connections } from "./connections.ts";
import { type DispatchCall, dispatch } from "./dispatch.ts";
import { forwardedHeaders, relayedHeaders } from "./outgoing.ts";
import { joinPath } from "./path.ts";

/** Asks a provider beside all exchanges; see `HostInfo.ask`. `streamIdleMs`: `server.stream_timeout`. */
export function ask(
  connections: Connections,
  streamIdleMs: number,
  provider: Provider,
  question: Question,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  let call: DispatchCall | undefined;
  const late = setTimeout(() => {
    reject(new TokenmanError("TM_UPSTREAM_TIMEOUT", `no answer within ${question.timeoutMs} ms`));
    call?.abort();
  }, question.timeoutMs);
  const { method, body } = question;
  try {
    const { origin, prefix, timeouts } = connections.to(provider, streamIdleMs);
    const path = joinPath(prefix, question.path, question.path.split("?", 1)[0]!);
    const headers = forwardedHeaders(question.headers);
    call = dispatch(
      origin,
      { method, path, headers, body, timeouts },
      {
        head: (status, _statusText, received, source) =>
          void collected(source, question.maxBytes)
            .then((raw) => decoded(raw, received, question.maxBytes))
            .then((bytes) => resolve({ status, headers: relayedHeaders(received), body: bytes }))
            .catch(reject),
        error: reject,
        informational() {},
        firstByte() {},
      },
    );
  } catch (cause) {
    reject(cause);
  }
  return promise.finally(() => clearTimeout(late));
}

function collected(source: PushSource, maxBytes: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let bytes = 0;
  source.start({
    data(chunk) {
      bytes += chunk.length;
      chunks.push(chunk);
      if (bytes <= maxBytes) return;
      source.abort();
      reject(tooLarge(maxBytes));
    },
    end: () => resolve(Buffer.concat(chunks, bytes)),
    fail: reject,
  });
  return promise;
}

async function decoded(raw: Buffer, headers: readonly string[], maxBytes: number): Promise<Buffer> {
  const coding = contentCoding(headerValue(headers, "content-encoding"));
  if (coding === undefined || raw.length === 0) return raw;
  const body = await decodeBody(raw, coding, maxBytes);
  if (body === undefined) throw tooLarge(maxBytes);
  return body;
}

function tooLarge(maxBytes: number): TokenmanError {
  return new TokenmanError("TM_REPLY_TOO_LARGE", `the answer does not decode within ${maxBytes} bytes`);
}
