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
  const found: Buffer[] = [];
  for (const [name, value] of Object.entries(object)) {
    const head = `${found.length > 0 ? "," : "{"}${JSON.stringify(name)}:`;
    if (name === key) found.push(Buffer.from(head), ...pieces);
    else found.push(Buffer.from(head + JSON.stringify(value)));
  }
  found.push(Buffer.from("}"));
  return found;
}
