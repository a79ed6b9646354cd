import { nearest, TokenmanError } from "@tokenman/plugin-sdk";
import { expectation, knownKeys, type Shape } from "./shape.ts";
import { copy, deeperThan, formatPath, get, isTable, MAX_DEPTH, type Table } from "./table.ts";

/** A setting that the environment gives. */
export interface EnvSetting {
  readonly variable: string;
  readonly path: readonly string[];
  readonly value: unknown;
}

export interface EnvReading {
  readonly settings: readonly EnvSetting[];
  readonly problems: readonly TokenmanError[];
  readonly warnings: readonly string[];
}

const PREFIX = "TOKENMAN_";

/**
 * Finds the setting that each `TOKENMAN_*` variable names and converts its text to what the setting takes. Existing
 * keys of `table` are preferred where a map's key could be read in several ways. What no setting fits is a warning,
 * unless it is a variable TokenMan knows, or one that the file refers to as `env:NAME`. No value shows in a message.
 */
export function readEnvironment(
  env: ReadonlyMap<string, string>,
  root: Shape,
  table: Table,
  isKnown: (variable: string) => boolean,
): EnvReading {
  const settings: EnvSetting[] = [];
  const problems: TokenmanError[] = [];
  const warnings: string[] = [];
  const referred = references(table);
  for (const [variable, text] of [...env].sort(([left], [right]) => (left < right ? -1 : 1))) {
    if (isKnown(variable) || referred.has(variable)) continue;
    const target = find(root, variable.slice(PREFIX.length).toLowerCase(), table);
    if (target === undefined || target.path.length === 0) {
      const near = nearest(variable, variablesOf(root, PREFIX));
      warnings.push(
        `the environment variable ${variable} names no setting and is ignored${near === undefined ? "" : ` (did you mean ${near}?)`}`,
      );
      continue;
    }
    const value = convert(text, target.shape);
    if (value === undefined || deeperThan(value, MAX_DEPTH)) {
      const found = text.trim() === "" ? "nothing" : "text that is not";
      problems.push(
        new TokenmanError(
          "TM_CONFIG_INVALID",
          `${formatPath(target.path)}: expected ${expectation(target.shape)}, found ${found}`,
          { place: { file: variable } },
        ),
      );
      continue;
    }
    settings.push({ variable, path: target.path, value });
  }
  // Whole tables first, so that a variable for one of their keys refines them.
  settings.sort((left, right) => left.path.length - right.path.length);
  return { settings, problems, warnings };
}

/** Variables that are read elsewhere: the config file's place, and the classic places of keys. */
export function isReservedVariable(variable: string): boolean {
  return variable === "TOKENMAN_CONFIG" || variable.startsWith("TOKENMAN_KEY_");
}

interface Target {
  readonly path: readonly string[];
  readonly shape: Shape;
  /** How many characters of the name were taken for the key of a map: the fewer, the surer. */
  readonly guessed: number;
}

function find(shape: Shape, rest: string, existing: unknown): Target | undefined {
  let best: Target | undefined;
  for (const target of targets(shape, rest, existing)) {
    if (best === undefined || target.guessed < best.guessed) best = target;
  }
  return best;
}

/** The ways to read `rest`, an underscored name, as a path below `shape`. */
function* targets(shape: Shape, rest: string, existing: unknown): Generator<Target> {
  if (rest === "") {
    yield { path: [], shape, guessed: 0 };
    return;
  }
  if (shape.kind === "union") {
    for (const option of shape.options) yield* targets(option, rest, existing);
    return;
  }
  if (shape.kind !== "table" && shape.kind !== "any") return;
  for (const [key, child] of shape.keys) yield* below(key, child, normalise(key), rest, existing, 0);
  const other = shape.kind === "any" ? shape : shape.rest;
  if (other === undefined) return;
  for (const key of isTable(existing) ? Object.keys(existing) : []) {
    if (!shape.keys.has(key)) yield* below(key, other, normalise(key), rest, existing, 0);
  }
  for (let at = rest.indexOf("_", 1); at !== -1 && other.kind !== "any"; at = rest.indexOf("_", at + 1)) {
    yield* below(rest.slice(0, at), other, rest.slice(0, at), rest, existing, at);
  }
  if (other.kind === "any" && shape.kind !== "any") {
    // A map of anything (plugins.configs): the first word is the key, the rest belongs to what is under it.
    const [word] = rest.split("_", 1);
    yield* below(word!, other, word!, rest, existing, word!.length);
    return;
  }
  yield* below(rest, other, rest, rest, existing, rest.length);
}

