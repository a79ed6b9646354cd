import { type Exchange, maskKeys } from "@tokenman/plugin-sdk";

const GONE = "[key]";

/** Takes keys out of a text that is to be kept: those of this exchange, and whatever looks like one. */
export function redacted(exchange: Exchange, text: string): string {
  let clean = text;
  for (const secret of secretsOf(exchange)) clean = clean.replaceAll(secret, GONE);
  return maskKeys(clean, GONE);
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
