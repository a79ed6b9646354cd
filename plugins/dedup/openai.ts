import crypto from "node:crypto";
import type { Exchange } from "@tokenman/plugin-sdk";

/** OpenAI caches no prompt of less than 1,024 tokens, and there are hardly so many in fewer bytes of JSON. */
const MIN_BYTES = 3_072;

/**
 * Whether there is more to come, or has been: an agent, a client that names its sessions, or a request that has an answer
 * in it. Of others nothing is remembered.
 */
export function isConversation({ description, format, request }: Exchange, body: Buffer): boolean {
  if (body.length < MIN_BYTES || description === undefined) return false;
  return (
    description.tools !== "none" ||
    format?.sessionId(request.headers) !== undefined ||
    body.includes('"assistant"')
  );
}

/**
 * The cache key for a request of OpenAI's, the same for all of a session; "" where the client has set one; undefined where
 * the client does not name its sessions. What is only guessed to be a session changes with its first message, when a
 * client compacts its history, say; and each new key makes OpenAI's cache start anew, with the tools and the system
 * prompt that it has. Tells nothing of the session.
 */
export function cacheKeyFor(exchange: Exchange): string | undefined {
  if (exchange.node("/prompt_cache_key") !== undefined) return "";
  const { project, credentialHash, session, format, request } = exchange;
  if (format?.sessionId(request.headers) === undefined) return undefined;
  const hash = crypto.hash("sha256", `${project}\n${credentialHash}\n${session}`, "base64url");
  return `tm-${hash.slice(0, 24)}`;
}