function* below(
  key: string,
  shape: Shape,
  name: string,
  rest: string,
  existing: unknown,
  guessed: number,
): Generator<Target> {
  if (name === "" || (rest !== name && !rest.startsWith(`${name}_`))) return;
  for (const target of targets(shape, rest.slice(name.length + 1), get(existing, [key]))) {
    yield { path: [key, ...target.path], shape: target.shape, guessed: guessed + target.guessed };
  }
}

function normalise(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]+/g, "_");
}

function* variablesOf(shape: Shape, prefix: string, depth = 0): Generator<string> {
  if (depth > 6) return;
  for (const key of knownKeys(shape)) {
    const name = prefix + normalise(key).toUpperCase();
    yield name;
    const child = shape.keys.get(key);
    if (child !== undefined) yield* variablesOf(child, `${name}_`, depth + 1);
  }
}

/** The variables that the file names as `env:NAME`. */
function references(value: unknown, found = new Set<string>()): ReadonlySet<string> {
  if (typeof value === "string" && value.startsWith("env:")) found.add(value.slice(4));
  if (Array.isArray(value) || isTable(value))
    for (const child of Object.values(value)) references(child, found);
  return found;
}

const BOOLEANS: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  "1": true,
  false: false,
  no: false,
  off: false,
  "0": false,
};

/** `text` as a value that `shape` takes; undefined where it is none. Ranges are the schema's business. */
function convert(text: string, shape: Shape): unknown {
  const trimmed = text.trim();
  switch (shape.kind) {
    case "text":
      return text;
    case "boolean":
      return Object.hasOwn(BOOLEANS, trimmed.toLowerCase()) ? BOOLEANS[trimmed.toLowerCase()] : undefined;
    case "integer":
      return /^[+-]?\d+(_\d+)*$/.test(trimmed) ? safe(Number(trimmed.replaceAll("_", ""))) : undefined;
    case "number":
      return /^[+-]?(\d+(_\d+)*)?(\.\d+)?(e[+-]?\d+)?$/i.test(trimmed) && /\d/.test(trimmed)
        ? safe(Number(trimmed.replaceAll("_", "")))
        : undefined;
    case "choice":
      return shape.choices.find((choice) => String(choice) === trimmed) ?? text;
    case "list":
      return convertList(trimmed, shape);
    case "table": {
      const value = parseJson(trimmed);
      return isTable(value) ? value : undefined;
    }
    case "union": {
      // Text takes everything, so it comes last.
      const ordered = [...shape.options].sort(
        (left, right) => Number(left.kind === "text") - Number(right.kind === "text"),
      );
      for (const option of ordered) {
        const value = convert(text, option);
        if (value !== undefined) return value;
      }
      return undefined;
    }
    case "any":
      return parseJson(trimmed) ?? text;
  }
}

function convertList(text: string, shape: Shape): unknown {
  if (text.startsWith("[")) {
    const value = parseJson(text);
    return Array.isArray(value) ? value : undefined;
  }
  const parts = text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  const item = shape.item;
  if (item === undefined) return parts;
  const values = parts.map((part) => convert(part, item));
  return values.includes(undefined) ? undefined : values;
}

function safe(value: number): number | undefined {
  return Number.isFinite(value) ? value : undefined;
}

function parseJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return value === null ? undefined : copy(value);
  } catch {
    return undefined;
  }
}
