import {
  parsedOf,
  recordOf,
  type SseEvent,
  stringOf,
  textOf,
  topLevelOf,
  type Usage,
  type UsageReader,
  usageCountOf,
} from "@tokenman/plugin-sdk";
import { isDone, mayEndResponses, responsesEventName } from "./events.ts";
import { quoted, quotedAt } from "./quoted.ts";

const WANTED: ReadonlySet<string> = new Set(["usage", "model", "service_tier", "output"]);
const NO_TOOLS: Readonly<Record<string, number>> = Object.freeze({});

/**
 * The figures of a `usage` object. OpenAI's prompt figures include the cached tokens and the written ones, so both are
 * taken out; a write lives for minutes and is billed like Anthropic's five-minute one.
 */
class Figures {
  #input = 0;
  #cacheRead = 0;
  #cacheWrite = 0;
  #output = 0;
  #reasoning = 0;
  #serviceTier: string | undefined;
  #model: string | undefined;
  #tools: Readonly<Record<string, number>> = NO_TOOLS;
  /** Tokens that have rates of their own, beside those of text. */
  #media: Readonly<Record<string, number>> = NO_TOOLS;
  isKnown = false;
  isComplete = false;

  named(model: string | undefined, serviceTier: string | undefined): void {
    this.#model = model ?? this.#model;
    this.#serviceTier = serviceTier ?? this.#serviceTier;
  }

  /** Each report is of the whole reply so far: it replaces the one before. */
  take(value: unknown): void {
    const usage = recordOf(value);
    if (usage === undefined) return;
    // Chat, embeddings and Responses name the same things differently.
    const prompt = usageCountOf(usage["prompt_tokens"]) ?? usageCountOf(usage["input_tokens"]);
    const output = usageCountOf(usage["completion_tokens"]) ?? usageCountOf(usage["output_tokens"]);
    if (prompt === undefined && output === undefined) return;
    const input = recordOf(usage["prompt_tokens_details"] ?? usage["input_tokens_details"]);
    const generated = recordOf(usage["completion_tokens_details"] ?? usage["output_tokens_details"]);
    const total = prompt ?? 0;
    const cached =
      usageCountOf(input?.["cached_tokens"]) ?? usageCountOf(usage["prompt_cache_hit_tokens"]) ?? 0;
    this.#cacheRead = Math.min(cached, total);
    this.#cacheWrite = Math.min(usageCountOf(input?.["cache_write_tokens"]) ?? 0, total - this.#cacheRead);
    this.#input = total - this.#cacheRead - this.#cacheWrite;
    const reasoning = usageCountOf(generated?.["reasoning_tokens"]) ?? 0;
    const hidden = hiddenOutput(usage["total_tokens"], total, output ?? 0, reasoning);
    this.#output = (output ?? 0) + hidden;
    this.#reasoning = Math.max(reasoning, hidden);
    this.#media = mediaOf(input, generated);
    this.isKnown = true;
  }

  usage(): Usage | undefined {
    if (!this.isKnown) return undefined;
    return {
      source: "provider",
      inputTokens: this.#input,
      cacheReadTokens: this.#cacheRead,
      cacheWrite5mTokens: this.#cacheWrite,
      cacheWrite1hTokens: 0,
      outputTokens: this.#output,
      reasoningTokens: this.#reasoning,
      serverTools: this.#media === NO_TOOLS ? this.#tools : Object.freeze({ ...this.#tools, ...this.#media }),
      serviceTier: this.#serviceTier,
      model: this.#model,
      complete: this.isComplete,
    };
  }

  /** The output items of a Responses reply, among them the uses of tools that OpenAI ran. */
  ran(items: readonly unknown[]): void {
    const uses = new Map<string, number>();
    for (const item of items) {
      const record = recordOf(item);
      const type = stringOf(record?.["type"]);
      if (record !== undefined && type !== undefined && isBilledCall(type, record))
        uses.set(`${type}s`, (uses.get(`${type}s`) ?? 0) + 1);
    }
    this.#tools = uses.size === 0 ? NO_TOOLS : Object.freeze(Object.fromEntries(uses));
  }

  body(body: Buffer, status: number): void {
    if (status < 200 || status > 299) return;
    const top = topLevelOf(body, WANTED);
    if (top === undefined) return;
    this.named(textOf(top.get("model")), textOf(top.get("service_tier")));
    this.take(parsedOf(top.get("usage")));
    const output = top.get("output");
    if (output !== undefined && output.kind === "array" && mentionsTool(body))
      this.ran(listOf(parsedOf(output)));
    this.isComplete = this.isKnown;
  }
}

/**
 * What was generated beside the output that the reply counts. Some servers leave their models' reasoning out of it, and bill
 * it as output all the same: xAI and Gemini's OpenAI endpoint, where only the total has it (docs.x.ai, "Reasoning";
 * ai.google.dev/gemini-api/docs/openai). More reasoning than output says the same. A total that is no count says nothing: the
 * counts that it should be the sum of are there without it.
 */
