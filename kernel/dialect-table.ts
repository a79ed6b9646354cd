import type { Dialect, Format, RawHeaders, RegistryView } from "@tokenman/plugin-sdk";
import { canonicalPath } from "./canonical-path.ts";

/** Which dialect and format a request is of. */
export interface Classified {
  readonly dialect: Dialect | undefined;
  readonly format: Format | undefined;
  /** The path as the dialect writes it: in its spelling, with the `/v1` that some clients omit. */
  readonly path: string;
  /** The path to send: as it came, with that `/v1` put before it. */
  readonly sent: string;
}

/** A route of a dialect. */
interface Entry {
  readonly method: string;
  /** As the dialect writes it; undefined for a pattern. */
  readonly path: string | undefined;
  readonly matches: RegExp | undefined;
  readonly dialect: Dialect;
  /** Its vendor's. */
  readonly format: Format | undefined;
}

/**
 * The dialects of a generation, by method and path. Compiled once; a fixed path costs one look-up. Where several
 * dialects share a route, the first that accepts the headers has it, in the order of the plugins.
 */
export class DialectTable {
  /** By path in lower case: some servers do not tell the cases apart. */
  readonly #fixed = new Map<string, Entry[]>();
  readonly #patterns: Entry[] = [];
  readonly #formats: readonly Format[];

  constructor(registry: RegistryView) {
    this.#formats = registry.all("format");
    for (const dialect of registry.all("dialect")) {
      const format = this.#formats.find(({ name }) => name === dialect.format);
      for (const { method, path } of dialect.routes) {
        if (path.includes("/:"))
          this.#patterns.push({ method, path: undefined, matches: pattern(path), dialect, format });
        else {
          const key = path.toLowerCase();
          const list = this.#fixed.get(key) ?? [];
          this.#fixed.set(key, list);
          list.push({ method, path, matches: undefined, dialect, format });
        }
      }
    }
  }
  get formats(): readonly Format[] {
    return this.#formats;
  }

  /**
   * What a provider could read as a dialect's path is the dialect's, however it is spelled: limits and guards must see
   * it. In what goes out the spelling stays.
   */
  classify(method: string, path: string, headers: RawHeaders): Classified {
    let found = this.#known(method, path, path, headers);
    if (found === undefined) {
      const canonical = canonicalPath(path);
      if (canonical !== path) found = this.#known(method, canonical, path, headers);
    }
    if (found !== undefined) return found;
    const format = this.#formats.find((each) => each.claims(headers, path));
    return { dialect: undefined, format, path, sent: path };
  }

  #known(method: string, path: string, sent: string, headers: RawHeaders): Classified | undefined {
    const found = this.#find(method, path, sent, headers);
    if (found !== undefined || path.startsWith("/v1/")) return found;
    return this.#find(method, `/v1${path}`, `/v1${sent}`, headers);
  }
  #find(method: string, path: string, sent: string, headers: RawHeaders): Classified | undefined {
    const entry =
      first(this.#fixed.get(path.toLowerCase()), method, path, headers) ??
      first(this.#patterns, method, path, headers);
    if (entry === undefined) return undefined;
    const { dialect, format } = entry;
    return { dialect, format, path: entry.path ?? path, sent };
  }
}

function first(
  entries: readonly Entry[] | undefined,
  method: string,
  path: string,
  headers: RawHeaders,
): Entry | undefined {
  return entries?.find(
    (each) =>
      each.method === method &&
      each.matches?.test(path) !== false &&
      (each.dialect.accepts === undefined || each.dialect.accepts(headers)),
  );
}
function pattern(path: string): RegExp {
  const source = path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\/:[A-Za-z_]\w*/g, "/[^/]+");
  return new RegExp(`^${source}$`, "i");
}
