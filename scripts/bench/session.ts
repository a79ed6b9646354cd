/**
 * Reads a recorded agent session (JSON lines: `message` entries with roles user, assistant,
 * toolResult and bashExecution) and builds from it the requests the agent must have sent: request n
 * is everything before assistant message n. The text, the tool calls and the billed usage are the
 * recording's; system prompt and tool definitions are synthetic and constant, because a recording
 * does not carry them.
 */
import { readFileSync } from "node:fs";
import { SYSTEM_PROMPT, TOOLS, type ToolDefinition } from "./agent.ts";

export type AssistantPart =
  | { type: "text"; text: string }
  | { type: "thinking"; thinking: string; signature: string }
  | { type: "toolCall"; id: string; name: string; arguments: Record<string, unknown> };

export type InputMessage =
  | { role: "user"; texts: string[] }
  | { role: "toolResult"; toolCallId: string; texts: string[]; isError: boolean };

/** What the provider billed for one model call: tokens, and US dollars where the recording has them. */
export interface BilledUsage {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite: number;
  costUsd: number | undefined;
}

/** One model call: what came in since the previous call, and what the model answered. */
export interface SessionTurn {
  readonly index: number;
  readonly input: readonly InputMessage[];
  readonly reply: readonly AssistantPart[];
  readonly model: string;
  readonly stopReason: string;
  readonly usage: BilledUsage;
}

export interface RequestOptions {
  /** Ask for a streamed reply. Default true: agents stream. */
  stream?: boolean;
  /** The model named in every request, so that a recording's model switch does not void the provider's cache. */
  model?: string;
  /** Anthropic only: breakpoints on the system prompt and on the last block, as coding agents set them. Default true. */
  cacheControl?: boolean;
  system?: string;
  tools?: readonly ToolDefinition[];
}

/**
 * Returns the session's model calls in order.
 * @throws Error naming file and line where a line is not a JSON object or a message has no usable shape
 */
export function readSession(path: string): SessionTurn[] {
  return parseSession(readFileSync(path, "utf8"), path);
}

/** `readSession` on text in memory; `name` stands for the file in errors. */
export function parseSession(text: string, name: string): SessionTurn[] {
  const turns: SessionTurn[] = [];
  let input: InputMessage[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const place = `${name}:${index + 1}`;
    const message = messageOf(line, place);
    if (message === undefined) continue;
    if (message.role === "assistant") {
      turns.push(turnOf(message, turns.length, input, place));
      input = [];
    } else {
      const converted = inputOf(message, place);
      if (converted !== undefined) input.push(converted);
    }
  }
  return withoutUnanswered(turns);
}

/** Request `n` (from 0) as the bytes of an Anthropic Messages body. */
export function anthropicRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "claude-opus-4-5", cacheControl = true } = options;
  const { system = SYSTEM_PROMPT, tools = TOOLS } = options;
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
    messages,
    stream,
  });
}

