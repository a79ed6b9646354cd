import { type Exchange, matchesGlob, type RequestDescription } from "@tokenman/plugin-sdk";
import type { CacheConfig } from "./schema.ts";

/** Paths seen are few; what is decided about one is remembered up to here. */
const MAX_PATHS = 200;

/** Which requests may be answered by what another one was answered. */
export class Rules {
  readonly #policy: CacheConfig["policy"];
  readonly #excluded: readonly string[];
  readonly #paths = new Map<string, boolean>();

  constructor({ policy, exclude_paths }: Pick<CacheConfig, "policy" | "exclude_paths">) {
    this.#policy = policy;
    this.#excluded = exclude_paths;
  }

  admits(exchange: Exchange): boolean {
    const { dialect, request } = exchange;
    if (dialect === undefined || this.#isExcluded(request.path)) return false;
    // Lists and counts: nothing is generated, so nothing is left to chance.
    if (!dialect.generates) return true;
    const { description } = exchange;
    // What is not JSON is the provider's to refuse.
    if (description === undefined || description.stateful === true) return false;
    if (this.#policy === "all") return true;
    if (description.tools === "server") return false;
    if (dialect.outputText === undefined || description.sampling === "fixed") return true;
    return this.#policy === "auto" && description.sampling !== "random" && !isProbe(description);
  }

  #isExcluded(path: string): boolean {
    let excluded = this.#paths.get(path);
    if (excluded === undefined) {
      excluded = this.#excluded.some((pattern) => matchesGlob(pattern, path));
      if (this.#paths.size >= MAX_PATHS) this.#paths.clear();
      this.#paths.set(path, excluded);
    }
    return excluded;
  }
}

/** Who asks for a single token wants something else: the rate-limit headers, or a warm prompt cache. */
function isProbe({ maxOutputTokens }: RequestDescription): boolean {
  return maxOutputTokens !== undefined && maxOutputTokens <= 1;
}
