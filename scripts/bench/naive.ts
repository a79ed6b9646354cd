/**
 * What is often sold as compression, to compare with: the newest messages only (and the first, which has the task), and runs
 * of white space collapsed, anew for each request and without a thought for the provider's cache. Its requests are
 * valid, which not all of those are.
 */
import { Bodies } from "../../plugins/mock/bodies.ts";
import { listOf, once, pieceOf, withMember } from "./json-pieces.ts";
import type { RecordedCall, ReplayDialect } from "./recorded-calls.ts";

type Json = Record<string, unknown>;

export function* naiveCalls(
  calls: Iterable<RecordedCall>,
  dialect: ReplayDialect,
  window: number,
): Generator<RecordedCall> {
  const bodies = new Bodies();
  for (const call of calls) yield { ...call, body: naive(bodies.read(call.body) as Json, dialect, window) };
}

function naive(json: Json, dialect: ReplayDialect, window: number): Buffer {
  const holder = dialect === "openai-responses" ? "input" : "messages";
  const items = json[holder] as Json[];
  const isSystem = items[0]?.["role"] === "system";
  const head = items.slice(0, isSystem ? 2 : 1);
  const kept = withoutOrphans([...head, ...tailOf(items.slice(head.length), window)], dialect);
  const list = listOf(kept.map((item) => [pieceOf(collapsed(item))]));
  return Buffer.concat(withMember(json, holder, list));
}

/** The newest ones, from the model's first turn among them on. */
function tailOf(items: readonly Json[], window: number): readonly Json[] {
  if (items.length <= window) return items;
  const tail = items.slice(-window);
  return tail.slice(
    Math.max(
      0,
      tail.findIndex((item) => item["role"] === "assistant" || item["type"] === "function_call"),
    ),
  );
}

/** Results go whose calls went. */
function withoutOrphans(items: readonly Json[], dialect: ReplayDialect): readonly Json[] {
  if (dialect === "anthropic-messages") return items;
  const made = new Set(
    items.flatMap((item) =>
      item["type"] === "function_call"
        ? [item["call_id"]]
        : ((item["tool_calls"] as Json[] | undefined) ?? []).map((call) => call["id"]),
    ),
  );
  return items.filter((item) => {
    const id =
      item["tool_call_id"] ?? (item["type"] === "function_call_output" ? item["call_id"] : undefined);
    return id === undefined || made.has(id);
  });
}

/** Texts for the model; names, ids, arguments of calls and signed thinking stay. */
const collapsed = once((item: Json): Json => ({ ...item, ...shortened(item) }));

function shortened(item: Json): Json {
  if (item["type"] === "thinking") return item;
  const changed: Json = {};
  for (const key of ["text", "content", "output"]) {
    const value = item[key];
    if (typeof value === "string")
      changed[key] = value.replace(/[ \t]+/g, " ").replace(/\s*\n\s*/g, "\n") || " ";
    else if (Array.isArray(value))
      changed[key] = value.map((part: Json) => ({ ...part, ...shortened(part) }));
  }
  return changed;
}
