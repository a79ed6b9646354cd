import { piecesOf } from "./answer.ts";
import { idFor } from "./identity.ts";
import type { Json } from "./json.ts";
import type { ReplyFacts, Wording } from "./reply.ts";
import { sse } from "./stream.ts";

/** Words answers as the Responses API does, with its whole sequence of events. */
export const responsesWording: Wording = {
  whole: (facts) => finished(facts),

  events(facts) {
    const { answer } = facts;
    const events: Buffer[] = [];
    const emit = (type: string, more: Json) =>
      events.push(sse(type, { type, sequence_number: events.length, ...more }));
    const begun = response(facts, { status: "in_progress", output: [], usage: null, completed_at: null });
    emit("response.created", { response: begun });
    emit("response.in_progress", { response: begun });
    if (answer.kind === "text") emitText(facts, answer.text, emit);
    else emitCall(facts, answer.args, answer.name, emit);
    emit(isCutShort(facts) ? "response.incomplete" : "response.completed", { response: finished(facts) });
    return events;
  },
};

type Emit = (type: string, more: Json) => void;

function emitText(facts: ReplyFacts, text: string, emit: Emit): void {
  const item = outputItem(facts, "in_progress");
  const at = { item_id: item["id"], output_index: 0, content_index: 0 };
  const part = { type: "output_text", text, annotations: [], logprobs: [] };
  emit("response.output_item.added", { output_index: 0, item: { ...item, content: [] } });
  emit("response.content_part.added", { ...at, part: { ...part, text: "" } });
  for (const delta of piecesOf(text, facts.behaviour.chunks)) {
    emit("response.output_text.delta", { ...at, delta, logprobs: [] });
  }
  emit("response.output_text.done", { ...at, text, logprobs: [] });
  emit("response.content_part.done", { ...at, part });
  emit("response.output_item.done", { output_index: 0, item: outputItem(facts) });
}

function emitCall(facts: ReplyFacts, args: string, name: string, emit: Emit): void {
  const item = outputItem(facts, "in_progress");
  const at = { item_id: item["id"], output_index: 0 };
  emit("response.output_item.added", { output_index: 0, item: { ...item, arguments: "" } });
  for (const delta of piecesOf(args, facts.behaviour.chunks)) {
    emit("response.function_call_arguments.delta", { ...at, delta });
  }
  emit("response.function_call_arguments.done", { ...at, name, arguments: args });
  emit("response.output_item.done", { output_index: 0, item: outputItem(facts) });
}

function outputItem(facts: ReplyFacts, status = isCutShort(facts) ? "incomplete" : "completed"): Json {
  const { answer, body } = facts;
  if (answer.kind === "tool") {
    const { name, args } = answer;
    const id = idFor("fc_mock_", body);
    return { id, type: "function_call", status, call_id: idFor("call_mock_", body), name, arguments: args };
  }
  const content = [{ type: "output_text", text: answer.text, annotations: [], logprobs: [] }];
  return { id: idFor("msg_mock_", body), type: "message", role: "assistant", status, content };
}

function isCutShort({ answer }: ReplyFacts): boolean {
  return answer.kind === "text" && answer.end === "length";
}

function finished(facts: ReplyFacts): Json {
  const { cache, outputTokens, now } = facts;
  const input = cache.inputTokens + cache.readTokens + cache.write5mTokens;
  const isCut = isCutShort(facts);
  return response(facts, {
    status: isCut ? "incomplete" : "completed",
    completed_at: isCut ? null : Math.floor(now / 1_000),
    incomplete_details: isCut ? { reason: "max_output_tokens" } : null,
    output: [outputItem(facts)],
    usage: {
      input_tokens: input,
      input_tokens_details: {
        cached_tokens: cache.readTokens,
        cache_write_tokens: facts.reportsWrites ? cache.write5mTokens : 0,
      },
      output_tokens: outputTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: input + outputTokens,
    },
  });
}

function response({ body, json, prompt, now }: ReplyFacts, state: Json): Json {
  return {
    id: idFor("resp_mock_", body),
    object: "response",
    created_at: Math.floor(now / 1_000),
    background: false,
    error: null,
    incomplete_details: null,
    instructions: json["instructions"] ?? null,
    max_output_tokens: prompt.maxTokens ?? null,
    metadata: json["metadata"] ?? {},
    model: prompt.model,
    parallel_tool_calls: json["parallel_tool_calls"] ?? true,
    previous_response_id: json["previous_response_id"] ?? null,
    prompt_cache_key: json["prompt_cache_key"] ?? null,
    reasoning: json["reasoning"] ?? { effort: null, summary: null },
    service_tier: "default",
    store: json["store"] ?? true,
    temperature: json["temperature"] ?? 1,
    text: json["text"] ?? { format: { type: "text" } },
    tool_choice: json["tool_choice"] ?? "auto",
    tools: json["tools"] ?? [],
    top_p: json["top_p"] ?? 1,
    truncation: json["truncation"] ?? "disabled",
    ...state,
  };
}
