import { type ConfigSchema, z } from "@tokenman/plugin-sdk";
import { isTable } from "./table.ts";

/**
 * What a schema takes, as far as it can be told from outside: the ground for unknown-key errors, for reading
 * environment variables, for "expected …" and for the example file. Made from the schema's JSON Schema.
 */
export interface Shape {
  readonly kind: "table" | "list" | "boolean" | "integer" | "number" | "text" | "choice" | "union" | "any";
  /** Tables: the named keys. */
  readonly keys: ReadonlyMap<string, Shape>;
  /** Tables: what every other key holds (a map); undefined where there must be none. */
  readonly rest: Shape | undefined;
  /** Lists: what each element is. */
  readonly item: Shape | undefined;
  /** Choices: the values. */
  readonly choices: readonly unknown[];
  /** Unions: the alternatives. */
  readonly options: readonly Shape[];
  readonly range: Range;
  readonly description: string | undefined;
  /** The default as the file would write it; undefined where there is none. */
  readonly fallback: unknown;
  readonly examples: readonly unknown[];
  /** `.meta({ secret: true })`: never shown. */
  readonly secret: boolean;
  /** `.meta({ path: true })`: `~` and relative paths are resolved. */
  readonly path: boolean;
}

export interface Range {
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  readonly below?: number;
}

type JsonSchema = Readonly<Record<string, unknown>>;

const MAX_NESTING = 12;
const blank = {
  keys: new Map<string, Shape>(),
  rest: undefined,
  item: undefined,
  choices: [],
  options: [],
  range: {},
  description: undefined,
  fallback: undefined,
  examples: [],
  secret: false,
  path: false,
} as const;

/** Takes anything. */
export const ANY: Shape = { ...blank, kind: "any" };
export const BOOLEAN: Shape = { ...blank, kind: "boolean" };

export function tableShape(keys: ReadonlyMap<string, Shape>, rest?: Shape): Shape {
  return { ...blank, kind: "table", keys, rest };
}

const cache = new WeakMap<object, Shape>();

/** The shape of a schema; ANY where it tells nothing about itself. A plugin without a schema takes no keys. */
export function shapeOf(schema: ConfigSchema | undefined): Shape {
  if (schema === undefined) return tableShape(new Map());
  let shape = cache.get(schema);
  if (shape === undefined) {
    const json = jsonSchemaOf(schema);
    shape = json === undefined ? ANY : fromJson(json, json, 0);
    cache.set(schema, shape);
  }
  return shape;
}

/** The JSON Schema of a schema's input; undefined where the library cannot give one. */
export function jsonSchemaOf(schema: ConfigSchema): JsonSchema | undefined {
  try {
    if ("_zod" in schema)
      return z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema;
    // https://standardschema.dev/json-schema: some libraries besides zod describe themselves this way.
    const standard = schema["~standard"] as {
      jsonSchema?: { input(options: { target: string }): JsonSchema };
    };
    return standard.jsonSchema?.input({ target: "draft-2020-12" });
  } catch {
    return undefined;
  }
}

function fromJson(json: unknown, root: JsonSchema, depth: number): Shape {
  if (!isTable(json) || depth > MAX_NESTING) return ANY;
  const node: JsonSchema = json;
  const more = { ...blank, ...annotations(node) };
  if (typeof node["$ref"] === "string") return { ...fromJson(resolve(node["$ref"], root), root, depth + 1) };
  const alternatives = node["anyOf"] ?? node["oneOf"];
  if (Array.isArray(alternatives)) {
    // TOML has no null, so an alternative that is only null cannot be written.
    const options = alternatives
      .filter((option) => !isTable(option) || option["type"] !== "null")
      .map((option) => fromJson(option, root, depth + 1));
    return options.length === 1
      ? { ...options[0]!, ...annotations(node) }
      : { ...more, kind: "union", options };
  }
  if (Array.isArray(node["allOf"])) {
    return {
      ...node["allOf"].map((part) => fromJson(part, root, depth + 1)).reduce(uniteShapes),
      ...annotations(node),
    };
  }
  if (Array.isArray(node["enum"])) return { ...more, kind: "choice", choices: node["enum"] };
  if (node["const"] !== undefined) return { ...more, kind: "choice", choices: [node["const"]] };
  const type = node["type"];
  if (Array.isArray(type)) {
    const options = type
      .filter((each) => each !== "null")
      .map((each) => fromJson({ ...node, type: each }, root, depth + 1));
    return options.length === 1 ? options[0]! : { ...more, kind: "union", options };
  }
  switch (type) {
    case "object": {
      const keys = new Map<string, Shape>();
      for (const [key, child] of Object.entries((node["properties"] as JsonSchema | undefined) ?? {})) {
        keys.set(key, fromJson(child, root, depth + 1));
      }
      // A zod object that is not strict says nothing about other keys; here they are unknown all the same.
      const extra = node["additionalProperties"];
      return {
        ...more,
        kind: "table",
        keys,
        rest: isTable(extra) ? fromJson(extra, root, depth + 1) : undefined,
      };
    }
    case "array": {
      const prefix = node["prefixItems"];
      const item = node["items"] || (Array.isArray(prefix) ? { anyOf: prefix } : undefined);
      return { ...more, kind: "list", item: fromJson(item, root, depth + 1) };
    }
    case "boolean":
      return { ...more, kind: "boolean" };
    case "integer":
      return { ...more, kind: "integer", range: rangeOf(node) };
    case "number":
      return { ...more, kind: "number", range: rangeOf(node) };
    case "string":
      return { ...more, kind: "text" };
    default:
      return { ...more, kind: "any" };
  }
}

