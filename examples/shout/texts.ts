import type { JsonNode } from "@tokenman/plugin-sdk";

/**
 * Where the text of an answer stands, in the order of the document: the strings that a reader is shown, and none of
 * tool calls, thinking or identifiers. The same functions serve an event of a stream and a whole body, as the vendors
 * put the same objects into both.
 */
const byDialect: Readonly<Record<string, (root: JsonNode) => (JsonNode | undefined)[]>> = {
  // {"content":[{"type":"text","text":…}]}, {"type":"content_block_delta","delta":{"type":"text_delta","text":…}}
  "anthropic-messages": (root) =>
    [...items(root.get("content")), root.get("content_block"), root.get("delta")].map((part) =>
      ["text", "text_delta"].includes(textOf(part?.get("type")) ?? "") ? part?.get("text") : undefined,
    ),
  // {"choices":[{"message":{"content":…}}]}, {"choices":[{"delta":{"content":…}}]}
  "openai-chat": (root) =>
    items(root.get("choices")).flatMap((choice) => [
      choice.get("message")?.get("content"),
      choice.get("delta")?.get("content"),
    ]),
  // {"output":[{"content":[{"type":"output_text","text":…}]}]}, and its parts in events as they come and are done
  "openai-responses": (root) => {
    const type = textOf(root.get("type")) ?? "";
    const messages = [...items((root.get("response") ?? root).get("output")), root.get("item")];
    const parts = [...messages.flatMap((message) => items(message?.get("content"))), root.get("part")];
    return [
      ...(type === "response.output_text.delta" ? [root.get("delta")] : []),
      ...(type === "response.output_text.done" ? [root.get("text")] : []),
      ...parts.map((part) => (textOf(part?.get("type")) === "output_text" ? part?.get("text") : undefined)),
    ];
  },
};

/** The places of an answer's text in a body or an event of that dialect; none for one that is not known here. */
export function textsIn(dialect: string, root: JsonNode): JsonNode[] {
  const found = byDialect[dialect]?.(root) ?? [];
  return found.filter((node) => node?.kind === "string") as JsonNode[];
}

function items(node: JsonNode | undefined): readonly JsonNode[] {
  return node?.items() ?? [];
}

function textOf(node: JsonNode | undefined): string | undefined {
  return node?.kind === "string" ? node.text() : undefined;
}
