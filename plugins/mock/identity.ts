import crypto from "node:crypto";

/** A long body is hashed once for all the ids that its answer needs. */
const digests = new WeakMap<Buffer, string>();

/** An id that depends on nothing but the request and the kind of thing: the same request always gets the same ids. */
export function idFor(prefix: string, body: Buffer): string {
  let digest = digests.get(body);
  if (digest === undefined) {
    digest = crypto.hash("sha256", body, "hex");
    digests.set(body, digest);
  }
  return prefix + crypto.hash("sha256", prefix + digest, "hex").slice(0, 24);
}
