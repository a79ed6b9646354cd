import { piecesOf } from "./answer.ts";
import { idFor } from "./identity.ts";
import { type Json, objectOf } from "./json.ts";
import type { ReplyFacts, Wording } from "./reply.ts";
import { sse } from "./stream.ts";

/** Words answers as Chat Completions does. `n` is not honoured: there is one choice. */
export const chatWording: Wording = {
  whole: (facts) => ({
    ...completion(facts, "chat.completion"),
    choices: [{ index: 0, message: message(facts), logprobs: null, finish_reason: reason(facts) }],
    usage: chatUsage(facts),
  }),

  events(facts) {
    const { answer, behaviour, json } = facts;
    const includesUsage = objectOf(json["stream_options"])?.["include_usage"] === true;
    const head = completion(facts, "chat.completion.chunk");
    const chunk = (choices: readonly Json[], usage: Json | null) =>
      sse(undefined, { ...head, choices, ...(includesUsage && { usage }) });
    const delta = (inner: Json, finish: string | null = null) =>
      chunk([{ index: 0, delta: inner, logprobs: null, finish_reason: finish }], null);
    const deltas =
      answer.kind === "text"
        ? [
            delta({ role: "assistant", content: "", refusal: null }),
            ...piecesOf(answer.text, behaviour.chunks).map((content) => delta({ content })),
          ]
        : [
            delta({ role: "assistant", content: null, tool_calls: [{ index: 0, ...call(facts, "") }] }),
            ...piecesOf(answer.args, behaviour.chunks).map((args) =>
              delta({ tool_calls: [{ index: 0, function: { arguments: args } }] }),
            ),
          ];
    return [
      ...deltas,
      delta({}, reason(facts)),
      ...(includesUsage ? [chunk([], chatUsage(facts))] : []),
      sse(undefined, "[DONE]"),
    ];
  },
};

function completion({ body, prompt, now }: ReplyFacts, object: string): Json {
  return {
    id: idFor("chatcmpl-mock-", body),
    object,
    created: Math.floor(now / 1_000),
    model: prompt.model,
    service_tier: "default",
    system_fingerprint: "fp_mock",
  };
}

function message(facts: ReplyFacts): Json {
  const { answer } = facts;
  const content = answer.kind === "text" ? answer.text : null;
  const calls = answer.kind === "tool" ? { tool_calls: [call(facts, answer.args)] } : {};
  return { role: "assistant", content, refusal: null, annotations: [], ...calls };
}

function call({ answer, body }: ReplyFacts, args: string): Json {
  const name = answer.kind === "tool" ? answer.name : "";
  return { id: idFor("call_mock_", body), type: "function", function: { name, arguments: args } };
}

function reason({ answer }: ReplyFacts): string {
  if (answer.kind === "tool") return "tool_calls";
  return answer.end === "length" ? "length" : "stop";
}

function chatUsage({ cache, outputTokens, reportsWrites }: ReplyFacts): Json {
  const prompt = cache.inputTokens + cache.readTokens + cache.write5mTokens;
  const writes = reportsWrites ? { cache_write_tokens: cache.write5mTokens } : {};
  return {
    prompt_tokens: prompt,
    completion_tokens: outputTokens,
    total_tokens: prompt + outputTokens,
    prompt_tokens_details: { cached_tokens: cache.readTokens, audio_tokens: 0, ...writes },
    completion_tokens_details: {
      reasoning_tokens: 0,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}
