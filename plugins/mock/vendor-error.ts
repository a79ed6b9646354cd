import type { ReplyInit } from "@tokenman/plugin-sdk";
import { sse } from "./stream.ts";

export type Vendor = "anthropic" | "openai";

export interface VendorError {
  readonly status: number;
  readonly message: string;
  readonly requestId: string;
  readonly param?: string | null;
  readonly code?: string | null;
  readonly retryAfterSeconds?: number;
}

const ANTHROPIC_TYPES: ReadonlyMap<number, string> = new Map([
  [401, "authentication_error"],
  [402, "billing_error"],
  [403, "permission_error"],
  [404, "not_found_error"],
  [413, "request_too_large"],
  [429, "rate_limit_error"],
  [504, "timeout_error"],
  [529, "overloaded_error"],
]);

/** An error as the vendor's own server would send it: this is a provider's error, not one of TokenMan's. */
export function vendorError(vendor: Vendor, error: VendorError): ReplyInit {
  const { status, requestId, retryAfterSeconds } = error;
  const headers = [
    "Content-Type",
    "application/json",
    vendor === "anthropic" ? "request-id" : "x-request-id",
    requestId,
  ];
  if (retryAfterSeconds !== undefined && (status === 429 || status === 503 || status === 529)) {
    headers.push("retry-after", String(retryAfterSeconds));
  }
  return { status, headers, body: JSON.stringify(errorBody(vendor, error)) };
}

/** An overload that shows only inside a stream whose status was 200: its first and only event. */
export function overloadedEvent(vendor: Vendor, isResponses: boolean, requestId: string): Buffer {
  const message = "the embedded provider is overloaded, as its model's name says";
  if (isResponses)
    return sse("error", { type: "error", code: "server_error", message, param: null, sequence_number: 0 });
  const status = vendor === "anthropic" ? 529 : 503;
  const body = errorBody(vendor, { status, message, requestId });
  return sse(vendor === "anthropic" ? "error" : undefined, body);
}

function errorBody(vendor: Vendor, { status, message, requestId, param, code }: VendorError): object {
  if (vendor === "anthropic") {
    const type = ANTHROPIC_TYPES.get(status) ?? (status >= 500 ? "api_error" : "invalid_request_error");
    return { type: "error", error: { type, message }, request_id: requestId };
  }
  return {
    error: { message, type: openaiType(status), param: param ?? null, code: code ?? openaiCode(status) },
  };
}

function openaiType(status: number): string {
  if (status === 429) return "requests";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

function openaiCode(status: number): string | null {
  if (status === 401) return "invalid_api_key";
  if (status === 429) return "rate_limit_exceeded";
  return null;
}
