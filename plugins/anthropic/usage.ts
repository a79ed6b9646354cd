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
import { eventName, isContentBlock } from "./events.ts";

const WANTED: ReadonlySet<string> = new Set(["usage", "model"]);

/**
 * Reads what a Messages reply billed. The figures of `message_delta` are cumulative: each one replaces what came
 * before, and null or absent ones leave it. Source: Anthropic's documentation of streaming and of the usage object.
 */
export class MessageUsage implements UsageReader {
  #isKnown = false;
  #isComplete = false;
  #input = 0;
  #cacheRead = 0;
  #cacheWrite5m = 0;
  #cacheWrite1h = 0;
  #output = 0;
  #thinking = 0;
  #serverTools: Readonly<Record<string, number>> = {};
  #beside: Beside = NOTHING_BESIDE;
  #serviceTier: string | undefined;
  #speed: string | undefined;
  #region: string | undefined;
  #model: string | undefined;

  event(event: SseEvent): void {
    if (event.oversize || isContentBlock(event) || !event.hasData) return;
    const name = eventName(event);
    if (name === "message_start") {
      const message = recordOf(recordOf(event.json())?.["message"]);
      this.#model = stringOf(message?.["model"]) ?? this.#model;
      this.#take(message?.["usage"]);
    } else if (name === "message_delta") this.#take(recordOf(event.json())?.["usage"]);
    else if (name === "message_stop") this.#isComplete = true;
  }

  body(body: Buffer, status: number): void {
    if (status < 200 || status > 299) return;
    const top = topLevelOf(body, WANTED);
    if (top === undefined) return;
    this.#model = textOf(top.get("model")) ?? this.#model;
    this.#take(parsedOf(top.get("usage")));
    this.#isComplete = this.#isKnown;
  }

  usage(): Usage | undefined {
    if (!this.#isKnown) return undefined;
    const beside = this.#beside;
    return {
      source: "provider",
      inputTokens: this.#input + beside.input,
      cacheReadTokens: this.#cacheRead + beside.cacheRead,
      cacheWrite5mTokens: this.#cacheWrite5m + beside.cacheWrite5m,
      cacheWrite1hTokens: this.#cacheWrite1h + beside.cacheWrite1h,
      outputTokens: this.#output + beside.output,
      reasoningTokens: this.#thinking,
      serverTools: Object.freeze({ ...this.#serverTools, ...beside.serverTools }),
      serviceTier: this.#serviceTier,
      ...(this.#speed !== undefined && { speed: this.#speed }),
      ...(this.#region !== undefined && { region: this.#region }),
      model: this.#model,
      complete: this.#isComplete,
    };
  }

  #take(value: unknown): void {
    const usage = recordOf(value);
    if (usage === undefined) return;
    this.#isKnown = true;
    this.#input = usageCountOf(usage["input_tokens"]) ?? this.#input;
    this.#cacheRead = usageCountOf(usage["cache_read_input_tokens"]) ?? this.#cacheRead;
    const writes = cacheWritesOf(usage, this.#cacheWrite1h);
    if (writes !== undefined) [this.#cacheWrite5m, this.#cacheWrite1h] = writes;
    this.#output = usageCountOf(usage["output_tokens"]) ?? this.#output;
    this.#thinking =
      usageCountOf(recordOf(usage["output_tokens_details"])?.["thinking_tokens"]) ?? this.#thinking;
    const serverTools = recordOf(usage["server_tool_use"]);
    if (serverTools !== undefined) this.#serverTools = countsOf(serverTools);
    if (Array.isArray(usage["iterations"])) this.#beside = besideOf(usage["iterations"]);
    this.#serviceTier = stringOf(usage["service_tier"]) ?? this.#serviceTier;
    this.#speed = stringOf(usage["speed"]) ?? this.#speed;
    this.#region = stringOf(usage["inference_geo"]) ?? this.#region;
  }
}

/**
 * Cache writes as [5 minutes, 1 hour]. `cache_creation` splits them; without it (in `message_delta`) the total
 * alone is given, and the hour's part is what was known before.
 */
function cacheWritesOf(
  usage: Readonly<Record<string, unknown>>,
  known1h: number,
): [number, number] | undefined {
  const total = usageCountOf(usage["cache_creation_input_tokens"]);
  const split = recordOf(usage["cache_creation"]);
  const for5m = usageCountOf(split?.["ephemeral_5m_input_tokens"]);
  const for1h = usageCountOf(split?.["ephemeral_1h_input_tokens"]);
  if (for5m !== undefined || for1h !== undefined) {
    const hour = for1h ?? 0;
    return [Math.max(for5m ?? 0, (total ?? 0) - hour), hour];
  }
  if (total === undefined) return undefined;
  const hour = Math.min(known1h, total);
  return [total - hour, hour];
}

/** What `usage.iterations` bills beside the top-level figures. */
interface Beside {
  readonly input: number;
  readonly cacheRead: number;
  readonly cacheWrite5m: number;
  readonly cacheWrite1h: number;
  readonly output: number;
  readonly serverTools: Readonly<Record<string, number>>;
}
const NOTHING_BESIDE: Beside = {
  input: 0,
  cacheRead: 0,
  cacheWrite5m: 0,
  cacheWrite1h: 0,
  output: 0,
  serverTools: {},
};

/**
 * Compaction runs on the same model and is left out of the top-level figures, so it is added here. An advisor runs on
 * another model at another price: its tokens are listed apart, among the server tools.
 */
function besideOf(iterations: readonly unknown[]): Beside {
  let { input, cacheRead, cacheWrite5m, cacheWrite1h, output } = NOTHING_BESIDE;
  let advisorInput = 0;
  let advisorOutput = 0;
  for (const item of iterations) {
    const iteration = recordOf(item);
    if (iteration === undefined) continue;
    const read = usageCountOf(iteration["cache_read_input_tokens"]) ?? 0;
    const [for5m, for1h] = cacheWritesOf(iteration, 0) ?? [0, 0];
    const fresh = usageCountOf(iteration["input_tokens"]) ?? 0;
    const generated = usageCountOf(iteration["output_tokens"]) ?? 0;
    if (iteration["type"] === "compaction") {
      input += fresh;
      cacheRead += read;
      cacheWrite5m += for5m;
      cacheWrite1h += for1h;
      output += generated;
    } else if (iteration["type"] === "advisor_message") {
      advisorInput += fresh + read + for5m + for1h;
      advisorOutput += generated;
    }
  }
  const serverTools =
    advisorInput + advisorOutput !== 0
      ? { advisor_input_tokens: advisorInput, advisor_output_tokens: advisorOutput }
      : {};
  return { input, cacheRead, cacheWrite5m, cacheWrite1h, output, serverTools };
}

function countsOf(record: Readonly<Record<string, unknown>>): Readonly<Record<string, number>> {
  const counts: [string, number][] = [];
  for (const [name, value] of Object.entries(record)) {
    // What else there may be beside the counts of tools: details, in objects, or words.
    if (typeof value !== "number" && !isNumeric(value)) continue;
    const count = usageCountOf(value)!;
    if (count !== 0) counts.push([name, count]);
  }
  return Object.fromEntries(counts);
}

/** Whether it is a number, written as a text. */
function isNumeric(value: unknown): boolean {
  return typeof value === "string" && /^\s*[-+.\d]/.test(value);
}
