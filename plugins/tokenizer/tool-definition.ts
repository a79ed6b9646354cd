/** What is counted of a tool's definition: texts, and tokens that come on top of theirs. */
export interface ToolParts {
  readonly texts: readonly string[];
  readonly extra: number;
}

/** Schemas nest; nobody's definition nests deeper. */
const MAX_DEPTH = 16;

/**
 * A function's definition as OpenAI's models see it: not its JSON, but declarations made from it. Overheads are those of
 * OpenAI's cookbook ("How to count tokens with tiktoken", function calling, GPT-4o): 7 for a function, 3 for its
 * parameters, 3 for each of them, −3 + 3 for each value of an enum, 12 at the end of all (not here). Where there is no function in
 * the JSON, its text is counted as it stands.
 */
export function toolParts(json: string): ToolParts {
  try {
    const tool: unknown = JSON.parse(json);
    const definition = record(record(tool)?.["function"]) ?? record(tool);
    const name = definition?.["name"];
    if (definition === undefined || typeof name !== "string") return { texts: [json], extra: 0 };
    const texts = [`${name}:${sentence(definition["description"])}`];
    const schema = definition["parameters"] ?? definition["input_schema"];
    return { texts, extra: 7 + properties(schema, texts, 0) };
  } catch {
    return { texts: [json], extra: 0 };
  }
}

function properties(schema: unknown, texts: string[], depth: number): number {
  const members = Object.entries(record(record(schema)?.["properties"]) ?? {});
  if (members.length === 0 || depth > MAX_DEPTH) return 0;
  let extra = 3;
  for (const [key, value] of members) {
    const property = record(value) ?? {};
    const type = typeof property["type"] === "string" ? property["type"] : "";
    texts.push(`${key}:${type}:${sentence(property["description"])}`);
    extra += 3;
    if (Array.isArray(property["enum"])) {
      extra -= 3;
      for (const item of property["enum"]) {
        texts.push(String(item));
        extra += 3;
      }
    }
    extra += properties(property, texts, depth + 1) + properties(property["items"], texts, depth + 1);
  }
  return extra;
}

/** A description without its final full stop, which the declarations leave out. */
function sentence(value: unknown): string {
  return typeof value === "string" ? value.replace(/\.$/, "") : "";
}

function record(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}
