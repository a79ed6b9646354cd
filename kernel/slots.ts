import type { Slot } from "@tokenman/plugin-sdk";

/** Plugins' own notes on an exchange or attempt. The map is made at first use. */
export class Slots {
  #values: Map<symbol, unknown> | undefined;

  set<T>(slot: Slot<T>, value: T): void {
    this.#values ??= new Map();
    this.#values.set(slot.key, value);
  }
  get<T>(slot: Slot<T>): T | undefined {
    return this.#values?.get(slot.key) as T | undefined;
  }
}
