import type { KeepEnd } from "@tokenman/plugin-sdk";

/** One generation's hold on a kept value. */
export interface Hold<T> {
  readonly value: T;
  /** Lets go; the last one to do so drops the value. Rejects as `drop` does. */
  release(): Promise<void>;
}

interface Holder {
  readonly drop: ((value: never, end: KeepEnd) => unknown) | undefined;
}

interface Kept {
  value: Promise<unknown>;
  readonly holders: Set<Holder>;
}

/**
 * Resources that outlive reloads (`ctx.keep`), counted by who holds them. The last holder's `drop` is used, and no
 * other is remembered: what was made by the first generation does not keep that generation's code in memory.
 */
export class KeepStore {
  readonly #kept = new Map<string, Kept>();
  readonly #dropping = new Map<string, Promise<void>>();
  #starting: boolean;

  /** `starting`: until `started` is called, what is dropped was made for a start that failed. */
  constructor({ starting = false }: { readonly starting?: boolean } = {}) {
    this.#starting = starting;
  }
  started(): void {
    this.#starting = false;
  }

  /** How many values are held. */
  get size(): number {
    return this.#kept.size;
  }

  /**
   * The value of `key`, made where nobody holds it. Where `abandoned` fires while it is being made, the holder does
   * not count any more: the next one makes its own, and the late value is dropped as soon as it is there.
   */
  async hold<T>(
    key: string,
    make: () => T | Promise<T>,
    drop: ((value: T, end: KeepEnd) => unknown) | undefined,
    abandoned: AbortSignal,
  ): Promise<Hold<T>> {
    const kept = this.#kept.get(key) ?? this.#make(key, make);
    const holder: Holder = { drop };
    kept.holders.add(holder);
    const abandon = () => {
      kept.holders.delete(holder);
      if (kept.holders.size === 0) this.#forget(key, kept);
    };
    abandoned.addEventListener("abort", abandon, { once: true });
    let value: T;
    try {
      value = (await kept.value) as T;
    } catch (error) {
      this.#forget(key, kept);
      throw error;
    } finally {
      abandoned.removeEventListener("abort", abandon);
    }
    let held = true;
    return {
      value,
      release: async () => {
        if (!held) return;
        held = false;
        kept.holders.delete(holder);
        if (kept.holders.size > 0) return;
        this.#forget(key, kept);
        await this.#drop(key, () => drop?.(value, { startFailed: this.#starting }));
      },
    };
  }

  #make(key: string, make: () => unknown): Kept {
    const dropped = this.#dropping.get(key);
    const value = (async () => {
      // Two handles to one database, one of them closing, is what `keep` is there to avoid.
      await dropped;
      return make();
    })();
    const kept: Kept = { value, holders: new Set() };
    this.#kept.set(key, kept);
    return kept;
  }

  #forget(key: string, kept: Kept): void {
    if (this.#kept.get(key) === kept) this.#kept.delete(key);
  }

  async #drop(key: string, drop: () => unknown): Promise<void> {
    const dropping = (async () => {
      await drop();
    })();
    const settled = dropping.catch(() => undefined);
    this.#dropping.set(key, settled);
    try {
      await dropping;
    } finally {
      if (this.#dropping.get(key) === settled) this.#dropping.delete(key);
    }
  }
}
