import {
  type ErrorVerdict,
  isRetryAdvised,
  type PublicError,
  type RawHeaders,
  type ReplyInit,
  recordOf,
  stringOf,
} from "@tokenman/plugin-sdk";

/** Codes and types that a second try cannot cure: somebody must pay or raise a limit. */
export const NEVER_RETRY: ReadonlySet<string> = new Set([
  "insufficient_quota",
  "credit_balance_exhausted",
  "billing_hard_limit_reached",
  "billing_not_active",
]);

/** What an error reply means. A body that is not the API's JSON is judged by its status and headers alone. */
export function judgeError(status: number, headers: RawHeaders, body: Buffer): ErrorVerdict {
  const error = errorOf(body);
  const type = stringOf(error?.["type"]);
  const code = stringOf(error?.["code"]);
  return {
    type,
    code,
    message: stringOf(error?.["message"]),
    retryable:
      isRetryAdvised(status, headers) && !NEVER_RETRY.has(code ?? "") && !NEVER_RETRY.has(type ?? ""),
  };
}

/** The error's object. Compatible servers also send a bare message, or wrap the whole in an array. */
function errorOf(body: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    const outer = recordOf(Array.isArray(parsed) ? parsed[0] : parsed);
    const error = outer?.["error"];
    return typeof error === "string" ? { message: error } : recordOf(error);
  } catch {
    return undefined;
  }
}

/** TokenMan's own error as OpenAI would word it, with TokenMan's code as the error's `code`. */
export function errorReply(error: PublicError, requestId: string): ReplyInit {
  return {
    status: error.status,
    headers: ["Content-Type", "application/json", "x-request-id", requestId, ...(error.headers ?? [])],
    body: JSON.stringify({
      error: {
        ...error.details,
        message: error.message,
        type: typeOf(error.status),
        param: null,
        code: error.code,
      },
    }),
  };
}

function typeOf(status: number): string {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}
