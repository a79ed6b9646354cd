import { createHash } from "node:crypto";
import {
  connectionNamed,
  type Format,
  isHopByHop,
  type RawHeaders,
  withoutHeaders,
} from "@tokenman/plugin-sdk";

/** A hash of the credentials in a request's headers, as every vendor reads them: 32 bytes. */
export function ownerOf(headers: RawHeaders, formats: readonly Format[]): Buffer {
  const secrets = new Set(formats.map((format) => format.credential(headers)?.secret ?? ""));
  return createHash("sha256")
    .update(JSON.stringify([...secrets].sort()))
    .digest();
}

/** Headers of a `create` that speak of that request alone. */
const OWN: ReadonlySet<string> = new Set([
  "accept",
  "accept-encoding",
  "baggage",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "idempotency-key",
  "last-event-id",
  "origin",
  "referer",
  "traceparent",
  "tracestate",
  "x-client-request-id",
  "x-request-id",
  "x-stainless-retry-count",
  "x-tokenman-project",
]);

/** The creator's headers that go with each request of its session. */
export function lastingHeaders(headers: RawHeaders): RawHeaders {
  const named = connectionNamed(headers);
  const gone = new Set(OWN);
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index]!.toLowerCase();
    if (isHopByHop(name) || named.has(name) || name.startsWith("sec-fetch-")) gone.add(name);
  }
  return [
    ...withoutHeaders(headers, gone),
    "Content-Type",
    "application/json",
    "Accept",
    "text/event-stream",
  ];
}
