import crypto from "node:crypto";
import { Chain } from "./chain.ts";
import type { CacheTtl, Prompt } from "./prompt.ts";
import { promptTokens } from "./prompt.ts";
import { type CachePlan, type PromptCache, uncached } from "./prompt-cache.ts";

const TTL_MS: Readonly<Record<CacheTtl, number>> = { "5m": 300_000, "1h": 3_600_000 };

/** How many positions are looked at for each breakpoint, itself the first (Anthropic's page on prompt caching). */
const LOOK_BACK = 20;

/**
 * Anthropic's rules: entries exist only at breakpoints; what is read is the longest prefix that has one, looked for from
 * each breakpoint backwards; what lies between it and the last breakpoint is written, up to the last one-hour
 * breakpoint for an hour. `scope` keeps the caches of different accounts apart. A change of the model, of a tool or of
 * the system text changes all that comes after it; other settings of the messages change the messages.
 */
export function planAnthropic(
  prompt: Prompt,
  cache: PromptCache,
  scope: string,
  minTokens: number,
): CachePlan {
  const total = promptTokens(prompt);
  const { keys, sums } = prefixesOf(prompt, scope);
  const breakpoints = prompt.blocks.flatMap(({ breakpoint }, index) =>
    breakpoint === undefined || sums[index]! < minTokens ? [] : [{ index, ttl: breakpoint }],
  );
  const last = breakpoints.at(-1);
  if (last === undefined) return uncached(total);

  let hit = -1;
  for (const { index } of breakpoints) {
    for (let at = index; at > hit && at > index - LOOK_BACK; at--)
      if (cache.has(keys[at]!)) hit = Math.max(hit, at);
  }
  const read = hit < 0 ? 0 : sums[hit]!;
  const written = breakpoints.filter(({ index }) => index > hit);
  const upTo = (ttl: CacheTtl) => sums[written.findLast((one) => one.ttl === ttl)?.index ?? -1] ?? 0;
  const write1h = Math.max(0, upTo("1h") - read);
  const write5m = Math.max(0, upTo("5m") - read - write1h);
  return {
    inputTokens: total - read - write1h - write5m,
    readTokens: read,
    write5mTokens: write5m,
    write1hTokens: write1h,
    commit() {
      // A read renews the entry, with the time that the request's next breakpoint asks for.
      if (hit >= 0)
        cache.put(keys[hit]!, TTL_MS[(breakpoints.find(({ index }) => index >= hit) ?? last).ttl]);
      for (const { index, ttl } of breakpoints)
        if (index > hit || cache.has(keys[index]!)) cache.put(keys[index]!, TTL_MS[ttl]);
    },
  };
}

/** A prefix of a prompt: its key, and its tokens. */
interface Prefix {
  readonly key: string;
  readonly sum: number;
}
const prefixes = new Chain<Prefix>();

/** For each block the key of the prefix that ends with it, and the tokens in that prefix. */
function prefixesOf(
  { model, blocks, messageScope }: Prompt,
  scope: string,
): { keys: string[]; sums: number[] } {
  const keys: string[] = [];
  const sums: number[] = [];
  const name = `anthropic\0${scope}\0${model}`;
  let prefix = prefixes.root(name, () => ({ key: hashOf(name), sum: 0 }));
  let inMessages = false;
  for (const block of blocks) {
    const { place, content, tokens } = block;
    if (!inMessages && !/^(?:tool|system)\//.test(place)) {
      inMessages = true;
      const { key, sum } = prefix;
      const scoped = `${key}${messageScope}`;
      prefix = prefixes.root(scoped, () => ({ key: scoped, sum }));
    }
    const { key, sum } = prefix;
    prefix = prefixes.step(prefix, block, () => ({
      key: hashOf(`${key}\0${place}\0${content}`),
      sum: sum + tokens,
    }));
    keys.push(prefix.key);
    sums.push(prefix.sum);
  }
  return { keys, sums };
}

function hashOf(text: string): string {
  return crypto.hash("sha256", text, "base64url");
}
