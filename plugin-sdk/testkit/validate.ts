import { isDeepStrictEqual } from "node:util";
import { type Json, listOf, objectOf, type Problem, Problems, textOf } from "./problems.ts";
import { checkChat } from "./validate-chat.ts";
import { checkMessages } from "./validate-messages.ts";
import { checkResponses } from "./validate-responses.ts";
import type { VendorDialect } from "./vendor-reply.ts";

export type { Problem } from "./problems.ts";

const CHECKS: Readonly<Record<VendorDialect, (body: Json, problems: Problems) => void>> = {
  "anthropic-messages": checkMessages,
  "openai-chat": checkChat,
  "openai-responses": checkResponses,
};

/**
 * What the vendor's API would refuse a request for, as far as a proxy that rewrites requests could be to blame: roles,
 * calls and their results, cache breakpoints, empty content. Empty for a valid request. Not the names of models, nor the
 * schemas of tools.
 */
export function requestProblems(dialect: VendorDialect, body: Buffer): readonly Problem[] {
  const problems = new Problems();
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch (error) {
    problems.add("", `is not JSON: ${error instanceof Error ? error.message : String(error)}`);
    return problems.found;
  }
  const json = objectOf(value);
  if (json === undefined) problems.add("", "is not an object");
  else CHECKS[dialect](json, problems);
  return problems.found;
}

/**
 * What a rewrite broke: problems of `sent` that `original` does not have, of whatever place, and sealed blocks (thinking,
 * encrypted reasoning) that were changed, or left out without everything that stood before them.
 */
export function rewriteProblems(dialect: VendorDialect, original: Buffer, sent: Buffer): readonly Problem[] {
  const known = new Map<string, number>();
  for (const { message } of requestProblems(dialect, original))
    known.set(message, (known.get(message) ?? 0) + 1);
  const found = requestProblems(dialect, sent).filter(({ message }) => {
    const left = known.get(message) ?? 0;
    known.set(message, left - 1);
    return left <= 0;
  });
  return [...found, ...sealedProblems(dialect, original, sent)];
}

/** The tool results of a request by the id of their call: text, or parts as JSON. Results of the same id are joined. */
export function toolResults(dialect: VendorDialect, body: Buffer): ReadonlyMap<string, string> {
  const results = new Map<string, string>();
  const add = (id: unknown, content: unknown): void => {
    const text = typeof content === "string" ? content : JSON.stringify(content ?? null);
    results.set(textOf(id), (results.get(textOf(id)) ?? "") + text);
  };
  for (const { value } of itemsIn(dialect, body)) {
    if (value["type"] === "tool_result") add(value["tool_use_id"], value["content"]);
    else if (value["role"] === "tool") add(value["tool_call_id"], value["content"]);
    else if (/_call_output$/.test(textOf(value["type"]))) add(value["call_id"], value["output"]);
  }
  return results;
}

/** A cut takes the oldest away: what is left must be the newest ones, as they were. */
function sealedProblems(dialect: VendorDialect, original: Buffer, sent: Buffer): readonly Problem[] {
  const problems = new Problems();
  let before: readonly Item[];
  let after: readonly Item[];
  try {
    before = itemsIn(dialect, original).filter(isSealed);
    after = itemsIn(dialect, sent).filter(isSealed);
  } catch {
    return [];
  }
  if (after.length > before.length) problems.add("", "has more sealed blocks than the original");
  const kept = before.slice(before.length - Math.min(after.length, before.length));
  after.slice(after.length - kept.length).forEach(({ pointer, value }, index) => {
    if (!isDeepStrictEqual(value, kept[index]!.value)) problems.add(pointer, "a sealed block was changed");
  });
  return problems.found;
}

interface Item {
  readonly pointer: string;
  readonly value: Json;
}

/** Content blocks of Messages, messages of Chat, items of Responses. Throws SyntaxError. */
function itemsIn(dialect: VendorDialect, body: Buffer): readonly Item[] {
  const json = objectOf(JSON.parse(body.toString("utf8"))) ?? {};
  const holder = dialect === "openai-responses" ? "input" : "messages";
  const items = listOf(json[holder]).flatMap((value, index): Item[] => {
    const object = objectOf(value);
    return object === undefined ? [] : [{ pointer: `/${holder}/${index}`, value: object }];
  });
  if (dialect !== "anthropic-messages") return items;
  return items.flatMap(({ pointer, value: { content } }) =>
    listOf(content).flatMap((block, index): Item[] => {
      const object = objectOf(block);
      return object === undefined ? [] : [{ pointer: `${pointer}/content/${index}`, value: object }];
    }),
  );
}

function isSealed({ value }: Item): boolean {
  const { type } = value;
  if (type === "thinking" || type === "redacted_thinking" || type === "compaction") return true;
  return typeof value["encrypted_content"] === "string";
}
