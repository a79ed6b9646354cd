import type { Dialect, Format, RawHeaders, RegistryView } from "@tokenman/plugin-sdk";

/** Which dialect and format a request is of. */
export interface Classified {
  readonly dialect: Dialect | undefined;
  readonly format: Format | undefined;
  /** The path as the dialect writes it: with the `/v1` that some clients omit. */
  readonly path: string;
}

interface Pattern {
  readonly matches: RegExp;
  readonly dialect: Dialect;
}

/**
 * The dialects of a generation, by method and path. Compiled once; a fixed path costs one look-up. Where several
 * dialects share a route, the first that accepts the headers has it, in the order of the plugins.
 */
export class DialectTable {
  readonly #fixed = new Map<string, Dialect[]>();
  readonly #patterns = new Map<string, Pattern[]>();
  readonly #formats: readonly Format[];

  constructor(registry: RegistryView) {
    this.#formats = registry.all("format");
    for (const dialect of registry.all("dialect")) {
      for (const { method, path } of dialect.routes) {
        if (path.includes("/:")) this.#add(this.#patterns, method, { matches: pattern(path), dialect });
        else this.#add(this.#fixed, `${method} ${path}`, dialect);
      }
    }
  }
  get formats(): readonly Format[] {
    return this.#formats;
  }

  classify(method: string, path: string, headers: RawHeaders): Classified {
    const exact = this.#find(method, path, headers);
    if (exact !== undefined) return this.#known(exact, path);
    if (!path.startsWith("/v1/")) {
      const full = `/v1${path}`;
      const found = this.#find(method, full, headers);
      if (found !== undefined) return this.#known(found, full);
    }
    return { dialect: undefined, format: this.#formats.find((format) => format.claims(headers, path)), path };
  }

  #find(method: string, path: string, headers: RawHeaders): Dialect | undefined {
    const fixed = this.#fixed.get(`${method} ${path}`)?.find((dialect) => accepts(dialect, headers));
    if (fixed !== undefined) return fixed;
    return this.#patterns
      .get(method)
      ?.find(({ matches, dialect }) => matches.test(path) && accepts(dialect, headers))?.dialect;
  }
  #known(dialect: Dialect, path: string): Classified {
    return { dialect, format: this.#formats.find((format) => format.name === dialect.format), path };
  }
  #add<T>(map: Map<string, T[]>, key: string, value: T): void {
    const list = map.get(key);
    if (list === undefined) map.set(key, [value]);
    else list.push(value);
  }
}

function accepts(dialect: Dialect, headers: RawHeaders): boolean {
  return dialect.accepts === undefined || dialect.accepts(headers);
}
function pattern(path: string): RegExp {
  const source = path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\/:[A-Za-z_]\w*/g, "/[^/]+");
  return new RegExp(`^${source}$`);
}
