import { type ClientCredential, type Format, headerValue, type RawHeaders } from "@tokenman/plugin-sdk";
import { errorReply } from "./errors.ts";
import { modelListing } from "./model-listing.ts";

/** The OpenAI family, and with it the many servers that copied its API. */
export const format: Format = Object.freeze({
  name: "openai",
  defaultBase: "https://api.openai.com",
  hosts: ["api.openai.com", "us.api.openai.com", "eu.api.openai.com"],
  // What names the credential's account, and a cookie, go with it: they are taken off when another key is put on.
  credentialHeaders: [
    "authorization",
    "api-key",
    "openai-organization",
    "openai-project",
    "chatgpt-account-id",
    "cookie",
  ],
  credential,
  isSubscription,
  authorize: (secret) => ["Authorization", `Bearer ${secret}`],
  claims,
  isFree: (method, path) => method !== "POST" || FREE_PATH.test(path),
  sessionId,
  models: modelListing,
  errorReply,
} satisfies Format);

/** `Authorization`, or the `api-key` header of Azure's variant. */
function credential(headers: RawHeaders): ClientCredential | undefined {
  const authorization = headerValue(headers, "authorization");
  const bearer = authorization && bearerOf(authorization);
  const kind = isLogin(headers, bearer) ? "oauth" : "key";
  if (authorization) return { kind, header: "authorization", secret: bearer ?? authorization };
  const key = headerValue(headers, "api-key");
  return key ? { kind, header: "api-key", secret: key } : undefined;
}

/**
 * A ChatGPT login: its account header, or a bearer that is a JSON Web Token. Other bearers are API keys: compatible
 * servers accept keys of any shape, so an unknown one says nothing.
 */
function isSubscription(headers: RawHeaders): boolean {
  const authorization = headerValue(headers, "authorization");
  return isLogin(headers, authorization && bearerOf(authorization));
}
function isLogin(headers: RawHeaders, bearer: string | undefined): boolean {
  if (headerValue(headers, "chatgpt-account-id") !== undefined) return true;
  return bearer?.startsWith("eyJ") === true && /^eyJ[\w-]+\.[\w-]+\./.test(bearer);
}

/** Where this vendor's clients name their session: Codex, and coding agents that follow it. */
const SESSION_HEADERS = ["session_id", "session-id", "x-session-id", "conversation_id"];

function sessionId(headers: RawHeaders): string | undefined {
  for (const name of SESSION_HEADERS) {
    const value = headerValue(headers, name);
    if (value) return value;
  }
  return undefined;
}

/** Moderation and counting are free, as are conversations and files; parts of an upload, and ending something. */
const FREE_PATH =
  /\/(?:cancel|pause|resume|input_tokens|moderations|conversations(?:\/[^/]+(?:\/items)?)?|files|uploads(?:\/[^/]+\/(?:parts|complete))?)$/;

const MARKS = ["openai-organization", "openai-project", "openai-beta", "chatgpt-account-id"];
const CLIENT = /^(?:Async)?(?:Azure)?OpenAI\//;
const KEY = /^sk-(?!ant-)/;
/** Paths that only this vendor has. */
const OWN_PATH =
  /^\/v1\/(?:chat|completions|responses|conversations|embeddings|moderations|audio|images|videos|realtime|fine_tuning|vector_stores|uploads|assistants|threads|evals|containers|batches)(?:\/|$)/;

function claims(headers: RawHeaders, path?: string): boolean {
  if (headerValue(headers, "anthropic-version") !== undefined) return false;
  if (MARKS.some((name) => headerValue(headers, name) !== undefined)) return true;
  if (CLIENT.test(headerValue(headers, "user-agent") ?? "")) return true;
  if (KEY.test(credential(headers)?.secret ?? "")) return true;
  return path !== undefined && OWN_PATH.test(path);
}

function bearerOf(authorization: string): string | undefined {
  return /^bearer\s+(\S.*)$/i.exec(authorization)?.[1]?.trimEnd();
}
