import type { Slot } from "@tokenman/plugin-sdk";

interface Note {
  readonly key: symbol;
  value: unknown;
  readonly next: Note | undefined;
}

/** Plugins' own notes on an exchange or attempt. A list, since they are few: a map for each costs more than to go through it. */
export class Slots {
  #first: Note | undefined;

  set<T>({ key }: Slot<T>, value: T): void {
    const note = this.#find(key);
    if (note === undefined) this.#first = { key, value, next: this.#first };
    else note.value = value;
  }
  get<T>({ key }: Slot<T>): T | undefined {
    return this.#find(key)?.value as T | undefined;
  }
  #find(key: symbol): Note | undefined {
    let note = this.#first;
    while (note !== undefined && note.key !== key) note = note.next;
    return note;
  }
}
