import crypto from "node:crypto";
import type { Exchange } from "@tokenman/plugin-sdk";

/** Prompts below 1,024 tokens are not cached by anybody; a token has two bytes at least in any language's mix with JSON. */
const MIN_BYTES = 3_072;

/**
 * The cache key for a request of OpenAI's, the same for all of a session, or undefined where it would not help or could
 * hurt: the client has set one, the prompt is short, or nothing says that there will be a second turn (requests that only
 * share their beginning find it best without a key, by which they would be spread). Tells nothing of the session's id.
 */
export function cacheKeyFor(exchange: Exchange, body: Buffer): string | undefined {
  if (body.length < MIN_BYTES || !isConversation(exchange, body)) return undefined;
  if (exchange.node("/prompt_cache_key") !== undefined || exchange.node("")?.kind !== "object")
    return undefined;
  const { project, credentialHash, session } = exchange;
  const hash = crypto.hash("sha256", `${project}\n${credentialHash}\n${session}`, "base64url");
  return `tm-${hash.slice(0, 24)}`;
}

/** An agent, a client that names its sessions, or a request that has an answer in it. */
function isConversation({ description, format, request }: Exchange, body: Buffer): boolean {
  if (description === undefined) return false;
  return (
    description.tools !== "none" ||
    format?.sessionId(request.headers) !== undefined ||
    body.includes('"assistant"')
  );
}
