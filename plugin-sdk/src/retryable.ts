import { headerValue, type RawHeaders } from "./headers.ts";

/** Statuses that OpenAI's and Anthropic's SDKs try again: 408, 409, 429 and the server's own errors. */
export function isRetryableStatus(status: number): boolean {
  return status === 408 || status === 409 || status === 429 || status >= 500;
}

/** Whether those SDKs would try again: as the provider's `x-should-retry` says, else by the status. */
export function isRetryAdvised(status: number, headers: RawHeaders): boolean {
  const advice = headerValue(headers, "x-should-retry")?.trim().toLowerCase();
  return advice === "true" || advice === "false" ? advice === "true" : isRetryableStatus(status);
}
