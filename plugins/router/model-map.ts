import { matchesGlob } from "@tokenman/plugin-sdk";

/** An entry of `routing.model_map`. */
export interface MapEntry {
  readonly pattern: string;
  readonly target: string;
  /** The provider's name; undefined where the target is another model's name, which leads on. */
  readonly provider: string | undefined;
  /** The name to send; undefined keeps the one that was looked up. */
  readonly model: string | undefined;
}

/** Where the map sends a model. */
export interface Mapping {
  /** The entry that the client's name met. */
  readonly entry: MapEntry;
  /** Undefined where an alias leads to a name that the map does not have: that one goes the usual way. */
  readonly provider: string | undefined;
  /** The name under which the provider is asked. */
  readonly model: string;
}

/**
 * `routing.model_map`: an exact name goes before all patterns, a longer pattern before a shorter one. A target is
 * "PROVIDER", "PROVIDER/MODEL", or the name of another model: an alias, whose target is looked up in its turn.
 */
export class ModelMap {
  readonly entries: readonly MapEntry[];
  readonly #exact = new Map<string, MapEntry>();
  /** The longest pattern first: it says the most. */
  readonly #globs: readonly MapEntry[];

  constructor(map: Readonly<Record<string, string>>, isProvider: (name: string) => boolean) {
    this.entries = Object.entries(map).map(([pattern, target]) => entryOf(pattern, target, isProvider));
    for (const entry of this.entries) if (!entry.pattern.includes("*")) this.#exact.set(entry.pattern, entry);
    this.#globs = this.entries
      .filter(({ pattern }) => pattern.includes("*"))
      .sort((left, right) => right.pattern.length - left.pattern.length);
  }

  /** Undefined for a model that the map does not have. Aliases that go in a circle end where they began. */
  find(model: string): Mapping | undefined {
    const [entry, ...others] = this.#way(model);
    if (entry === undefined) return undefined;
    const last = others.at(-1) ?? entry;
    const asked = others.length === 0 ? model : (others.at(-2) ?? entry).target;
    const { provider } = last;
    return { entry, provider, model: last.model ?? (provider === undefined ? last.target : asked) };
  }

  /** Whether the map has an entry of exactly that name. */
  hasName(model: string): boolean {
    return this.#exact.has(model);
  }

  /** The names on the way of an alias that comes back to itself, the first one last again; undefined for all others. */
  circle(entry: MapEntry): readonly string[] | undefined {
    if (entry.provider !== undefined) return undefined;
    const way = this.#way(entry.target, entry);
    const next = this.#entry(way.at(-1)!.target);
    if (way.at(-1)!.provider !== undefined || next !== entry) return undefined;
    // A pattern that fits its own target is no circle: it makes one model of many.
    return way.length > 1 || !entry.pattern.includes("*")
      ? [...way.map(({ pattern }) => pattern), entry.pattern]
      : undefined;
  }

  /** The entries from a model's own to the one that leads to a provider, or to a name that has no entry. */
  #way(model: string, first?: MapEntry): MapEntry[] {
    const way: MapEntry[] = first === undefined ? [] : [first];
    let next = this.#entry(model);
    while (next !== undefined && !way.includes(next)) {
      way.push(next);
      next = next.provider === undefined ? this.#entry(next.target) : undefined;
    }
    return way;
  }
  #entry(model: string): MapEntry | undefined {
    return this.#exact.get(model) ?? this.#globs.find(({ pattern }) => matchesGlob(pattern, model));
  }
}

function entryOf(pattern: string, target: string, isProvider: (name: string) => boolean): MapEntry {
  if (isProvider(target)) return { pattern, target, provider: target, model: undefined };
  const slash = target.indexOf("/");
  return slash < 0
    ? { pattern, target, provider: undefined, model: undefined }
    : { pattern, target, provider: target.slice(0, slash), model: target.slice(slash + 1) };
}