function annotations(
  node: JsonSchema,
): Pick<Shape, "description" | "fallback" | "examples" | "secret" | "path"> {
  return {
    description: typeof node["description"] === "string" ? node["description"] : undefined,
    fallback: node["default"],
    examples: Array.isArray(node["examples"]) ? node["examples"] : [],
    secret: node["secret"] === true,
    path: node["path"] === true,
  };
}

function resolve(reference: string, root: JsonSchema): unknown {
  if (reference === "#") return root;
  const name = /^#\/\$defs\/(.+)$/.exec(reference)?.[1];
  return name === undefined ? undefined : (root["$defs"] as JsonSchema | undefined)?.[name];
}

function rangeOf(node: JsonSchema): Range {
  const bound = (key: string) => {
    const value = node[key];
    // zod writes the safe integers as the bounds of every integer; that is no bound worth naming.
    return typeof value === "number" && Math.abs(value) < Number.MAX_SAFE_INTEGER ? value : undefined;
  };
  const [min, max, above, below] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"].map(bound);
  return {
    ...(min !== undefined && { min }),
    ...(max !== undefined && { max }),
    ...(above !== undefined && { above }),
    ...(below !== undefined && { below }),
  };
}

/** What takes everything that either takes. Tables unite key by key: several plugins may share one section. */
export function uniteShapes(left: Shape, right: Shape): Shape {
  if (left.kind !== "table" || right.kind !== "table") return left.kind === "any" ? right : left;
  const keys = new Map(left.keys);
  for (const [key, shape] of right.keys) {
    const known = keys.get(key);
    keys.set(key, known === undefined ? shape : uniteShapes(known, shape));
  }
  return { ...left, keys, rest: left.rest ?? right.rest, description: left.description ?? right.description };
}

/** The shapes that the value under `key` may have: none where the key is unknown, several in a union. */
export function childShapes(shape: Shape, key: PropertyKey): Shape[] {
  switch (shape.kind) {
    case "any":
      return [ANY];
    case "union":
      return shape.options.flatMap((option) => childShapes(option, key));
    case "list":
      return typeof key === "number" && shape.item !== undefined ? [shape.item] : [];
    case "table": {
      const child = shape.keys.get(String(key)) ?? shape.rest;
      return child === undefined ? [] : [child];
    }
    default:
      return [];
  }
}

/** The shape at `path`, or undefined. */
export function shapeAt(shape: Shape, path: readonly PropertyKey[]): Shape | undefined {
  let current: Shape | undefined = shape;
  for (const key of path) {
    if (current === undefined) return undefined;
    const options: Shape[] = childShapes(current, key);
    current = options.length > 1 ? { ...blank, kind: "union", options } : options[0];
  }
  return current;
}

/** The keys a shape names. */
export function knownKeys(shape: Shape): string[] {
  if (shape.kind === "union") return shape.options.flatMap(knownKeys);
  return [...shape.keys.keys()];
}

/** "an integer from 0 to 65535", "true or false", "one of "a", "b"": what an error says was expected. */
export function expectation(shape: Shape): string {
  switch (shape.kind) {
    case "table":
      return "a table";
    case "list":
      return shape.item === undefined || shape.item.kind === "any"
        ? "a list"
        : `a list, each element ${expectation(shape.item)}`;
    case "boolean":
      return "true or false";
    case "integer":
      return `an integer${rangeText(shape.range)}`;
    case "number":
      return `a number${rangeText(shape.range)}`;
    case "text":
      return "text";
    case "choice":
      return shape.choices.length === 1
        ? JSON.stringify(shape.choices[0])
        : `one of ${shape.choices.map((choice) => JSON.stringify(choice)).join(", ")}`;
    case "union":
      return [...new Set(shape.options.map(expectation))].join(" or ");
    case "any":
      return "a value";
  }
}

function rangeText({ min, max, above, below }: Range): string {
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`;
  const parts: string[] = [];
  if (min !== undefined) parts.push(`of at least ${min}`);
  if (above !== undefined) parts.push(`above ${above}`);
  if (max !== undefined) parts.push(`of at most ${max}`);
  if (below !== undefined) parts.push(`below ${below}`);
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`;
}
