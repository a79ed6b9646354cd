import type { BodyEnd } from "@tokenman/plugin-sdk";
import {
  type Attempt,
  type Candidate,
  type Dialect,
  type Exchange,
  type HookObserver,
  type Hooks,
  type JsonNode,
  type Outcome,
  type Provider,
  parseIndex,
  type Reply,
  type SegmentSpan,
} from "@tokenman/plugin-sdk";
import { AttemptState } from "../../../kernel/attempt.ts";
import { singleAttempt } from "../../../kernel/attempt-policy.ts";
import { ExchangeState } from "../../../kernel/exchange.ts";
import { recordTaps } from "../../../kernel/generation/taps.ts";
import { compilePipeline, type Pipeline, type PluginTaps } from "../../../kernel/hooks/pipeline.ts";
import { PluginHandle } from "../../../kernel/hooks/plugin-handle.ts";
import { KeyedHash } from "../../../kernel/keyed-hash.ts";
import { KernelReply } from "../../../kernel/reply/reply.ts";
import { ReceivedRequest } from "../../../kernel/request.ts";
import { memoryLog } from "./generations.ts";

/** A plugin of a pipeline under test: what it taps, and what it does about failures. */
export interface TestPlugin {
  readonly name: string;
  readonly onError?: "open" | "closed";
  readonly hookMs?: number;
  readonly tap: (hooks: Hooks) => void;
}

export interface TestPipeline {
  readonly pipeline: Pipeline;
  readonly handles: Readonly<Record<string, PluginHandle>>;
  readonly log: ReturnType<typeof memoryLog>;
}

/** A compiled pipeline of these plugins, in request order. */
export function pipelineOf(
  plugins: readonly TestPlugin[],
  observers: readonly HookObserver[] = [],
): TestPipeline {
  const log = memoryLog();
  const handles: Record<string, PluginHandle> = {};
  const taps = plugins.map(({ name, onError, hookMs, tap }): PluginTaps => {
    const handle = new PluginHandle({ name, onError, hookMs: hookMs ?? 60_000, log });
    handles[name] = handle;
    return recordTaps(handle, [(_, hooks) => tap(hooks)], undefined);
  });
  return { pipeline: compilePipeline(taps, observers), handles, log };
}

/** Every string of `/texts` is a segment; the ones that begin with "sealed" are signed. */
const dialect: Dialect = {
  name: "test",
  format: "test",
  routes: [],
  generates: false,
  describe: () => undefined,
  segments: (body) =>
    (parseIndex(body).find("/texts")?.items() ?? []).map(
      (node: JsonNode, index): SegmentSpan => ({
        pointer: `/texts/${index}`,
        role: "user",
        kind: "text",
        message: index,
        sealed: node.text().startsWith("sealed"),
        start: node.start,
        end: node.end,
      }),
    ),
  usageReader: () => ({ event() {}, body() {}, usage: () => undefined }),
  judgeEvent: () => ({ kind: "content" }),
  judgeError: () => ({ type: undefined, code: undefined, message: undefined, retryable: false }),
};

export interface TestExchange {
  readonly exchange: ExchangeState;
  /** How often the generation was given back. */
  released(): number;
}

export function exchangeOn(
  { pipeline }: Pick<TestPipeline, "pipeline">,
  body = '{"texts": ["one", "two"], "n": 1.0}',
  headers: readonly string[] = [],
): TestExchange {
  let released = 0;
  const bytes = Buffer.from(body);
  const sender = { method: "POST", socket: { remoteAddress: "127.0.0.1" } };
  const request = new ReceivedRequest(sender, "/v1/test", "/v1/test", "/v1/test", headers);
  void request.take(bytes, 0);
  const exchange = new ExchangeState({
    project: "default",
    request,
    dialect,
    format: undefined,
    home: {
      pipeline,
      policy: singleAttempt,
      maxResponseBytes: 0,
      streamIdleMs: 0,
      formats: [],
      hash: new KeyedHash(() => Buffer.alloc(32)),
      dialectFailed: () => {},
      release: () => {
        released++;
      },
    },
  });
  // As when the body is there and the request hook begins.
  exchange.answeredAt = Number.POSITIVE_INFINITY;
  return { exchange, released: () => released };
}

export function provider(name: string): Provider {
  return {
    name,
    format: "test",
    apiBase: undefined,
    models: [],
    priority: 0,
    timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
    auth: "none",
  };
}

export function candidate(name: string): Candidate {
  return { provider: provider(name), credential: { kind: "none" }, reason: "test" };
}

export function attemptOf(exchange: ExchangeState, name = "p"): AttemptState {
  const attempt = new AttemptState(exchange, exchange.attempts.length + 1, candidate(name), ["a", "1"]);
  exchange.attempts.push(attempt);
  return attempt;
}

/** A reply of a provider, with this body. */
export function replyOf(
  exchange: ExchangeState,
  attempt: AttemptState,
  body: string,
  headers: readonly string[] = ["content-type", "text/plain"],
): KernelReply {
  return KernelReply.answered({ status: 200, headers, body }, attempt, exchange.maxResponseBytes);
}

/** Runs a reply's body to its end. */
export async function read(reply: KernelReply): Promise<{ text: string; end: BodyEnd }> {
  const chunks: Buffer[] = [];
  const flow = reply.body();
  const { promise, resolve } = Promise.withResolvers<BodyEnd>();
  flow.whenDone(resolve);
  flow.start({ data: (chunk) => void chunks.push(chunk), end() {}, fail() {} });
  const end = await promise;
  return { text: Buffer.concat(chunks).toString(), end };
}

export const outcome: Outcome = {
  kind: "answered",
  status: 200,
  origin: "plugin",
  code: undefined,
  message: undefined,
  bytesSent: 0,
  durationMs: 0,
  firstByteMs: undefined,
};

export type { Attempt, Exchange, Reply };
