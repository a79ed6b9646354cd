import type { Exchange } from "@tokenman/plugin-sdk";

/** The shapes of the vendors' keys and of bearer tokens, each bounded, so that none of them is slow on any text. */
const KEYS = [
  /\b(?:sk|pk|rk|gsk|xai|fw|pplx)-[A-Za-z0-9_-]{12,256}/g,
  /\bAIza[A-Za-z0-9_-]{30,64}/g,
  /\beyJ[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{0,1024}/g,
  /\b(?:Bearer|bearer) [A-Za-z0-9._~+/=-]{12,4096}/g,
];
const GONE = "[key]";

/** Takes keys out of a text that is to be kept: those of this exchange, and whatever looks like one. */
export function redacted(exchange: Exchange, text: string): string {
  let clean = text;
  for (const secret of secretsOf(exchange)) clean = clean.replaceAll(secret, GONE);
  for (const key of KEYS) clean = clean.replace(key, GONE);
  return clean;
}

function secretsOf(exchange: Exchange): Set<string> {
  const secrets = new Set<string>();
  if (exchange.credential !== undefined) secrets.add(exchange.credential.secret);
  for (const { candidate } of exchange.attempts) {
    if (candidate.credential.kind === "key") secrets.add(candidate.credential.secret.reveal());
  }
  secrets.delete("");
  return secrets;
}

/** As {@link redacted}, for bytes: keys are ASCII, and all other bytes stay what they are. */
export function redactedBytes(exchange: Exchange, bytes: Buffer): Buffer {
  return Buffer.from(redacted(exchange, bytes.toString("latin1")), "latin1");
}
