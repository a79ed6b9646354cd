import type { IncomingMessage, ServerResponse } from "node:http";
import { type Logger, type ReplyInit, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "./exchange.ts";
import { uuidv7 } from "./id.ts";
import { KernelReply } from "./reply/reply.ts";
import { sendError } from "./route-table.ts";
import type { Serving } from "./serving.ts";

const EMPTY = Buffer.alloc(0);

/** Refuses a request that never became an exchange, in the shape of the vendor whose path or marks it bears. */
export function refuseEarly(
  message: IncomingMessage,
  response: ServerResponse,
  headers: readonly string[],
  serving: Serving,
  cause: unknown,
  log: Logger,
): void {
  const error =
    cause instanceof TokenmanError ? cause : new TokenmanError("TM_INTERNAL", undefined, { cause });
  if (!(cause instanceof TokenmanError)) log.error({ err: cause }, "a request failed at the door");
  response.setHeader("Connection", "close");
  const path = (message.url ?? "/").split("?", 1)[0]!.replace(/^\/p\/[^/]*/, "");
  const format = formatOf(message, path, headers, serving);
  if (format === undefined) {
    sendError(response, error);
    return;
  }
  const id = uuidv7();
  let shaped: ReplyInit;
  try {
    shaped = format.errorReply({ code: error.code, status: error.status, message: error.message }, id);
  } catch (failure) {
    // A format is a plugin's. An error must come out all the same.
    log.error({ err: failure, format: format.name }, "a format failed to word an error");
    sendError(response, error);
    return;
  }
  const { status, headers: fields = [], body } = shaped;
  // An error's body is text at hand; were it ever a stream, there would be no exchange to send it in.
  const bytes = typeof body === "string" || Buffer.isBuffer(body) ? Buffer.from(body as string) : EMPTY;
  const length = String(bytes.length);
  response.writeHead(status, [...fields, "Content-Length", length, "X-Tokenman-Request-Id", id]);
  response.end(bytes);
}

/** A dialect that fails over a request is the reason why some come here: it is not asked twice. */
function formatOf(message: IncomingMessage, path: string, headers: readonly string[], serving: Serving) {
  try {
    return serving.dialects.classify(message.method ?? "GET", path, headers).format;
  } catch {
    return undefined;
  }
}

/** TokenMan's own reply to an exchange that failed: what happened where the client can do something about it. */
export function refusalOf(exchange: ExchangeState, cause: unknown): KernelReply {
  if (cause instanceof TokenmanError && cause.status < 500)
    return KernelReply.refusal(exchange, { code: cause.code, message: cause.message });
  if (cause instanceof TokenmanError)
    return KernelReply.refusal(exchange, {
      code: cause.code,
      message: "This request failed inside TokenMan.",
    });
  return KernelReply.refusal(exchange, {
    code: "TM_INTERNAL",
    message: "This request failed inside TokenMan.",
  });
}
