/**
 * The requests of a recorded session: request n is everything before assistant message n. The text and the tool calls
 * are the recording's; system prompt and tool definitions are synthetic and constant, because a recording does not
 * carry them.
 */
import { SYSTEM_PROMPT, TOOLS, type ToolDefinition } from "./agent.ts";
import type { AssistantPart, InputMessage, SessionTurn } from "./session.ts";

export interface RequestOptions {
  /** Ask for a streamed reply. Default true: agents stream. */
  stream?: boolean;
  /** The model named in every request, so that a recording's model switch does not void the provider's cache. */
  model?: string;
  /** Anthropic only: breakpoints on the system prompt and on the last block, as coding agents set them. Default true. */
  cacheControl?: boolean;
  system?: string;
  tools?: readonly ToolDefinition[];
  /**
   * Begin where the agent's own compactions made it begin, with the summary; and ask to think as it asked. Default
   * false: the whole conversation, ever longer.
   */
  asRecorded?: boolean;
}

/** Request `n` (from 0) as the bytes of an Anthropic Messages body. */
export function anthropicRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "claude-opus-4-5", cacheControl = true } = options;
  const { system = SYSTEM_PROMPT, tools = TOOLS, asRecorded = false } = options;
  const messages: { role: string; content: Record<string, unknown>[] }[] = [];
  const add = (role: string, blocks: Record<string, unknown>[]): void => {
    if (blocks.length === 0) return;
    const last = messages.at(-1);
    // The API wants all results of one turn's tool calls, and the user's words after them, in one user message.
    if (last?.role === role) last.content.push(...blocks);
    else messages.push({ role, content: blocks });
  };
  walk(
    turns,
    n,
    asRecorded,
    (message) => {
      if (message.role === "user") add("user", message.texts.map(textBlock));
      else {
        add("user", [
          {
            type: "tool_result",
            tool_use_id: message.toolCallId,
            content: message.texts.length === 1 ? message.texts[0] : message.texts.map(textBlock),
            ...(message.isError ? { is_error: true } : {}),
          },
        ]);
      }
    },
    (parts) => add("assistant", parts.map(anthropicBlock)),
  );
  const breakpoint = { cache_control: { type: "ephemeral" } };
  const thinking = asRecorded ? THINKING_TOKENS[turns[n]!.thinking] : undefined;
  const lastBlock = messages.at(-1)?.content.at(-1);
  if (cacheControl && lastBlock !== undefined && lastBlock["type"] !== "thinking")
    Object.assign(lastBlock, breakpoint);
  return bytes({
    model,
    max_tokens: 32_000,
    system: [{ ...textBlock(system), ...(cacheControl ? breakpoint : {}) }],
    ...(tools.length > 0
      ? {
          tools: tools.map((t) => ({ name: t.name, description: t.description, input_schema: t.parameters })),
        }
      : {}),
    ...(thinking !== undefined ? { thinking: { type: "enabled", budget_tokens: thinking } } : {}),
    messages,
    stream,
  });
}

/** Budgets as agents set them for these words. */
const THINKING_TOKENS: Readonly<Record<string, number>> = {
  minimal: 1_024,
  low: 2_048,
  medium: 8_192,
  high: 16_384,
};

/** Request `n` (from 0) as the bytes of an OpenAI Chat Completions body; thinking has no place in it. */
export function openaiChatRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "gpt-5.6", system = SYSTEM_PROMPT, tools = TOOLS } = options;
  const { asRecorded = false } = options;
  const messages: Record<string, unknown>[] = [{ role: "system", content: system }];
  walk(
    turns,
    n,
    asRecorded,
    (message) => {
      const content = message.texts.join("\n");
      if (message.role === "user") messages.push({ role: "user", content });
      else messages.push({ role: "tool", tool_call_id: message.toolCallId, content });
    },
    (parts) => {
      const text = joinedText(parts);
      const calls = parts.flatMap((part) =>
        part.type === "toolCall"
          ? [
              {
                id: part.id,
                type: "function",
                function: { name: part.name, arguments: JSON.stringify(part.arguments) },
              },
            ]
          : [],
      );
      if (text === "" && calls.length === 0) return;
      messages.push({
        role: "assistant",
        content: text === "" ? null : text,
        ...(calls.length > 0 ? { tool_calls: calls } : {}),
      });
    },
  );
  return bytes({
    model,
    messages,
    ...(tools.length > 0 ? { tools: tools.map((tool) => ({ type: "function", function: tool })) } : {}),
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
  });
}

/** Request `n` (from 0) as the bytes of an OpenAI Responses body, stateless (`store: false`), without reasoning items. */
export function responsesRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "gpt-5.6", system = SYSTEM_PROMPT, tools = TOOLS } = options;
  const { asRecorded = false } = options;
  const input: Record<string, unknown>[] = [];
  walk(
    turns,
    n,
    asRecorded,
    (message) => {
      if (message.role === "user")
        input.push({ role: "user", content: message.texts.map((text) => ({ type: "input_text", text })) });
      else
        input.push({
          type: "function_call_output",
          call_id: message.toolCallId,
          output: message.texts.join("\n"),
        });
    },
    (parts) => {
      const text = joinedText(parts);
      if (text !== "") input.push({ role: "assistant", content: [{ type: "output_text", text }] });
      for (const part of parts) {
        if (part.type !== "toolCall") continue;
        const args = JSON.stringify(part.arguments);
        input.push({ type: "function_call", call_id: part.id, name: part.name, arguments: args });
      }
    },
  );
  return bytes({
    model,
    instructions: system,
    input,
    ...(tools.length > 0 ? { tools: tools.map((tool) => ({ type: "function", ...tool })) } : {}),
    store: false,
    stream,
  });
}

function walk(
  turns: readonly SessionTurn[],
  n: number,
  asRecorded: boolean,
  onInput: (message: InputMessage) => void,
  onReply: (parts: readonly AssistantPart[]) => void,
): void {
  const asked = turns[n];
  if (asked === undefined) throw new RangeError(`the session has no request ${n}: it has ${turns.length}`);
  const { summary, keptFrom } = (asRecorded ? asked.compaction : undefined) ?? WHOLE;
  if (summary !== undefined) onInput({ line: -1, role: "user", texts: [summary] });
  for (const turn of turns.slice(0, n + 1)) {
    for (const message of turn.input) if (message.line >= keptFrom) onInput(message);
    if (turn.index < n && turn.line >= keptFrom) onReply(turn.reply);
  }
}

const WHOLE = { summary: undefined, keptFrom: 0 } as const;

function anthropicBlock(part: AssistantPart): Record<string, unknown> {
  if (part.type === "text") return textBlock(part.text);
  if (part.type === "thinking")
    return { type: "thinking", thinking: part.thinking, signature: part.signature };
  return { type: "tool_use", id: part.id, name: part.name, input: part.arguments };
}

function textBlock(text: string): Record<string, unknown> {
  return { type: "text", text };
}

function joinedText(parts: readonly AssistantPart[]): string {
  return parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
}

function bytes(body: unknown): Buffer {
  return Buffer.from(JSON.stringify(body));
}
