import { createHash } from "node:crypto";
import type { Exchange } from "@tokenman/plugin-sdk";

/**
 * Whether a session is among the share that is held out. It depends on the session alone, so that all of its turns are
 * treated alike, today and after a restart; and a larger share holds out those that a smaller one did, and more.
 */
export function isHeldOut(
  { project, session }: Pick<Exchange, "project" | "session">,
  share: number,
): boolean {
  if (share <= 0) return false;
  const hash = createHash("sha256").update(`holdout\0${project}\0${session}`).digest();
  return hash.readUInt32BE(0) / 2 ** 32 < share;
}
