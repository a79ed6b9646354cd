import crypto from "node:crypto";
import type { Exchange } from "@tokenman/plugin-sdk";

/** OpenAI caches no prompt of less than 1,024 tokens, and there are hardly so many in fewer bytes of JSON. */
const MIN_BYTES = 3_072;

/**
 * The cache key for a request of OpenAI's, the same for all of a session; "" where the client has set one; undefined where
 * none would help, or one could hurt: the prompt is short, or nothing says that there will be a second turn (requests
 * that only share their beginning find it best without a key, by which they would be spread). Tells nothing of the session.
 */
export function cacheKeyFor(exchange: Exchange, body: Buffer): string | undefined {
  if (body.length < MIN_BYTES || !isConversation(exchange, body)) return undefined;
  if (exchange.node("")?.kind !== "object") return undefined;
  if (exchange.node("/prompt_cache_key") !== undefined) return "";
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
