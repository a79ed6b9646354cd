import { type Json, numberIn, objectOf, textIn } from "./json.ts";

const MAX_DEPTH = 8;
const MAX_TEXT = 80;
const MAX_ITEMS = 16;

/**
 * A value that follows a JSON Schema, the same every time: the first of a choice, the least number, and `text` where text is
 * asked for. Of an object the required members, or all where none is required.
 */
export function sampleOf(schema: unknown, text: string): unknown {
  return sample(schema, objectOf(schema) ?? {}, text.slice(0, MAX_TEXT), 0);
}

function sample(value: unknown, root: Json, text: string, depth: number): unknown {
  const schema = objectOf(value);
  if (schema === undefined || depth > MAX_DEPTH) return null;
  const inner = (part: unknown) => sample(part, root, text, depth + 1);
  if ("const" in schema) return schema["const"];
  for (const key of ["enum", "examples"]) {
    const choices = schema[key];
    if (Array.isArray(choices) && choices.length > 0) return choices[0];
  }
  if ("default" in schema) return schema["default"];
  if (typeof schema["$ref"] === "string") return inner(resolve(schema["$ref"], root));
  for (const key of ["anyOf", "oneOf"]) if (Array.isArray(schema[key])) return inner(schema[key][0]);
  if (Array.isArray(schema["allOf"])) return inner(Object.assign({}, ...schema["allOf"].map(objectOf)));
  switch (typeOf(schema)) {
    case "object":
      return Object.fromEntries(membersOf(schema).map(([name, part]) => [name, inner(part)]));
    case "array": {
      const least = Math.min(numberIn(schema["minItems"]) ?? 1, MAX_ITEMS);
      return objectOf(schema["items"]) === undefined
        ? []
        : Array.from({ length: least }, () => inner(schema["items"]));
    }
    case "number":
    case "integer":
      return numberOf(schema);
    case "boolean":
      return true;
    case "null":
      return null;
    default:
      return textOf(schema, text);
  }
}

function typeOf(schema: Json): string {
  const { type } = schema;
  const first = Array.isArray(type) ? type.find((one) => one !== "null") : type;
  if (typeof first === "string") return first;
  return objectOf(schema["properties"]) === undefined ? "string" : "object";
}

function membersOf(schema: Json): [string, unknown][] {
  const properties = Object.entries(objectOf(schema["properties"]) ?? {});
  const { required } = schema;
  return Array.isArray(required) && required.length > 0
    ? properties.filter(([name]) => required.includes(name))
    : properties;
}

function numberOf(schema: Json): number {
  const above = numberIn(schema["exclusiveMinimum"]);
  const least = numberIn(schema["minimum"]) ?? (above === undefined ? undefined : above + 1);
  return least ?? Math.min(1, numberIn(schema["maximum"]) ?? 1);
}

function textOf(schema: Json, text: string): string {
  if (schema["format"] === "date-time") return "2026-01-01T00:00:00Z";
  if (schema["format"] === "date") return "2026-01-01";
  if (schema["format"] === "uri") return "https://example.com/";
  const most = numberIn(schema["maxLength"]) ?? MAX_TEXT;
  const least = Math.min(numberIn(schema["minLength"]) ?? 0, MAX_TEXT);
  return (textIn(text) || "mock").slice(0, most).padEnd(least, ".");
}

/** A reference within the document: "#/$defs/name". */
function resolve(reference: string, root: Json): unknown {
  let value: unknown = root;
  for (const token of reference.replace(/^#\/?/, "").split("/")) {
    if (token !== "") value = objectOf(value)?.[token.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return value;
}
