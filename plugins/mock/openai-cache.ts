import crypto from "node:crypto";
import { Chain } from "./chain.ts";
import { type Prompt, type PromptBlock, promptTokens } from "./prompt.ts";
import { type CachePlan, type PromptCache, uncached } from "./prompt-cache.ts";
import { bytesOf } from "./tokens.ts";

const FIRST_TOKENS = 1_024;
const STEP_TOKENS = 128;

export interface OpenAiCacheOptions {
  readonly minTokens: number;
  readonly ttlMs: number;
}

/**
 * OpenAI's rules: every prompt of 1,024 tokens or more is cached by itself, and found again in steps of 128 tokens.
 * `scope` holds what requests are routed by, besides their first tokens: the account and `prompt_cache_key`. Writes
 * are reported in `write5mTokens`.
 */
export function planOpenAi(
  prompt: Prompt,
  cache: PromptCache,
  scope: string,
  { minTokens, ttlMs }: OpenAiCacheOptions,
): CachePlan {
  const total = promptTokens(prompt);
  if (total < Math.max(minTokens, FIRST_TOKENS)) return uncached(total);
  const keys = boundaryKeys(prompt, scope);
  const hit = keys.findLastIndex((key) => cache.has(key));
  const tokensAt = (index: number) => (index < 0 ? 0 : FIRST_TOKENS + index * STEP_TOKENS);
  const read = tokensAt(hit);
  const written = tokensAt(keys.length - 1) - read;
  return {
    inputTokens: total - read - written,
    readTokens: read,
    write5mTokens: written,
    write1hTokens: 0,
    commit() {
      for (const key of keys) cache.put(key, ttlMs);
    },
  };
}

/** How far the keys of a prompt have come. */
interface Reached {
  /** What has come since the last key, that key included. */
  readonly since: readonly Buffer[];
  readonly tokens: number;
  /** Where the next key is due, in tokens. */
  readonly next: number;
  /** Those that the last block has brought. */
  readonly keys: readonly string[];
}
const boundaries = new Chain<Reached>();

/**
 * A key for each prefix of 1,024, 1,152, 1,280 … tokens, of all that stands before that token: a hash of the key before and
 * of what has come since.
 */
function boundaryKeys({ model, blocks, bytesPerToken }: Prompt, scope: string): string[] {
  const name = `openai\0${scope}\0${model}`;
  const keys: string[] = [];
  let reached = boundaries.root(`${bytesPerToken} ${name}`, () => ({
    since: [Buffer.from(name)],
    tokens: 0,
    next: FIRST_TOKENS,
    keys: [],
  }));
  for (const block of blocks) {
    const from = reached;
    reached = boundaries.step(from, block, () => after(from, block, bytesPerToken));
    for (const key of reached.keys) keys.push(key);
  }
  return keys;
}

function after(
  { since: before, tokens: begin, next: due }: Reached,
  { place, content, tokens, extraTokens }: PromptBlock,
  bytesPerToken: number,
): Reached {
  const keys: string[] = [];
  const bytes = Buffer.from(content);
  let since = [...before, Buffer.from(`\0${place}\0`)];
  let next = due;
  let done = 0;
  for (; next <= begin + tokens; next += STEP_TOKENS) {
    const until = Math.min(bytes.length, Math.max(done, bytesOf(next - begin - extraTokens, bytesPerToken)));
    since.push(bytes.subarray(done, until));
    done = until;
    const key = crypto.hash("sha256", Buffer.concat(since), "base64url");
    keys.push(key);
    since = [Buffer.from(key)];
  }
  since.push(bytes.subarray(done));
  return { since, tokens: begin + tokens, next, keys };
}
