import crypto from "node:crypto";

/** What takes its part of the conversations. */
export interface Share {
  readonly name: string;
  /** Above 0. */
  readonly weight: number;
}

const DRAWS = 2 ** 48;

/**
 * The order in which a conversation asks the shares: always the same one for the same conversation, and over all of them
 * each comes first in proportion to its weight. A share that comes or goes moves only the conversations that it takes or
 * leaves behind (weighted rendezvous hashing).
 */
export function spread<T extends Share>(shares: readonly T[], conversation: string): T[] {
  return shares
    .map((share) => ({ share, score: share.weight / -Math.log(draw(conversation, share.name)) }))
    .sort((left, right) => right.score - left.score)
    .map(({ share }) => share);
}

/** A number in (0, 1), evenly distributed over conversations. */
function draw(conversation: string, name: string): number {
  const hash = crypto.hash("sha256", `${name}\n${conversation}`, "hex");
  return (Number.parseInt(hash.slice(0, 12), 16) + 0.5) / DRAWS;
}
