import { Random } from "@tokenman/plugin-sdk/testkit";

export { Random };

/** Cuts `bytes` into chunks of random length, single bytes and empty ones included. */
export function randomChunks(random: Random, bytes: Buffer, maxLength: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let pos = 0; pos < bytes.length; ) {
    const length = random.below(maxLength + 1);
    chunks.push(bytes.subarray(pos, pos + length));
    pos += length;
  }
  return chunks;
}
