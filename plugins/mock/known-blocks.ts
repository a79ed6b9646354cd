import type { PromptBlock } from "./prompt.ts";

const MAX_TEXTS = 64;

interface Known {
  readonly bytesPerToken: number;
  readonly blocks: readonly PromptBlock[];
}

/** The blocks that values were read as: the same message, in the next turn of its conversation, is the same blocks. */
export class KnownBlocks {
  readonly #objects = new WeakMap<object, Known>();
  /** Of the values that are texts, and so cannot be held weakly: system prompts. */
  readonly #texts = new Map<string, Known>();

  /** What `make` gives, which may depend on nothing but the two. */
  of(
    value: object | string,
    bytesPerToken: number,
    make: () => readonly PromptBlock[],
  ): readonly PromptBlock[] {
    const known = typeof value === "string" ? this.#texts.get(value) : this.#objects.get(value);
    if (known?.bytesPerToken === bytesPerToken) return known.blocks;
    const made = { bytesPerToken, blocks: make() };
    if (typeof value === "object") this.#objects.set(value, made);
    else {
      this.#texts.set(value, made);
      if (this.#texts.size > MAX_TEXTS) this.#texts.delete(this.#texts.keys().next().value!);
    }
    return made.blocks;
  }
}
