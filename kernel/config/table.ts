/** A TOML table as it was read: without a prototype, so that no key of a file reaches one. */
export interface Table {
  [key: string]: unknown;
}

/** Deeper files are refused: every walk over a config is recursive. */
export const MAX_DEPTH = 64;

export function emptyTable(): Table {
  return Object.create(null) as Table;
}

/** Whether `value` is a table, not a list, a date or an instance of a class. */
export function isTable(value: unknown): value is Table {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

/** Copies tables into prototype-less ones and lists into fresh ones; other values are kept as they are. */
export function copy(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copy);
  if (!isTable(value)) return value;
  const result = emptyTable();
  for (const [key, child] of Object.entries(value)) result[key] = copy(child);
  return result;
}

/** `over` laid on `base`: tables merge key by key, everything else replaces. Neither argument is changed. */
export function merge(base: unknown, over: unknown): unknown {
  if (over === undefined) return base;
  if (!isTable(base) || !isTable(over)) return over;
  const result = emptyTable();
  for (const [key, value] of Object.entries(base)) result[key] = value;
  for (const [key, value] of Object.entries(over)) result[key] = merge(result[key], value);
  return result;
}

/** The value at `path`, or undefined. */
export function get(value: unknown, path: readonly PropertyKey[]): unknown {
  let current = value;
  for (const key of path) {
    if (Array.isArray(current) && typeof key === "number") current = current[key];
    else if (isTable(current) && Object.hasOwn(current, String(key))) current = current[String(key)];
    else return undefined;
  }
  return current;
}

/**
 * Sets the value at `path`, making tables on the way; a table laid over a table is merged into it.
 * Returns false, having changed nothing that counts, where something that is not a table stands in the way.
 */
export function set(root: Table, path: readonly string[], value: unknown): boolean {
  let current = root;
  for (const key of path.slice(0, -1)) {
    current[key] ??= emptyTable();
    const next = current[key];
    if (!isTable(next)) return false;
    current = next;
  }
  const last = path.at(-1)!;
  current[last] = merge(current[last], value);
  return true;
}

/** Freezes tables and lists all the way down and returns `value`. Instances of classes are left alone. */
export function deepFreeze<T>(value: T): T {
  if (!Array.isArray(value) && !isTable(value)) return value;
  if (Object.isFrozen(value)) return value;
  Object.freeze(value);
  for (const child of Object.values(value)) deepFreeze(child);
  return value;
}

/** Whether tables and lists nest deeper than `limit`. */
export function deeperThan(value: unknown, limit: number): boolean {
  if (!Array.isArray(value) && !isTable(value)) return false;
  if (limit === 0) return true;
  return Object.values(value).some((child) => deeperThan(child, limit - 1));
}

/** A key path as TOML writes it: bare where it can be, quoted (and with control characters escaped) where not. */
export function formatPath(path: readonly PropertyKey[]): string {
  return path
    .map((key, index) =>
      typeof key === "number" ? `[${key}]` : (index === 0 ? "" : ".") + formatKey(String(key)),
    )
    .join("");
}

export function formatKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : quote(key);
}

/** A TOML basic string that is safe to print on a terminal: control and bidirectional characters are escaped. */
export function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** "security.pii" → ["security", "pii"]. Section paths are written by plugins, in bare keys. */
export function splitPath(path: string): string[] {
  return path.split(".");
}
