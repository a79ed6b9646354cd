import {
  countOf,
  parsedOf,
  recordOf,
  type SseEvent,
  stringOf,
  textOf,
  topLevelOf,
  type Usage,
  type UsageReader,
} from "@tokenman/plugin-sdk";
import { isDone, mayEndResponses, responsesEventName } from "./events.ts";

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
  #serverTools: Readonly<Record<string, number>> = NO_TOOLS;
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
    const prompt = countOf(usage["prompt_tokens"]) ?? countOf(usage["input_tokens"]);
    const output = countOf(usage["completion_tokens"]) ?? countOf(usage["output_tokens"]);
    if (prompt === undefined && output === undefined) return;
    const input = recordOf(usage["prompt_tokens_details"] ?? usage["input_tokens_details"]);
    const generated = recordOf(usage["completion_tokens_details"] ?? usage["output_tokens_details"]);
    const total = prompt ?? 0;
    const cached = countOf(input?.["cached_tokens"]) ?? countOf(usage["prompt_cache_hit_tokens"]) ?? 0;
    this.#cacheRead = Math.min(cached, total);
    this.#cacheWrite = Math.min(countOf(input?.["cache_write_tokens"]) ?? 0, total - this.#cacheRead);
    this.#input = total - this.#cacheRead - this.#cacheWrite;
    const reasoning = countOf(generated?.["reasoning_tokens"]) ?? 0;
    const hidden = hiddenOutput(usage["total_tokens"], total, output ?? 0, reasoning);
    this.#output = (output ?? 0) + hidden;
    this.#reasoning = Math.max(reasoning, hidden);
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
      serverTools: this.#serverTools,
      serviceTier: this.#serviceTier,
      model: this.#model,
      complete: this.isComplete,
    };
  }

  /** The output items of a Responses reply, among them the uses of tools that OpenAI ran. */
  ran(items: readonly unknown[]): void {
    let searches = 0;
    let fileSearches = 0;
    for (const item of items) {
      const record = recordOf(item);
      const type = record?.["type"];
      if (type === "file_search_call") fileSearches++;
      // Opening a page and finding in one are calls of the same type, and free.
      else if (type === "web_search_call")
        searches += (recordOf(record?.["action"])?.["type"] ?? "search") === "search" ? 1 : 0;
    }
    this.#serverTools = Object.freeze({
      ...(searches > 0 && { web_search_calls: searches }),
      ...(fileSearches > 0 && { file_search_calls: fileSearches }),
    });
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
 * ai.google.dev/gemini-api/docs/openai). More reasoning than output says the same.
 */
function hiddenOutput(total: unknown, prompt: number, output: number, reasoning: number): number {
  const told = countOf(total);
  if (told !== undefined && told > prompt + output) return told - prompt - output;
  return reasoning > output ? reasoning : 0;
}

/** Whether a reply may hold the call of a billed tool: most do not, and need no parsing. */
function mentionsTool(body: Buffer): boolean {
  return body.includes('"web_search_call"') || body.includes('"file_search_call"');
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

/** Whether some `"usage"` in a chunk is not null. The quoted word cannot occur in text, where quotes are escaped. */
function hasFigures(raw: Buffer): boolean {
  for (let at = raw.indexOf('"usage"'); at >= 0; at = raw.indexOf('"usage"', at + 1)) {
    if (!/^"usage"\s*:\s*null/.test(raw.toString("latin1", at, at + 32))) return true;
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
