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

const WANTED: ReadonlySet<string> = new Set(["usage", "model", "service_tier", "status"]);

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
    this.#output = output ?? 0;
    this.#reasoning = countOf(generated?.["reasoning_tokens"]) ?? 0;
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
      serverTools: {},
      serviceTier: this.#serviceTier,
      model: this.#model,
      complete: this.isComplete,
    };
  }

  body(body: Buffer, status: number): void {
    if (status < 200 || status > 299) return;
    const top = topLevelOf(body, WANTED);
    if (top === undefined) return;
    this.named(textOf(top.get("model")), textOf(top.get("service_tier")));
    this.take(parsedOf(top.get("usage")));
    this.isComplete = this.isKnown;
  }
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
    this.#figures.isComplete = true;
  }

  body(body: Buffer, status: number): void {
    this.#figures.body(body, status);
  }

  usage(): Usage | undefined {
    return this.#figures.usage();
  }
}
