import type { MockConfig } from "./schema.ts";

/** How one request is answered: the config, and over it what the model's name asks for. */
export interface Behaviour {
  readonly mode: MockConfig["mode"];
  /** Milliseconds until the head, and between the events of a stream. */
  readonly headDelayMs: number;
  readonly eventDelayMs: number;
  /** Pieces of a streamed text; 0: by its length. */
  readonly chunks: number;
  /** Size of the reply's transport chunks, whatever the events' bounds; 0: one an event. */
  readonly chunkBytes: number;
  /** Fail at once with this status; 0: do not. */
  readonly failStatus: number;
  /** Break off in the middle of the body. */
  readonly failsMidstream: boolean;
  /** Report an overload inside a 200, as the first event. */
  readonly isOverloaded: boolean;
}

const SLOW_MS = 100;
const MAX_DELAY_MS = 3_600_000;

/**
 * Reads a name such as `mock-tools-slow-20ms-chunked-5`. Its words stand in any order; one that is not known says nothing, so
 * that any `mock-NAME` can be used as a model.
 */
export function behaviourOf(model: string, config: MockConfig): Behaviour {
  let { mode, chunks, head_delay_ms: headDelayMs, event_delay_ms: eventDelayMs } = config;
  let chunkBytes = 0;
  let failStatus = 0;
  let failsMidstream = false;
  let isOverloaded = false;
  const words = model.startsWith("mock-") ? model.slice("mock-".length).split("-") : [];
  for (const [index, word] of words.entries()) {
    const next = words[index + 1] ?? "";
    if (word === "echo" || word === "fixed" || word === "tools") mode = word;
    else if (word === "slow") headDelayMs = eventDelayMs = durationOf(next) ?? SLOW_MS;
    else if (word === "chunked") chunks = countOf(next) ?? chunks;
    else if (word === "bytes") chunkBytes = countOf(next) ?? 1;
    else if (word === "overloaded") isOverloaded = true;
    else if (word === "fail") {
      failsMidstream = next === "midstream";
      if (!failsMidstream) failStatus = /^[45]\d\d$/.test(next) ? Number(next) : 500;
    }
  }
  return { mode, headDelayMs, eventDelayMs, chunks, chunkBytes, failStatus, failsMidstream, isOverloaded };
}

function durationOf(word: string): number | undefined {
  const [, amount, unit] = /^(\d{1,7})(ms|s)$/.exec(word) ?? [];
  return amount === undefined
    ? undefined
    : Math.min(Number(amount) * (unit === "s" ? 1_000 : 1), MAX_DELAY_MS);
}

function countOf(word: string): number | undefined {
  return /^[1-9]\d{0,5}$/.test(word) ? Number(word) : undefined;
}

/** The names listed as its models: one for each behaviour. */
export const MODELS: readonly string[] = [
  "mock",
  "mock-echo",
  "mock-fixed",
  "mock-tools",
  "mock-slow",
  "mock-chunked-8",
  "mock-bytes-1",
  "mock-fail-429",
  "mock-fail-500",
  "mock-fail-529",
  "mock-fail-midstream",
  "mock-overloaded",
];
