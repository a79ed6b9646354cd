import { type Json, textIn } from "./json.ts";
import { answeredBy, callsIn, itemsOf } from "./openai-prompt.ts";
import { RequestError } from "./request-error.ts";

/** Refuses what Chat Completions and Responses refuse, as far as a proxy could be to blame for it. */
export function checkOpenAi(body: Json, kind: "chat" | "responses"): void {
  if (textIn(body["model"]) === "") throw missing("model");
  const isChat = kind === "chat";
  if (isChat && body["messages"] === undefined && body["input"] === undefined) throw missing("messages");
  const holder = body["messages"] === undefined ? "input" : "messages";
  if (isChat && (body[holder] as { length?: number } | null)?.length === 0) {
    throw new RequestError(`${holder}: at least one is required`, { param: holder, code: "empty_array" });
  }
  const refersBack = body["previous_response_id"] ?? body["conversation"] ?? body["prompt"];
  if (!isChat && body["input"] === undefined && refersBack === undefined) throw missing("input");
  if (refersBack === undefined || refersBack === null) checkCalls(body, holder);
}

function checkCalls(body: Json, holder: string): void {
  const called = new Set<string>();
  const answered = new Set<string>();
  for (const [index, item] of itemsOf(body).entries()) {
    const id = answeredBy(item);
    if (id !== undefined && !called.has(id)) {
      throw new RequestError(
        `${holder}[${index}]: no tool call was found for the result of ${JSON.stringify(id)}`,
        {
          param: holder,
        },
      );
    }
    if (id !== undefined) answered.add(id);
    for (const call of callsIn(item)) called.add(call.id);
  }
  const open = [...called].filter((id) => !answered.has(id));
  if (open.length > 0) {
    throw new RequestError(`${holder}: no result was found for the tool calls ${open.join(", ")}`, {
      param: holder,
    });
  }
}

function missing(param: string): RequestError {
  return new RequestError(`the parameter ${param} is required`, {
    param,
    code: "missing_required_parameter",
  });
}
