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

/** A path of one or more dialects. */
interface Known {
  readonly path: string;
  readonly dialects: Dialect[];
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
  /** By method and path in lower case: some servers do not tell the cases apart. */
  readonly #fixed = new Map<string, Known>();
  readonly #patterns = new Map<string, Pattern[]>();
  readonly #formats: readonly Format[];

  constructor(registry: RegistryView) {
    this.#formats = registry.all("format");
    for (const dialect of registry.all("dialect")) {
      for (const { method, path } of dialect.routes) {
        if (path.includes("/:")) this.#addPattern(method, { matches: pattern(path), dialect });
        else this.#addFixed(`${method} ${path.toLowerCase()}`, path, dialect);
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
    const fixed = this.#fixed.get(`${method} ${path.toLowerCase()}`);
    const dialect = fixed?.dialects.find((each) => accepts(each, headers));
    if (dialect !== undefined) return this.#classified(dialect, fixed!.path, sent);
    const matching = this.#patterns
      .get(method)
      ?.find((each) => each.matches.test(path) && accepts(each.dialect, headers));
    return matching === undefined ? undefined : this.#classified(matching.dialect, path, sent);
  }
  #classified(dialect: Dialect, path: string, sent: string): Classified {
    return { dialect, format: this.#formats.find(({ name }) => name === dialect.format), path, sent };
  }
  #addFixed(key: string, path: string, dialect: Dialect): void {
    const known = this.#fixed.get(key);
    if (known === undefined) this.#fixed.set(key, { path, dialects: [dialect] });
    else known.dialects.push(dialect);
  }
  #addPattern(method: string, each: Pattern): void {
    const list = this.#patterns.get(method);
    if (list === undefined) this.#patterns.set(method, [each]);
    else list.push(each);
  }
}

function accepts(dialect: Dialect, headers: RawHeaders): boolean {
  return dialect.accepts === undefined || dialect.accepts(headers);
}
function pattern(path: string): RegExp {
  const source = path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\/:[A-Za-z_]\w*/g, "/[^/]+");
  return new RegExp(`^${source}$`, "i");
}
