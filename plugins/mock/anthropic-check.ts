import { blocksOf, breakpointOf } from "./anthropic-prompt.ts";
import { type Json, numberIn, objectOf, objectsOf, textIn } from "./json.ts";
import { RequestError } from "./request-error.ts";

const MAX_BREAKPOINTS = 4;

/** Refuses what the Messages API refuses, so that a change that breaks a request shows without a real provider. */
export function checkAnthropic(body: Json, needsMaxTokens: boolean): void {
  if (textIn(body["model"]) === "") throw new RequestError("model: a value is required");
  const cap = numberIn(body["max_tokens"]);
  if (needsMaxTokens && cap === undefined) throw new RequestError("max_tokens: a value is required");
  if (cap !== undefined && (cap < 1 || !Number.isInteger(cap))) {
    throw new RequestError("max_tokens: must be a whole number of at least 1");
  }
  if (!Array.isArray(body["messages"])) throw new RequestError("messages: a list is required");
  if (body["messages"].length === 0) throw new RequestError("messages: at least one message is required");
  const messages = objectsOf(body["messages"]);
  for (const [index, message] of messages.entries()) checkMessage(message, `messages.${index}`);
  checkBreakpoints(body, messages);
  checkTools(messages);
}

function checkMessage(message: Json, at: string): void {
  const role = message["role"];
  if (role !== "user" && role !== "assistant" && role !== "system") {
    throw new RequestError(`${at}.role: must be "user", "assistant" or "system"`);
  }
  const { content } = message;
  if (typeof content !== "string" && !Array.isArray(content)) {
    throw new RequestError(`${at}.content: must be text or a list of blocks`);
  }
  for (const [index, block] of blocksOf(content).entries()) {
    if (typeof block["type"] !== "string")
      throw new RequestError(`${at}.content.${index}.type: a value is required`);
    const isThinking = block["type"] === "thinking" || block["type"] === "redacted_thinking";
    if (isThinking && objectOf(block["cache_control"]) !== undefined) {
      throw new RequestError(
        `${at}.content.${index}.${block["type"]}.cache_control: not permitted on thinking blocks`,
      );
    }
  }
}

/** At most four in all, and longer-lived ones before shorter-lived ones. */
function checkBreakpoints(body: Json, messages: readonly Json[]): void {
  const blocks = [
    ...objectsOf(body["tools"]),
    ...blocksOf(body["system"]),
    ...messages.flatMap((message) => blocksOf(message["content"])),
  ];
  const found = blocks.map(breakpointOf).filter((ttl) => ttl !== undefined);
  const automatic = objectOf(body["cache_control"]);
  if (automatic !== undefined) found.push(automatic["ttl"] === "1h" ? "1h" : "5m");
  if (found.length > MAX_BREAKPOINTS) {
    throw new RequestError(`at most ${MAX_BREAKPOINTS} blocks may have cache_control; found ${found.length}`);
  }
  if (found.lastIndexOf("1h") > found.indexOf("5m") && found.includes("5m")) {
    throw new RequestError('cache_control.ttl: a "1h" block must not come after a "5m" block');
  }
}

/** Every call is answered in the next message, and every answer has its call in the message before. */
function checkTools(messages: readonly Json[]): void {
  let open: ReadonlySet<string> = new Set();
  for (const [index, message] of messages.entries()) {
    const blocks = blocksOf(message["content"]);
    const answered = new Set<string>();
    for (const [position, block] of blocks.entries()) {
      if (block["type"] !== "tool_result") continue;
      const id = textIn(block["tool_use_id"]);
      if (!open.has(id)) {
        const at = `messages.${index}.content.${position}`;
        throw new RequestError(
          `${at}: the tool_result for ${JSON.stringify(id)} has no tool_use in the previous message`,
        );
      }
      answered.add(id);
    }
    const missing = [...open].filter((id) => !answered.has(id));
    if (missing.length > 0) {
      throw new RequestError(
        `messages.${index}: tool_use without a tool_result in the next message: ${missing.join(", ")}`,
      );
    }
    open = new Set(
      blocks.filter((block) => block["type"] === "tool_use").map((block) => textIn(block["id"])),
    );
  }
}
