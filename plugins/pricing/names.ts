/** What is taken off a model's name, step by step, until a list knows it. */
const VENDOR_PREFIX = /^(?:models\/|publishers\/[^/]+\/models\/|[a-z][a-z0-9_.-]*\/)/;
const BEDROCK_PREFIX =
  /^(?:(?:global|us|us-gov|eu|apac|au|jp|ca|in)\.)?(?:anthropic|openai|meta|amazon|mistral|deepseek)\./;
/** `-v1:0` of Bedrock. */
const BEDROCK_SUFFIX = /-v\d+(?::\d+)?$/;
/** `-20251101` of Anthropic, `-2025-08-07` of OpenAI. */
const DATE = /-(?:20\d{6}|20\d{2}-\d{2}-\d{2})$/;
/** Claude Code's mark for the long context window. */
const WINDOW = /\[[0-9]+[km]\]$/;

/** Longer names are nobody's. */
const MAX_LENGTH = 256;

/**
 * Spellings of a model's name under which a list may know it, the most particular first: as it stands, then without a
 * vendor's or a gateway's prefix, Bedrock's frame, Vertex's `@`, `-latest`, and last without its date: a dated snapshot
 * that has no price of its own costs what its family costs.
 */
export function spellings(model: string): readonly string[] {
  if (model.length > MAX_LENGTH) return [];
  const found = new Set<string>();
  let name = model.trim().toLowerCase().replace(WINDOW, "");
  const keep = () => {
    if (name !== "") found.add(name);
  };
  keep();
  for (;;) {
    const shorter = name.replace(VENDOR_PREFIX, "");
    if (shorter === name || shorter === "") break;
    name = shorter;
    keep();
  }
  for (const [pattern, replacement] of [
    [BEDROCK_PREFIX, ""],
    [BEDROCK_SUFFIX, ""],
    [/@/, "-"],
    [/-(?:latest|default)$/, ""],
    [DATE, ""],
  ] as const) {
    name = name.replace(pattern, replacement);
    keep();
  }
  return [...found];
}

/** The name without prefixes and frames, its date kept. */
export function bareName(model: string): string {
  const names = spellings(model);
  const last = names.at(-1) ?? model;
  const before = names.at(-2);
  return before !== undefined && before !== last && before.replace(DATE, "") === last ? before : last;
}

/** The vendor that a name's prefix names: "anthropic" in "anthropic/claude-opus-4.5". */
export function prefixOf(model: string): string | undefined {
  const slash = model.indexOf("/");
  return slash > 0 && slash < 64 ? model.slice(0, slash).toLowerCase() : undefined;
}

/** The cloud whose way of naming models this is, as the catalogue calls it. */
export function cloudOf(model: string): string | undefined {
  const name = model.toLowerCase();
  if (BEDROCK_PREFIX.test(name)) return "aws";
  return name.includes("@") || name.startsWith("publishers/") ? "google" : undefined;
}

/**
 * Whether `name` is a later version than the entry it was found under: lists match by the beginning of the name, and
 * "claude-sonnet-5-5" is not "claude-sonnet-5".
 */
export function isAnotherVersion(name: string, entry: string): boolean {
  const base = entry.toLowerCase().replace(/-latest$/, "");
  return (
    name.startsWith(base) && /^[-.]\d{1,2}(?!\d)/.test(name.slice(base.length)) && !/^claude-2/.test(base)
  );
}
