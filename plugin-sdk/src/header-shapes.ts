import type { RawHeaders } from "./headers.ts";

/**
 * Lists of names that are remembered: a sender sends the same ones in the same order again and again. How long they may be
 * is bounded by who reads heads.
 */
const MAX_SHAPES = 32;

/** The names of a message's headers, as they came, and which of them count. */
export interface HeaderShape {
  readonly names: readonly string[];
  /** Where in the list of names and values the names stand that count. */
  readonly counted: readonly number[];
}

/**
 * Tells which of a message's headers count. To compare their names with known ones takes less than to look each of them
 * up, for which it has to be hashed.
 */
export class HeaderShapes {
  readonly #counts: (name: string) => boolean;
  /** Roughly in the order of their use. */
  readonly #shapes: HeaderShape[] = [];

  /** `counts` is asked once for each name of a new list, in lower case. */
  constructor(counts: (name: string) => boolean) {
    this.#counts = counts;
  }
  of(headers: RawHeaders): HeaderShape {
    const shapes = this.#shapes;
    for (let index = 0; index < shapes.length; index++) {
      const shape = shapes[index]!;
      if (!hasNames(headers, shape.names)) continue;
      if (index > 0) {
        shapes[index] = shapes[index - 1]!;
        shapes[index - 1] = shape;
      }
      return shape;
    }
    const names = headers.filter((_, index) => index % 2 === 0);
    const counted = names.flatMap((name, index) => (this.#counts(name.toLowerCase()) ? [2 * index] : []));
    const shape = { names, counted };
    if (shapes.length === MAX_SHAPES) shapes.pop();
    shapes.unshift(shape);
    return shape;
  }
  /** Puts the names and values that count into `into`, in the place of what was there. */
  collect(headers: RawHeaders, into: string[]): void {
    const { names, counted } = this.of(headers);
    for (let index = 0; index < counted.length; index++) {
      const at = counted[index]!;
      into[2 * index] = names[at >> 1]!;
      into[2 * index + 1] = headers[at + 1]!;
    }
    into.length = 2 * counted.length;
  }
}

function hasNames(headers: RawHeaders, names: readonly string[]): boolean {
  if (headers.length !== 2 * names.length) return false;
  for (let index = 0; index < names.length; index++) if (headers[2 * index] !== names[index]) return false;
  return true;
}
