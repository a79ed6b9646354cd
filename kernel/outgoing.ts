import type { Candidate } from "@tokenman/plugin-sdk";
import { connectionNamed, type Format, isHopByHop, type RawHeaders, speaks } from "@tokenman/plugin-sdk";

const HOST = "host";
const LENGTH = "content-length";
const EXPECT = "expect";

/**
 * The headers to send upstream: as the client sent them, less the hop's own (Host, Content-Length, Connection and what
 * it names), less TokenMan's. Host and Content-Length are written by the HTTP client.
 */
export function forwardedHeaders(headers: RawHeaders): string[] {
  const named = connectionNamed(headers);
  const kept: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index]!;
    const lower = name.toLowerCase();
    if (lower === HOST || lower === LENGTH || lower === EXPECT || isHopByHop(lower)) continue;
    if (lower.startsWith("x-tokenman-") || named.has(lower)) continue;
    kept.push(name, headers[index + 1]!);
  }
  return kept;
}

/** A reply's headers less the upstream hop's own. Content-Length stays: it describes the body, which is relayed. */
export function relayedHeaders(headers: RawHeaders): string[] {
  const named = connectionNamed(headers);
  const kept: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const lower = headers[index]!.toLowerCase();
    if (isHopByHop(lower) || (named.has(lower) && lower !== LENGTH)) continue;
    kept.push(headers[index]!, headers[index + 1]!);
  }
  return kept;
}

/**
 * Puts a candidate's credential in the place of the client's. Every credential header of every known format is taken
 * off first, so that none of the client's can reach a provider it does not belong to (FAULTS 43).
 */
export function withCredential(
  headers: RawHeaders,
  candidate: Candidate,
  formats: readonly Format[],
  spoken: Format | undefined,
): RawHeaders {
  const { credential, provider } = candidate;
  if (credential.kind === "client") return headers;
  const carriers = new Set(formats.flatMap((format) => [...format.credentialHeaders]));
  const kept: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (!carriers.has(headers[index]!.toLowerCase())) kept.push(headers[index]!, headers[index + 1]!);
  }
  if (credential.kind === "none") return kept;
  // A provider of several formats takes its key the way of the format that is spoken to it.
  const name = spoken !== undefined && speaks(provider, spoken.name) ? spoken.name : provider.format;
  const format = formats.find((known) => known.name === name);
  if (format === undefined) return kept;
  return [...kept, ...format.authorize(credential.secret.reveal())];
}
