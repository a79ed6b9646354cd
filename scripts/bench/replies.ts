/**
 * The fixed replies of the bench upstream, built once per process and known to both ends: the upstream sends these
 * bytes and the load generator compares with them. Which reply a request gets is written in its model name, since
 * that is the one thing every proxy passes on.
 */

export type BenchDialect = "openai" | "anthropic";

/** `events` 0 asks for one buffered JSON reply; else so many SSE events, `delayMs` apart (0: as fast as they go). */
export interface ReplySpec {
  events: number;
  delayMs: number;
}

export const BUFFERED: ReplySpec = { events: 0, delayMs: 0 };

export const PATHS: Record<BenchDialect, string> = {
  openai: "/v1/chat/completions",
  anthropic: "/v1/messages",
};

/** A model name that says which reply is wanted, e.g. `bench-e40-d5`. */
export function modelFor(spec: ReplySpec): string {
  return `bench-e${spec.events}-d${spec.delayMs}`;
}

const MODEL_PATTERN = /"bench-e(\d+)-d(\d+)"/;

/** Finds the model name of `modelFor` in the first bytes of a body; undefined where there is none. */
export function specIn(bodyStart: Buffer): ReplySpec | undefined {
  const match = MODEL_PATTERN.exec(bodyStart.toString("latin1", 0, Math.min(bodyStart.length, 256)));
  return match === null ? undefined : { events: Number(match[1]), delayMs: Number(match[2]) };
}

const WORDS = "The upload now waits for the drain event before it writes the next chunk of the file. ".repeat(
  8,
);

/** The buffered reply, about 1 KB with the provider's usage. */
export function bufferedReply(dialect: BenchDialect): Buffer {
  return Buffer.from(JSON.stringify(dialect === "openai" ? openaiReply() : anthropicReply()));
}

function openaiReply(): unknown {
  return {
    id: "chatcmpl-bench0000000000000001",
    object: "chat.completion",
    created: 1_767_225_600,
    model: "bench",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: WORDS, refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: openaiUsage(160),
    service_tier: "default",
    system_fingerprint: "fp_bench",
  };
}

function openaiUsage(completionTokens: number) {
  return {
    prompt_tokens: 512,
    completion_tokens: completionTokens,
    total_tokens: 512 + completionTokens,
    prompt_tokens_details: { cached_tokens: 256 },
    completion_tokens_details: { reasoning_tokens: 0 },
  };
}

function anthropicReply(): unknown {
  return {
    id: "msg_bench0000000000000001",
    type: "message",
    role: "assistant",
    model: "bench",
    content: [{ type: "text", text: WORDS }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: anthropicUsage(160),
  };
}

function anthropicUsage(outputTokens: number) {
  return {
    input_tokens: 256,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 256,
    output_tokens: outputTokens,
    service_tier: "standard",
  };
}

const streams = new Map<string, readonly Buffer[]>();

/** The streamed reply as its SSE events, `events` of them in all; at least 6. */
export function streamedReply(dialect: BenchDialect, events: number): readonly Buffer[] {
  if (events < 6) throw new RangeError(`a streamed reply has at least 6 events, not ${events}`);
  const key = `${dialect} ${events}`;
  const known = streams.get(key);
  if (known !== undefined) return known;
  const made = (dialect === "openai" ? openaiEvents(events) : anthropicEvents(events)).map((e) =>
    Buffer.from(e),
  );
  streams.set(key, made);
  return made;
}

function word(index: number): string {
  return WORDS.slice((index * 5) % 600, ((index * 5) % 600) + 5);
}

function openaiEvents(events: number): string[] {
  const chunk = (delta: unknown, finish: string | null) =>
    `data: ${JSON.stringify({
      id: "chatcmpl-bench0000000000000002",
      object: "chat.completion.chunk",
      created: 1_767_225_600,
      model: "bench",
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
      usage: null,
    })}\n\n`;
  const deltas = events - 4;
  return [
    chunk({ role: "assistant", content: "" }, null),
    ...Array.from({ length: deltas }, (_, index) => chunk({ content: word(index) }, null)),
    chunk({}, "stop"),
    `data: ${JSON.stringify({
      id: "chatcmpl-bench0000000000000002",
      object: "chat.completion.chunk",
      created: 1_767_225_600,
      model: "bench",
      choices: [],
      usage: openaiUsage(deltas),
    })}\n\n`,
    "data: [DONE]\n\n",
  ];
}

function anthropicEvents(events: number): string[] {
  const event = (data: { type: string } & Record<string, unknown>) =>
    `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
  const deltas = events - 5;
  return [
    event({
      type: "message_start",
      message: {
        id: "msg_bench0000000000000002",
        type: "message",
        role: "assistant",
        model: "bench",
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: anthropicUsage(1),
      },
    }),
    event({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }),
    ...Array.from({ length: deltas }, (_, index) =>
      event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: word(index) } }),
    ),
    event({ type: "content_block_stop", index: 0 }),
    event({
      type: "message_delta",
      delta: { stop_reason: "end_turn", stop_sequence: null },
      usage: { output_tokens: deltas },
    }),
    event({ type: "message_stop" }),
  ];
}
