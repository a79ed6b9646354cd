/** A value in a {@link Bag}; give it back to take the value out. */
export interface Held<T> {
  readonly value: T;
  index: number;
}

/**
 * Holds what is under way, unordered; adding and taking out cost the same however many there are. An array, and not a Set
 * or Map: those leave their outgrown tables behind with the entries of the time, and one of them that has reached the
 * old generation of the heap keeps every later one alive, and with it half of all exchanges, until a full collection.
 * Measured at 2 KB and 16 connections, that made a scavenge take 5 ms in place of 0.5.
 */
export class Bag<T> {
  readonly #held: Held<T>[] = [];

  get size(): number {
    return this.#held.length;
  }
  add(value: T): Held<T> {
    const held = { value, index: this.#held.length };
    this.#held.push(held);
    return held;
  }
  remove(held: Held<T>): void {
    if (this.#held[held.index] !== held) return;
    const last = this.#held.pop()!;
    if (last !== held) {
      this.#held[held.index] = last;
      last.index = held.index;
    }
    held.index = -1;
  }
  values(): T[] {
    return this.#held.map((held) => held.value);
  }
}
