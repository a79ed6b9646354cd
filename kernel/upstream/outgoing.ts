import type { Candidate } from "@tokenman/plugin-sdk";
import {
  connectionNamed,
  type Format,
  isHopByHop,
  type RawHeaders,
  speaks,
  withoutHeaders,
} from "@tokenman/plugin-sdk";

/** What becomes of a header at this hop, whatever `Connection` says. */
type Fate = "keep" | "drop" | "own" | "connection" | "length";

/**
 * First letters of the names whose fate is not to be kept, by their length. Most other names are told from them by these
 * two alone, without folding their case.
 */
const SPECIAL: readonly (string | undefined)[] = [
  ...[undefined, undefined, "t", undefined, "h", undefined, "e", "u", undefined, undefined, "ck", undefined],
  ...[undefined, undefined, "c", undefined, "p", "t", "p", "p"],
];

function fateOf(name: string): Fate {
  const first = name.charCodeAt(0) | 0x20;
  if (first === 0x78 && (name.charCodeAt(2) | 0x20) === 0x74 && name.toLowerCase().startsWith("x-tokenman-"))
    return "own";
  const letters = SPECIAL[name.length];
  if (letters === undefined || !letters.includes(String.fromCharCode(first))) return "keep";
  const lower = name.toLowerCase();
  if (lower === "connection") return "connection";
  if (lower === "content-length") return "length";
  return lower === "host" || lower === "expect" || isHopByHop(lower) ? "drop" : "keep";
}

/**
 * The headers to send upstream: as the client sent them, less the hop's own (Host, Content-Length, Connection and what
 * it names), less TokenMan's. Host and Content-Length are written by the HTTP client.
 */
export function forwardedHeaders(headers: RawHeaders): string[] {
  const kept: string[] = [];
  let isNamed = false;
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index]!;
    const fate = fateOf(name);
    if (fate === "keep") kept.push(name, headers[index + 1]!);
    else if (fate === "connection") isNamed ||= namesFields(headers[index + 1]!);
  }
  return isNamed ? withoutNamed(kept, headers) : kept;
}

/**
 * A reply's headers less the upstream hop's own, and less what only TokenMan says: another one's may stand behind it.
 * Content-Length stays: it describes the body, which is relayed.
 */
export function relayedHeaders(headers: RawHeaders): string[] {
  const kept: string[] = [];
  let isNamed = false;
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index]!;
    const fate = fateOf(name);
    if (fate === "connection") isNamed ||= namesFields(headers[index + 1]!);
    else if (fate !== "own" && (fate !== "drop" || !isHopByHop(name))) kept.push(name, headers[index + 1]!);
  }
  return isNamed ? withoutNamed(kept, headers) : kept;
}

/** Whether a Connection header says more than nearly all of them do. */
function namesFields(value: string): boolean {
  return value !== "keep-alive" && value !== "close" && value !== "Keep-Alive";
}
/** Takes out what the message's Connection headers name, but never the length of its body. */
function withoutNamed(kept: string[], headers: RawHeaders): string[] {
  const named = new Set(connectionNamed(headers));
  named.delete("content-length");
  return [...withoutHeaders(kept, named)];
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
