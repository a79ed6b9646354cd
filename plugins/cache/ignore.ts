import { type JsonMember, parseIndex } from "@tokenman/plugin-sdk";

const COMMA = Buffer.from(",");

/**
 * The members of a JSON object but those called as in `ignored`, each as it stands, joined by commas. Only to compare: what
 * is between members is gone. Undefined for a body that is no JSON object.
 */
export function bodyWithout(body: Buffer, ignored: ReadonlySet<string>): Buffer | undefined {
  try {
    const root = parseIndex(body);
    if (root.kind !== "object") return undefined;
    const pieces: Buffer[] = [];
    for (const member of root.entries()) {
      if (ignored.has(member.key)) continue;
      if (pieces.length > 0) pieces.push(COMMA);
      pieces.push(bytesOf(body, member));
    }
    return Buffer.concat(pieces);
  } catch {
    return undefined;
  }
}

function bytesOf(body: Buffer, { keyStart, value }: JsonMember): Buffer {
  return body.subarray(keyStart, value.end);
}
