/**
 * The requests of a recorded session: request n is everything before assistant message n. The text and the tool calls
 * are the recording's; system prompt and tool definitions are synthetic and constant, because a recording does not
 * carry them.
 */
import { SYSTEM_PROMPT, TOOLS, type ToolDefinition } from "./agent.ts";
import { listOf, once, pieceOf, withMember } from "./json-pieces.ts";
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
  const messages: { role: string; content: Block[] }[] = [];
  const add = (role: string, blocks: readonly Block[]): void => {
    if (blocks.length === 0) return;
    const last = messages.at(-1);
    // The API wants all results of one turn's tool calls, and the user's words after them, in one user message.
    if (last?.role === role) last.content.push(...blocks);
    else messages.push({ role, content: [...blocks] });
  };
  walk(
    turns,
    n,
    asRecorded,
    (message) => add("user", anthropicInput(message)),
    (parts) => add("assistant", anthropicReply(parts)),
  );
  const breakpoint = { cache_control: { type: "ephemeral" } };
  const thinking = asRecorded ? THINKING_TOKENS[turns[n]!.thinking] : undefined;
  const lastContent = messages.at(-1)?.content;
  const lastBlock = lastContent?.at(-1);
  if (cacheControl && lastBlock !== undefined && lastBlock["type"] !== "thinking")
    lastContent!.splice(-1, 1, { ...lastBlock, ...breakpoint });
  const body = {
    model,
    max_tokens: 32_000,
    system: [{ ...textBlock(system), ...(cacheControl ? breakpoint : {}) }],
    ...(tools.length > 0
      ? {
          tools: tools.map((t) => ({ name: t.name, description: t.description, input_schema: t.parameters })),
        }
      : {}),
    ...(thinking !== undefined ? { thinking: { type: "enabled", budget_tokens: thinking } } : {}),
    messages: null,
    stream,
  };
  const list = messages.map(({ role, content }) =>
    withMember({ role, content: null }, "content", listOf(content.map((block) => [pieceOf(block)]))),
  );
  return Buffer.concat(withMember(body, "messages", listOf(list)));
}

type Block = Record<string, unknown>;

const anthropicInput = once((message: InputMessage): readonly Block[] =>
  message.role === "user"
    ? message.texts.map(textBlock)
    : [
        {
          type: "tool_result",
          tool_use_id: message.toolCallId,
          content: message.texts.length === 1 ? message.texts[0] : message.texts.map(textBlock),
          ...(message.isError ? { is_error: true } : {}),
        },
      ],
);
const anthropicReply = once((parts: readonly AssistantPart[]): readonly Block[] => parts.map(anthropicBlock));

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
  const messages: Block[] = [{ role: "system", content: system }];
  walk(
    turns,
    n,
    asRecorded,
    (message) => messages.push(chatInput(message)),
    (parts) => messages.push(...chatReply(parts)),
  );
  const body = {
    model,
    messages: null,
    ...(tools.length > 0 ? { tools: tools.map((tool) => ({ type: "function", function: tool })) } : {}),
    stream,
    ...(stream ? { stream_options: { include_usage: true } } : {}),
  };
  return Buffer.concat(withMember(body, "messages", listOf(messages.map((message) => [pieceOf(message)]))));
}

const chatInput = once((message: InputMessage): Block => {
  const content = message.texts.join("\n");
  return message.role === "user"
    ? { role: "user", content }
    : { role: "tool", tool_call_id: message.toolCallId, content };
});
const chatReply = once((parts: readonly AssistantPart[]): readonly Block[] => {
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
  if (text === "" && calls.length === 0) return [];
  return [
    {
      role: "assistant",
      content: text === "" ? null : text,
      ...(calls.length > 0 ? { tool_calls: calls } : {}),
    },
  ];
});

/** Request `n` (from 0) as the bytes of an OpenAI Responses body, stateless (`store: false`), without reasoning items. */
export function responsesRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "gpt-5.6", system = SYSTEM_PROMPT, tools = TOOLS } = options;
  const { asRecorded = false } = options;
  const input: Block[] = [];
  walk(
    turns,
    n,
    asRecorded,
    (message) => input.push(responsesInput(message)),
    (parts) => input.push(...responsesReply(parts)),
  );
  const body = {
    model,
    instructions: system,
    input: null,
    ...(tools.length > 0 ? { tools: tools.map((tool) => ({ type: "function", ...tool })) } : {}),
    store: false,
    stream,
  };
  return Buffer.concat(withMember(body, "input", listOf(input.map((item) => [pieceOf(item)]))));
}

const responsesInput = once(
  (message: InputMessage): Block =>
    message.role === "user"
      ? { role: "user", content: message.texts.map((text) => ({ type: "input_text", text })) }
      : { type: "function_call_output", call_id: message.toolCallId, output: message.texts.join("\n") },
);
const responsesReply = once((parts: readonly AssistantPart[]): readonly Block[] => {
  const text = joinedText(parts);
  return [
    ...(text === "" ? [] : [{ role: "assistant", content: [{ type: "output_text", text }] }]),
    ...parts.flatMap((part) =>
      part.type === "toolCall"
        ? [
            {
              type: "function_call",
              call_id: part.id,
              name: part.name,
              arguments: JSON.stringify(part.arguments),
            },
          ]
        : [],
    ),
  ];
});

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
