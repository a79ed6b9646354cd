import { DocumentMemo, parseIndex } from "@tokenman/plugin-sdk";

const OPEN_OBJECT = 0x7b;
const BOUNDS = { documents: 4, bytes: 67_108_864, minBytes: 8_192 };

/** An element of a list, as it was read. */
interface Element {
  readonly start: number;
  readonly end: number;
  readonly value: unknown;
}
type Lists = Map<string, readonly Element[]>;
const LISTS: unique symbol = Symbol("mock.lists");

/**
 * Reads bodies as JSON.parse does. Of the next turn of a conversation only what is new is read: the rest are the values, the
 * same objects, that the turn before had, so that what was worked out of them is found by them. Nobody may change them.
 */
export class Bodies {
  readonly #memo = new DocumentMemo(BOUNDS);

  /** Throws JsonSyntaxError, and what JSON.parse throws. */
  read(body: Buffer): unknown {
    const document = body[0] === OPEN_OBJECT ? this.#memo.lookUp(body, 0) : undefined;
    if (document === undefined) return JSON.parse(body.toString("utf8"));
    const note = document.note<Lists>(LISTS);
    const lists: Lists = new Map();
    const members = parseIndex(body, this.#memo)
      .entries()
      .map(({ key, value }): [string, unknown] => {
        if (value.kind !== "array") return [key, value.value()];
        const before = note?.value.get(key) ?? [];
        const list = value.items().map((item, index): Element => {
          const { start, end } = item;
          const known = before[index];
          const stands = known !== undefined && note!.stands(known, item);
          return { start, end, value: stands ? known.value : item.value() };
        });
        lists.set(key, list);
        return [key, list.map((element) => element.value)];
      });
    document.keep(LISTS, lists);
    return Object.fromEntries(members);
  }
}
