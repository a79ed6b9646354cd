/** JSON put together from pieces that are made once: a session's requests repeat nearly all of what they say. */

const OPEN = Buffer.from("[");
const CLOSE = Buffer.from("]");
const COMMA = Buffer.from(",");

/** A function that gives for the same object what `make` gave for it before. The objects must not be changed. */
export function once<From extends object, To>(make: (from: From) => To): (from: From) => To {
  const made = new WeakMap<From, { readonly to: To }>();
  return (from) => {
    let known = made.get(from);
    if (known === undefined) {
      known = { to: make(from) };
      made.set(from, known);
    }
    return known.to;
  };
}

/** What JSON.stringify gives, as bytes. */
export const pieceOf: (value: object) => Buffer = once((value) => Buffer.from(JSON.stringify(value)));

/** The pieces of a list, of its elements' pieces. */
export function listOf(elements: readonly (readonly Buffer[])[]): Buffer[] {
  const list: Buffer[] = [OPEN];
  for (const [index, element] of elements.entries()) {
    if (index > 0) list.push(COMMA);
    for (const piece of element) list.push(piece);
  }
  list.push(CLOSE);
  return list;
}

/** The pieces of an object, with `pieces` as the value of its member `key`. */
export function withMember(
  object: Readonly<Record<string, unknown>>,
  key: string,
  pieces: readonly Buffer[],
): Buffer[] {
  const members = Object.entries(object).map(
    ([name, value]) => [name, `${JSON.stringify(name)}:`, value] as const,
  );
  const found: Buffer[] = [Buffer.from("{")];
  for (const [index, [name, head, value]] of members.entries()) {
    const start = `${index > 0 ? "," : ""}${head}`;
    if (name === key) found.push(Buffer.from(start), ...pieces);
    else found.push(Buffer.from(start + JSON.stringify(value)));
  }
  found.push(Buffer.from("}"));
  return found;
}
