/**
 * Reads a recorded agent session (JSON lines: `message` entries with roles user, assistant, toolResult and
 * bashExecution) as its model calls. The requests that the agent must have sent are built from them by requests.ts.
 */
import { readFileSync } from "node:fs";

export { anthropicRequest, openaiChatRequest, type RequestOptions, responsesRequest } from "./requests.ts";

export type AssistantPart =
  | { type: "text"; text: string }
  | { type: "thinking"; thinking: string; signature: string }
  | { type: "toolCall"; id: string; name: string; arguments: Record<string, unknown> };

export type InputMessage = {
  /** Which line of the recording it is, from 0. */
  line: number;
} & (
  | { role: "user"; texts: string[] }
  | { role: "toolResult"; toolCallId: string; texts: string[]; isError: boolean }
);

/** The agent replaced the older part of the conversation by a summary: what its requests begin with since then. */
export interface Compaction {
  readonly summary: string;
  /** The first line of the recording that was kept beside it. */
  readonly keptFrom: number;
}

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
  /** The line of the recording that has the answer, from 0. */
  readonly line: number;
  /** When the request was sent, and when its answer had come: milliseconds since the epoch, where the recording says so. */
  readonly sentAt: number | undefined;
  readonly endedAt: number | undefined;
  /** How hard the model was asked to think, in the agent's words; "off" is not at all. */
  readonly thinking: string;
  readonly compaction: Compaction | undefined;
  readonly input: readonly InputMessage[];
  readonly reply: readonly AssistantPart[];
  readonly model: string;
  readonly stopReason: string;
  readonly usage: BilledUsage;
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
  let thinking = "off";
  let compaction: Compaction | undefined;
  for (const [line, json] of text.split("\n").entries()) {
    if (json.trim() === "") continue;
    const place = `${name}:${line + 1}`;
    const entry = entryOf(json, place);
    const message = messageOf(entry, place);
    if (typeof entry["thinkingLevel"] === "string") thinking = entry["thinkingLevel"];
    if (entry["type"] === "compaction") compaction = compactionOf(entry, place);
    if (message === undefined) continue;
    if (message.role === "assistant") {
      const endedAt = timeOf(entry["timestamp"]);
      turns.push(turnOf(message, { index: turns.length, line, input, endedAt, thinking, compaction }, place));
      input = [];
    } else {
      const converted = inputOf(message, line, place);
      if (converted !== undefined) input.push(converted);
    }
  }
  return withoutUnanswered(turns);
}

type RawEntry = Record<string, unknown>;
type RawMessage = Record<string, unknown> & { role: string };

function entryOf(line: string, place: string): RawEntry {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch (error) {
    throw new Error(`${place}: not JSON`, { cause: error });
  }
  if (!isRecord(entry)) throw new Error(`${place}: expected an object`);
  return entry;
}

/** Other entries (session, model_change, …) say how the agent was run, not what it sent. */
function messageOf(entry: RawEntry, place: string): RawMessage | undefined {
  if (entry["type"] !== "message") return undefined;
  const message = entry["message"];
  if (!isRecord(message) || typeof message["role"] !== "string")
    throw new Error(`${place}: a message entry needs message.role`);
  return message as RawMessage;
}

function compactionOf({ summary, firstKeptEntryIndex }: RawEntry, place: string): Compaction {
  if (typeof summary !== "string" || typeof firstKeptEntryIndex !== "number")
    throw new Error(`${place}: a compaction needs summary and firstKeptEntryIndex`);
  return { summary, keptFrom: firstKeptEntryIndex };
}

/** Milliseconds since the epoch, of those or of a date. */
function timeOf(value: unknown): number | undefined {
  const ms = typeof value === "string" ? Date.parse(value) : value;
  return typeof ms === "number" && Number.isFinite(ms) ? ms : undefined;
}

function inputOf(message: RawMessage, line: number, place: string): InputMessage | undefined {
  if (message.role === "user") {
    const texts = textsOf(message["content"]);
    return texts.length > 0 ? { line, role: "user", texts } : undefined;
  }
  if (message.role === "toolResult") {
    const toolCallId = message["toolCallId"];
    if (typeof toolCallId !== "string") throw new Error(`${place}: a toolResult needs toolCallId`);
    return {
      line,
      role: "toolResult",
      toolCallId,
      texts: textsOf(message["content"]),
      isError: message["isError"] === true,
    };
  }
  // A command the user ran by hand reaches the model as the user's words.
  if (message.role === "bashExecution")
    return {
      line,
      role: "user",
      texts: [`Ran \`${String(message["command"])}\`:\n${String(message["output"])}`],
    };
  return undefined;
}

function turnOf(
  message: RawMessage,
  known: Pick<SessionTurn, "index" | "line" | "input" | "endedAt" | "thinking" | "compaction">,
  place: string,
): SessionTurn {
  const content = message["content"];
  if (!Array.isArray(content)) throw new Error(`${place}: an assistant message needs a content array`);
  const usage = isRecord(message["usage"]) ? message["usage"] : {};
  const cost = isRecord(usage["cost"]) ? usage["cost"]["total"] : undefined;
  return {
    ...known,
    sentAt: timeOf(message["timestamp"]),
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