function hiddenOutput(total: unknown, prompt: number, output: number, reasoning: number): number {
  const told = usageCountOf(total);
  if (told !== undefined && told > prompt + output) return told - prompt - output;
  return reasoning > output ? reasoning : 0;
}

/** Calls that the client runs, or that cost nothing but tokens. Of any other one it is not known that it is free. */
const FREE_CALLS: ReadonlySet<string> = new Set([
  "function_call",
  "custom_tool_call",
  "computer_call",
  "local_shell_call",
  "apply_patch_call",
  "tool_search_call",
  "mcp_call",
]);

function isBilledCall(type: string, item: Readonly<Record<string, unknown>>): boolean {
  if (!type.endsWith("_call") || FREE_CALLS.has(type)) return false;
  // Opening a page and finding in one are calls of the same type, and free.
  if (type === "web_search_call") return (recordOf(item["action"])?.["type"] ?? "search") === "search";
  // Run by the client, or in a container of OpenAI's.
  if (type === "shell_call") return recordOf(item["environment"])?.["type"] !== "local";
  return true;
}

const CALL_END = Buffer.from('_call"');
const LONGEST_TYPE = 40;

/**
 * Whether a reply may hold the call of a billed tool: most do not, and need no parsing. In text the quotes are escaped, so
 * that only names and values of the reply itself are found.
 */
function mentionsTool(body: Buffer): boolean {
  for (let at = body.indexOf(CALL_END); at >= 0; at = body.indexOf(CALL_END, at + CALL_END.length)) {
    const before = body.toString("latin1", Math.max(0, at - LONGEST_TYPE), at + CALL_END.length - 1);
    if (!FREE_CALLS.has(before.slice(before.lastIndexOf('"') + 1))) return true;
  }
  return false;
}

/**
 * Speech that was heard or spoken, and pictures that were drawn, among the tokens: they are in the usage's totals, but the
 * rates of text are not theirs. Pictures that were looked at cost what text does.
 */
function mediaOf(
  input: Readonly<Record<string, unknown>> | undefined,
  output: Readonly<Record<string, unknown>> | undefined,
): Readonly<Record<string, number>> {
  const heard = usageCountOf(input?.["audio_tokens"]) ?? 0;
  const spoken = usageCountOf(output?.["audio_tokens"]) ?? 0;
  const drawn = usageCountOf(output?.["image_tokens"]) ?? 0;
  if (heard + spoken + drawn === 0) return NO_TOOLS;
  return {
    ...(heard !== 0 && { audio_input_tokens: heard }),
    ...(spoken !== 0 && { audio_output_tokens: spoken }),
    ...(drawn !== 0 && { image_output_tokens: drawn }),
  };
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Reads Chat Completions and Embeddings. A stream has usage only where the client asked with `include_usage`. */
export class ChatUsage implements UsageReader {
  readonly #figures = new Figures();
  #isFirst = true;

  /** Parses the first chunk, for the model's name, and those with figures: `"usage":null` is in every chunk. */
  event(event: SseEvent): void {
    if (event.oversize) return;
    if (isDone(event)) {
      this.#figures.isComplete = true;
      return;
    }
    if (!this.#isFirst && !hasFigures(event.raw)) return;
    const chunk = recordOf(event.json());
    if (chunk === undefined) return;
    this.#isFirst = false;
    this.#figures.named(stringOf(chunk["model"]), stringOf(chunk["service_tier"]));
    // Groq puts the figures one level down.
    this.#figures.take(chunk["usage"] ?? recordOf(chunk["x_groq"])?.["usage"]);
  }

  body(body: Buffer, status: number): void {
    this.#figures.body(body, status);
  }

  usage(): Usage | undefined {
    return this.#figures.usage();
  }
}

const USAGE = quoted("usage");
const COLON = 0x3a;
const N = 0x6e;

/** Whether some `"usage"` in a chunk is not null. */
function hasFigures(raw: Buffer): boolean {
  for (let at = quotedAt(raw, USAGE); at >= 0; at = quotedAt(raw, USAGE, at + 1)) {
    const next = at + USAGE.length;
    // As most servers write it.
    if (raw[next] === COLON && raw[next + 1] === N) continue;
    if (!/^\s*:\s*null/.test(raw.toString("latin1", next, next + 25))) return true;
  }
  return false;
}

const ENDS: ReadonlySet<string> = new Set(["response.completed", "response.incomplete", "response.failed"]);

/** Reads Responses: the event that ends a stream carries the whole response with its usage. */
export class ResponsesUsage implements UsageReader {
  readonly #figures = new Figures();

  event(event: SseEvent): void {
    if (event.oversize || !mayEndResponses(event) || !event.hasData) return;
    if (!ENDS.has(responsesEventName(event))) return;
    const response = recordOf(recordOf(event.json())?.["response"]);
    this.#figures.named(stringOf(response?.["model"]), stringOf(response?.["service_tier"]));
    this.#figures.take(response?.["usage"]);
    this.#figures.ran(listOf(response?.["output"]));
    this.#figures.isComplete = true;
  }

  body(body: Buffer, status: number): void {
    this.#figures.body(body, status);
  }

  usage(): Usage | undefined {
    return this.#figures.usage();
  }
}