/** Request `n` (from 0) as the bytes of an OpenAI Chat Completions body; thinking has no place in it. */
export function openaiChatRequest(
  turns: readonly SessionTurn[],
  n: number,
  options: RequestOptions = {},
): Buffer {
  const { stream = true, model = "gpt-5.6", system = SYSTEM_PROMPT, tools = TOOLS } = options;
  const messages: Record<string, unknown>[] = [{ role: "system", content: system }];
  walk(
    turns,
    n,
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
  const input: Record<string, unknown>[] = [];
  walk(
    turns,
    n,
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
  onInput: (message: InputMessage) => void,
  onReply: (parts: readonly AssistantPart[]) => void,
): void {
  if (turns[n] === undefined) throw new RangeError(`the session has no request ${n}: it has ${turns.length}`);
  for (const turn of turns.slice(0, n + 1)) {
    for (const message of turn.input) onInput(message);
    if (turn.index < n) onReply(turn.reply);
  }
}

type RawMessage = Record<string, unknown> & { role: string };

function messageOf(line: string, place: string): RawMessage | undefined {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch (error) {
    throw new Error(`${place}: not JSON`, { cause: error });
  }
  if (!isRecord(entry)) throw new Error(`${place}: expected an object`);
  // Other entries (session, model_change, compaction, …) say how the agent was run, not what it sent.
  if (entry["type"] !== "message") return undefined;
  const message = entry["message"];
  if (!isRecord(message) || typeof message["role"] !== "string")
    throw new Error(`${place}: a message entry needs message.role`);
  return message as RawMessage;
}

function inputOf(message: RawMessage, place: string): InputMessage | undefined {
  if (message.role === "user") {
    const texts = textsOf(message["content"]);
    return texts.length > 0 ? { role: "user", texts } : undefined;
  }
  if (message.role === "toolResult") {
    const toolCallId = message["toolCallId"];
    if (typeof toolCallId !== "string") throw new Error(`${place}: a toolResult needs toolCallId`);
    return {
      role: "toolResult",
      toolCallId,
      texts: textsOf(message["content"]),
      isError: message["isError"] === true,
    };
  }
  // A command the user ran by hand reaches the model as the user's words.
  if (message.role === "bashExecution")
    return { role: "user", texts: [`Ran \`${String(message["command"])}\`:\n${String(message["output"])}`] };
  return undefined;
}

function turnOf(message: RawMessage, index: number, input: InputMessage[], place: string): SessionTurn {
  const content = message["content"];
  if (!Array.isArray(content)) throw new Error(`${place}: an assistant message needs a content array`);
  const usage = isRecord(message["usage"]) ? message["usage"] : {};
  const cost = isRecord(usage["cost"]) ? usage["cost"]["total"] : undefined;
  return {
    index,
    input,
    reply: content.flatMap((part: unknown) => partOf(part)),
    model: String(message["model"] ?? ""),
    stopReason: String(message["stopReason"] ?? ""),
    usage: {
      input: tokens(usage["input"]),
      output: tokens(usage["output"]),
      cacheRead: tokens(usage["cacheRead"]),
      cacheWrite: tokens(usage["cacheWrite"]),
      costUsd: typeof cost === "number" ? cost : undefined,
    },
  };
}

function partOf(part: unknown): AssistantPart[] {
  if (!isRecord(part)) return [];
  if (part["type"] === "text" && typeof part["text"] === "string" && part["text"] !== "")
    return [{ type: "text", text: part["text"] }];
  // Thinking without its signature (an aborted call) is refused by the API, so an agent leaves it out.
  if (
    part["type"] === "thinking" &&
    typeof part["thinkingSignature"] === "string" &&
    part["thinkingSignature"] !== ""
  )
    return [{ type: "thinking", thinking: String(part["thinking"]), signature: part["thinkingSignature"] }];
  if (part["type"] === "toolCall" && typeof part["id"] === "string")
    return [
      {
        type: "toolCall",
        id: part["id"],
        name: String(part["name"]),
        arguments: isRecord(part["arguments"]) ? part["arguments"] : {},
      },
    ];
  return [];
}

/**
 * Drops tool calls that never got a result, and results without a call: either alone is a 400. It is decided over
 * the whole session, not per request, so that each request still starts with the one before it.
 */
function withoutUnanswered(turns: readonly SessionTurn[]): SessionTurn[] {
  const answered = new Set<string>();
  const called = new Set<string>();
  for (const turn of turns) {
    for (const message of turn.input) if (message.role === "toolResult") answered.add(message.toolCallId);
    for (const part of turn.reply) if (part.type === "toolCall") called.add(part.id);
  }
  return turns.map((turn) => ({
    ...turn,
    input: turn.input.filter((message) => message.role !== "toolResult" || called.has(message.toolCallId)),
    reply: turn.reply.filter((part) => part.type !== "toolCall" || answered.has(part.id)),
  }));
}

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

function textsOf(content: unknown): string[] {
  if (typeof content === "string") return [content];
  if (!Array.isArray(content)) return [];
  return content.flatMap((part: unknown) =>
    isRecord(part) && part["type"] === "text" && typeof part["text"] === "string" ? [part["text"]] : [],
  );
}

function tokens(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function bytes(body: unknown): Buffer {
  return Buffer.from(JSON.stringify(body));
}
