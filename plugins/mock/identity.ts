import { createHash } from "node:crypto";

/** An id that depends on nothing but the request and the kind of thing: the same request always gets the same ids. */
export function idFor(prefix: string, body: Buffer): string {
  return prefix + createHash("sha256").update(prefix).update(body).digest("hex").slice(0, 24);
}
