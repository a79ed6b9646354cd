import crypto from "node:crypto";
import { isIP } from "node:net";
import {
  type Format,
  headerValue,
  type RawHeaders,
  TokenmanError,
  withoutHeaders,
} from "@tokenman/plugin-sdk";

export interface AccessRules {
  /** Host names served beside localhost and IP addresses, lower case. */
  readonly allowedHosts: ReadonlySet<string>;
  /** Origins of web pages that may use this port, as the browser writes them. */
  readonly allowedOrigins: ReadonlySet<string>;
  /** The `[auth]` token; undefined where it is off. */
  readonly token: string | undefined;
}

/**
 * Refuses what a web page of a stranger could send: a Host that is not ours (DNS rebinding), or an Origin that is not
 * (CSRF). With "programs" an Origin that is no web page's (`vscode-webview://`) passes: the proxy's clients are such
 * programs, the dashboard's are not. An IP address as Host is always ours: a rebinding attack needs a name. Throws TM_HOST_REFUSED,
 * TM_ORIGIN_REFUSED, and TM_BAD_REQUEST for what proxies and servers read differently (request smuggling).
 */
export function checkHead(headers: RawHeaders, rules: AccessRules, origins: "own" | "programs"): void {
  let host: string | undefined;
  let length: string | undefined;
  let coding: string | undefined;
  let origin: string | undefined;
  let site: string | undefined;
  // One walk for all of them, by the names' lengths first: every request comes by here.
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index]!;
    const value = headers[index + 1]!;
    if (name.length === 4) {
      if (isNamed(name, "host")) host = single(host, value, "Host");
    } else if (name.length === 6) {
      if (isNamed(name, "origin")) origin ??= value;
    } else if (name.length === 14) {
      if (isNamed(name, "content-length")) length = single(length, value, "Content-Length");
      else if (isNamed(name, "sec-fetch-site")) site ??= value;
    } else if (name.length === 17 && isNamed(name, "transfer-encoding"))
      coding = single(coding, value, "Transfer-Encoding");
  }
  if (coding !== undefined && coding.trim().toLowerCase() !== "chunked")
    throw new TokenmanError("TM_BAD_REQUEST", "The only Transfer-Encoding that is read here is chunked.");
  if (host !== undefined && !isOurs(host, rules)) {
    throw new TokenmanError(
      "TM_HOST_REFUSED",
      "This host name is not served here. Add it to server.allowed_hosts if it is yours.",
    );
  }
  if (origin !== undefined && !isOwnOrigin(origin, host, rules, origins)) {
    throw new TokenmanError("TM_ORIGIN_REFUSED", "A web page of another origin may not use TokenMan.");
  }
  if (origin === undefined && site?.trim().toLowerCase() === "cross-site") {
    throw new TokenmanError("TM_ORIGIN_REFUSED", "A web page of another site may not use TokenMan.");
  }
}

function isNamed(name: string, lower: string): boolean {
  return name === lower || name.toLowerCase() === lower;
}
/** The value of a header that may stand once. Throws TM_BAD_REQUEST where there was one before. */
function single(before: string | undefined, value: string, name: string): string {
  if (before === undefined) return value;
  throw new TokenmanError("TM_BAD_REQUEST", `The request has more than one ${name} header.`);
}

/** The name in a Host header, lower case, without its port and brackets; undefined where it is none. */
export function hostName(host: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]/@\s]+))(?::\d{1,5})?$/i.exec(host.trim());
  return match === null ? undefined : (match[1] ?? match[2])!.toLowerCase().replace(/\.$/, "");
}

function isOurs(host: string, { allowedHosts }: AccessRules): boolean {
  // What nearly every request says.
  if (host.startsWith("127.0.0.1:") || host.startsWith("localhost:")) {
    if (/^[^:]*:\d{1,5}$/.test(host)) return true;
  }
  const name = hostName(host);
  if (name === undefined) return false;
  return isIP(name) !== 0 || name === "localhost" || name.endsWith(".localhost") || allowedHosts.has(name);
}

function isOwnOrigin(
  origin: string,
  host: string | undefined,
  rules: AccessRules,
  origins: "own" | "programs",
): boolean {
  if (rules.allowedOrigins.has(origin.trim().toLowerCase())) return true;
  const match = /^([a-z][a-z0-9+.-]*):\/\/(.+)$/i.exec(origin.trim());
  if (match === null) return false;
  // Only a browser's page can have an http origin it did not choose; an editor's own scheme is a program on this machine.
  if (!/^https?$/i.test(match[1]!)) return origins === "programs";
  return host !== undefined && match[2]!.toLowerCase() === host.trim().toLowerCase() && isOurs(host, rules);
}

/** Whether the request carries the token: as a Bearer, as `X-Tokenman-Token`, or as one of the vendors' key headers. */
export function hasToken(headers: RawHeaders, token: string, formats: readonly Format[]): boolean {
  const presented = [headerValue(headers, "x-tokenman-token"), bearer(headerValue(headers, "authorization"))];
  for (const format of formats) presented.push(format.credential(headers)?.secret);
  // Every one is compared, and in constant time.
  return presented.map((secret) => secret !== undefined && equal(secret, token)).includes(true);
}

/** The headers without TokenMan's own token: a client that sent only that sent no credential for a provider. */
export function withoutToken(headers: RawHeaders, token: string, formats: readonly Format[]): RawHeaders {
  const carriers = new Set(["authorization"]);
  for (const format of formats) for (const name of format.credentialHeaders) carriers.add(name);
  const own = new Set<string>();
  for (const name of carriers) {
    const value = headerValue(headers, name);
    if (value !== undefined && equal(bearer(value) ?? value, token)) own.add(name);
  }
  return withoutHeaders(headers, own);
}

function bearer(value: string | undefined): string | undefined {
  return value === undefined ? undefined : /^bearer\s+(.*)$/i.exec(value)?.[1]?.trim();
}
function equal(left: string, right: string): boolean {
  const digest = (text: string): Buffer => crypto.createHash("sha256").update(text).digest();
  return crypto.timingSafeEqual(digest(left), digest(right));
}
