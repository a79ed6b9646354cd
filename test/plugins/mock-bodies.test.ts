import assert from "node:assert/strict";
import { test } from "node:test";
import { conversation } from "@tokenman/plugin-sdk/testkit";
import { planAnthropic } from "../../plugins/mock/anthropic-cache.ts";
import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { Bodies } from "../../plugins/mock/bodies.ts";
import type { Json } from "../../plugins/mock/json.ts";
import { planOpenAi } from "../../plugins/mock/openai-cache.ts";
import { readOpenAi } from "../../plugins/mock/openai-prompt.ts";
import { PromptCache } from "../../plugins/mock/prompt-cache.ts";

const DIALECTS = ["anthropic-messages", "openai-chat", "openai-responses"] as const;

function* growing(seeds: number): Generator<{ dialect: (typeof DIALECTS)[number]; body: Buffer }> {
  for (const dialect of DIALECTS)
    for (let seed = 1; seed <= seeds; seed++)
      for (const { body } of conversation({ dialect, seed, turns: 12 })) yield { dialect, body };
}

test("bodies are read as JSON.parse reads them, turn after turn, interleaved, cut and changed", () => {
  const bodies = new Bodies();
  let read = 0;
  const same = (body: Buffer): void => {
    assert.deepEqual(bodies.read(body), JSON.parse(body.toString("utf8")));
    read++;
  };
  const earlier: Buffer[] = [];
  for (const { body } of growing(6)) {
    same(body);
    const text = body.toString("utf8");
    // A word in the middle becomes a longer one: what stands behind it has moved.
    same(Buffer.from(text.replace(/"role":"user"/, '"role": "user","extra":[1,{"a":2}]')));
    same(body);
    const before = earlier[(read * 7) % Math.max(1, earlier.length)];
    if (before !== undefined) same(before);
    earlier.push(body);
  }
  assert.ok(earlier.some((body) => body.length > 16_384));
});

test("members named twice, __proto__, and numbers next to each other are read as JSON.parse reads them", () => {
  const bodies = new Bodies();
  const long = JSON.stringify("x".repeat(9_000));
  for (const tail of ["[1,2,3]", "[1,2,34]", "[12,3]", "[1,2,3", "[1,,2]", '["\\x"]', "[]", "[1,2,3]}"]) {
    for (const text of [
      `{"a":${long},"n":${tail}}`,
      `{"n":[9],"a":${long},"__proto__":{"x":1},"n":${tail}}`,
      `{"n":${tail},"a":[${long},1]}`,
    ]) {
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {
        assert.throws(() => bodies.read(Buffer.from(text)));
        continue;
      }
      assert.deepEqual(bodies.read(Buffer.from(text)), expected);
    }
  }
});

test("what is billed of a turn does not depend on whether its values were known", () => {
  const bodies = new Bodies();
  const caches = [new PromptCache(() => 0), new PromptCache(() => 0)] as const;
  let reads = 0;
  for (const { dialect, body } of growing(4)) {
    const plans = caches.map((cache, index) => {
      const json = (index === 0 ? bodies.read(body) : JSON.parse(body.toString("utf8"))) as Json;
      return dialect === "anthropic-messages"
        ? planAnthropic(readAnthropic(json, 3.3), cache, "", 100)
        : planOpenAi(readOpenAi(json, 3.3), cache, "", { minTokens: 1_024, ttlMs: 300_000 });
    });
    for (const plan of plans) plan.commit();
    const [known, anew] = plans.map(({ commit: _, ...billed }) => billed);
    assert.deepEqual(known, anew);
    reads += known!.readTokens;
  }
  assert.ok(reads > 0);
});
