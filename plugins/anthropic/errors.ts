import {
  type ErrorVerdict,
  isRetryAdvised,
  type PublicError,
  type RawHeaders,
  type ReplyInit,
  recordOf,
  stringOf,
} from "@tokenman/plugin-sdk";

/** Statuses and the `error.type` that goes with each (Anthropic's page on errors). */
const TYPES: readonly (readonly [number, string])[] = [
  [400, "invalid_request_error"],
  [401, "authentication_error"],
  [402, "billing_error"],
  [403, "permission_error"],
  [404, "not_found_error"],
  [409, "conflict_error"],
  [413, "request_too_large"],
  [429, "rate_limit_error"],
  [500, "api_error"],
  [504, "timeout_error"],
  [529, "overloaded_error"],
];
const TYPE_OF_STATUS: ReadonlyMap<number, string> = new Map(TYPES);
const STATUS_OF_TYPE: ReadonlyMap<string, number> = new Map(TYPES.map(([status, type]) => [type, status]));

/** Values of `error.details.error_code` that a second try cannot cure: somebody must raise a limit or pay. */
export const NEVER_RETRY: ReadonlySet<string> = new Set([
  "enforced_spend_limit_reached",
  "contract_spend_limit_reached",
  "linked_organization_spend_limit_reached",
  "linked_organization_billing_unavailable",
]);

/** The HTTP status that an `error.type` stands for; undefined for a type that is not known. */
export function statusOfType(type: string): number | undefined {
  return STATUS_OF_TYPE.get(type);
}

/** What an error reply means. A body that is not the API's JSON is judged by its status and headers alone. */
export function judgeError(status: number, headers: RawHeaders, body: Buffer): ErrorVerdict {
  const error = errorOf(body);
  const code = stringOf(recordOf(error?.["details"])?.["error_code"]);
  return {
    type: stringOf(error?.["type"]),
    code,
    message: stringOf(error?.["message"]),
    retryable: isRetryAdvised(status, headers) && (code === undefined || !NEVER_RETRY.has(code)),
  };
}

function errorOf(body: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    return recordOf(recordOf(JSON.parse(body.toString("utf8")))?.["error"]);
  } catch {
    return undefined;
  }
}

/** TokenMan's own error as Anthropic would word it: its code stands where the vendor's SDKs look for one. */
export function errorReply(error: PublicError, requestId: string): ReplyInit {
  return {
    status: error.status,
    headers: ["Content-Type", "application/json", "request-id", requestId, ...(error.headers ?? [])],
    body: JSON.stringify({
      type: "error",
      error: {
        ...error.details,
        type: typeOf(error.status),
        message: error.message,
        details: { error_code: error.code },
      },
      request_id: requestId,
    }),
  };
}

function typeOf(status: number): string {
  const known = TYPE_OF_STATUS.get(status);
  if (known !== undefined) return known;
  if (status === 503) return "overloaded_error";
  return status >= 500 ? "api_error" : "invalid_request_error";
}
