import { piecesOf } from "./answer.ts";
import { idFor } from "./identity.ts";
import type { Json } from "./json.ts";
import type { ReplyFacts, Wording } from "./reply.ts";
import { sse } from "./stream.ts";

/** Words answers as the Messages API does. */
export const anthropicWording: Wording = {
  whole: (facts) => ({
    ...message(facts),
    content: [contentBlock(facts)],
    ...ending(facts),
    usage: usage(facts, facts.outputTokens),
  }),

  events(facts) {
    const { answer, behaviour } = facts;
    const block = contentBlock(facts);
    const event = (type: string, more: Json = {}) => sse(type, { type, ...more });
    const delta = (inner: Json) => event("content_block_delta", { index: 0, delta: inner });
    const deltas =
      answer.kind === "text"
        ? piecesOf(answer.text, behaviour.chunks).map((text) => delta({ type: "text_delta", text }))
        : piecesOf(answer.args, behaviour.chunks).map((partial_json) =>
            delta({ type: "input_json_delta", partial_json }),
          );
    const empty = answer.kind === "text" ? { ...block, text: "" } : { ...block, input: {} };
    return [
      event("message_start", {
        message: {
          ...message(facts),
          content: [],
          stop_reason: null,
          stop_sequence: null,
          usage: usage(facts, 1),
        },
      }),
      event("content_block_start", { index: 0, content_block: empty }),
      event("ping"),
      ...deltas,
      event("content_block_stop", { index: 0 }),
      event("message_delta", { delta: { ...ending(facts), container: null }, usage: cumulative(facts) }),
      event("message_stop"),
    ];
  },
};

function message({ body, prompt }: ReplyFacts): Json {
  return {
    id: idFor("msg_mock_", body),
    type: "message",
    role: "assistant",
    model: prompt.model,
    container: null,
    diagnostics: null,
    stop_details: null,
  };
}

function contentBlock({ answer, body }: ReplyFacts): Json {
  if (answer.kind === "text") return { type: "text", text: answer.text };
  const input: unknown = JSON.parse(answer.args);
  return {
    type: "tool_use",
    id: idFor("toolu_mock_", body),
    name: answer.name,
    input,
    caller: { type: "direct" },
  };
}

function ending({ answer }: ReplyFacts): Json {
  if (answer.kind === "tool") return { stop_reason: "tool_use", stop_sequence: null };
  const reason = { done: "end_turn", length: "max_tokens", stop: "stop_sequence" }[answer.end];
  return { stop_reason: reason, stop_sequence: answer.stop ?? null };
}

function usage({ cache }: ReplyFacts, outputTokens: number): Json {
  return {
    input_tokens: cache.inputTokens,
    cache_creation_input_tokens: cache.write5mTokens + cache.write1hTokens,
    cache_read_input_tokens: cache.readTokens,
    cache_creation: {
      ephemeral_5m_input_tokens: cache.write5mTokens,
      ephemeral_1h_input_tokens: cache.write1hTokens,
    },
    output_tokens: outputTokens,
    output_tokens_details: { thinking_tokens: 0 },
    server_tool_use: null,
    service_tier: "standard",
    inference_geo: null,
    speed: null,
  };
}

/** The figures of `message_delta`: totals again, without the split of the writes. */
function cumulative(facts: ReplyFacts): Json {
  const { input_tokens, cache_creation_input_tokens, cache_read_input_tokens, output_tokens } = usage(
    facts,
    facts.outputTokens,
  );
  return {
    input_tokens,
    cache_creation_input_tokens,
    cache_read_input_tokens,
    output_tokens,
    output_tokens_details: { thinking_tokens: 0 },
    server_tool_use: null,
  };
}
