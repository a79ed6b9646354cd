import {
  type ClientCredential,
  type Format,
  headerValue,
  headerValues,
  type RawHeaders,
} from "@tokenman/plugin-sdk";
import { errorReply } from "./errors.ts";
import { modelListing } from "./model-listing.ts";

const OAUTH_TOKEN = "sk-ant-oat";
const API_KEY = "sk-ant-api";

/** The Anthropic family. Facts: WIRE notes on the API, its SDKs and Claude Code. */
export const format: Format = Object.freeze({
  name: "anthropic",
  defaultBase: "https://api.anthropic.com",
  hosts: ["api.anthropic.com"],
  // A cookie goes with the credential: it is taken off when another key is put on.
  credentialHeaders: ["x-api-key", "authorization", "cookie"],
  credential,
  isSubscription,
  authorize: (secret) => ["x-api-key", secret],
  claims,
  isFree: (method, path) => method !== "POST" || FREE_PATH.test(path),
  sessionId: (headers) => headerValue(headers, "x-claude-code-session-id"),
  models: modelListing,
  errorReply,
} satisfies Format);

/** `x-api-key`, or `Authorization`: SDKs from 1.0 on put API keys there too, as a bearer. */
function credential(headers: RawHeaders): ClientCredential | undefined {
  const kind = isSubscription(headers) ? "oauth" : "key";
  const key = headerValue(headers, "x-api-key");
  if (key) return { kind, header: "x-api-key", secret: key };
  const authorization = headerValue(headers, "authorization");
  if (!authorization) return undefined;
  return { kind, header: "authorization", secret: bearerOf(authorization) ?? authorization };
}

/** An OAuth token or an oauth beta value. A bearer that is not plainly an API key counts as a token. */
function isSubscription(headers: RawHeaders): boolean {
  if (headerValues(headers, "anthropic-beta").some((values) => /(?:^|[\s,])oauth-/.test(values))) return true;
  const key = headerValue(headers, "x-api-key");
  if (key?.startsWith(OAUTH_TOKEN)) return true;
  const authorization = headerValue(headers, "authorization");
  if (!authorization) return false;
  return bearerOf(authorization)?.startsWith(API_KEY) !== true;
}

/** Files and skills are stored for nothing; ending or archiving something is free, and so is asking who one is. */
const FREE_PATH = /\/(?:cancel|archive|files|skills(?:\/[^/]+\/versions)?)$|^\/api\//;

const MARKS = ["anthropic-version", "anthropic-beta"];
const KEY = /^sk-ant-/;
/** Paths that only this vendor has; Claude Code's greeting among them. */
const OWN_PATH = /^\/(?:v1\/(?:messages|complete|organizations)(?:\/|$)|api\/)/;

function claims(headers: RawHeaders, path?: string): boolean {
  if (MARKS.some((name) => headerValue(headers, name) !== undefined)) return true;
  const secret = credential(headers)?.secret;
  if (secret !== undefined && KEY.test(secret)) return true;
  return path !== undefined && OWN_PATH.test(path);
}

function bearerOf(authorization: string): string | undefined {
  return /^bearer\s+(\S.*)$/i.exec(authorization)?.[1]?.trimEnd();
}
