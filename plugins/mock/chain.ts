import type { PromptBlock } from "./prompt.ts";

const MAX_ROOTS = 64;

/**
 * What is worked out of a prompt block by block, each from what came of those before it. A block that stands behind the same
 * ones as in the turn before is not worked out again.
 */
export class Chain<Link extends object> {
  readonly #roots = new Map<string, Link>();
  readonly #steps = new WeakMap<PromptBlock, { readonly from: Link; readonly to: Link }>();

  /** Where all prompts of a name begin. */
  root(name: string, make: () => Link): Link {
    const known = this.#roots.get(name);
    if (known !== undefined) return known;
    const made = make();
    this.#roots.set(name, made);
    if (this.#roots.size > MAX_ROOTS) this.#roots.delete(this.#roots.keys().next().value!);
    return made;
  }
  /** What `make`, which may depend on nothing but `from` and `block`, gives. */
  step(from: Link, block: PromptBlock, make: () => Link): Link {
    const known = this.#steps.get(block);
    if (known?.from === from) return known.to;
    const to = make();
    this.#steps.set(block, { from, to });
    return to;
  }
}
