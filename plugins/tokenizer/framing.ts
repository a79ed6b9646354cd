import type { Exchange } from "@tokenman/plugin-sdk";

/**
 * Tokens that a provider adds around the pieces, in the encoding's tokens.
 *
 * OpenAI's are those of its cookbook ("How to count tokens with tiktoken"): 3 for each message and 1 for its role, 3 before
 * the reply, 12 after all tools; a call's name and id are taken to be 8.
 *
 * Anthropic publishes the prompt that tools add, 346 tokens with most models ("Tool use", pricing). A call and its result
 * add about 72 of its tokens, 58 of o200k's, as billed in a recorded session; a message 4.
 */
export function framing(exchange: Exchange): number {
  const rules = exchange.dialect?.format === "anthropic" ? ANTHROPIC : OPENAI;
  let lastMessage = -1;
  let messages = 0;
  let calls = 0;
  let tools = 0;
  for (const { message, kind } of exchange.segments) {
    if (message > lastMessage) {
      messages++;
      lastMessage = message;
    }
    if (kind === "tool-call") calls++;
    else if (kind === "tool-definition") tools++;
  }
  if (exchange.dialect?.name === "openai-embeddings") return 0;
  return rules.reply + messages * rules.message + calls * rules.call + (tools > 0 ? rules.tools : 0);
}

const OPENAI = { reply: 3, message: 4, call: 8, tools: 12 };
const ANTHROPIC = { reply: 3, message: 4, call: 58, tools: 280 };
