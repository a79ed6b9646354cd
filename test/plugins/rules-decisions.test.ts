import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecisionMemory, rewritesOf, savingsOf } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  conversations,
  Random,
  rewriteProblems,
} from "@tokenman/plugin-sdk/testkit";
import { ANTHROPIC, OPENAI } from "../support/client-heads.ts";
import "../support/kernel.ts";
import {
  ALL,
  anthropic,
  assistant,
  CountingTokenizer,
  called,
  DENSE,
  SPACED,
  sent,
  start,
  user,
} from "../support/rules-world.ts";

describe("a decision", () => {
  it("is made once, by counted tokens, and noted", async () => {
    const tokenizer = new CountingTokenizer();
    await using run = await start({}, { tokenizer });
    const dear = '{ "a": 1, "dear": true }';
    tokenizer.answer = async (texts) =>
      texts.map(({ text }) => (text.includes("dear") ? 100 - text.length : text.length));
    const body = anthropic([user(SPACED, dear)]);
    const { upstream, exchange } = await run.send({ path: "/v1/messages", headers: ANTHROPIC, body });
    assert.ok(
      upstream[0]!.body.includes(JSON.stringify(DENSE)) && upstream[0]!.body.includes(JSON.stringify(dear)),
    );
    assert.deepEqual(savingsOf(exchange), [
      { kind: "compression", plugin: "rules", tokens: SPACED.length - DENSE.length, nanoUsd: undefined },
    ]);
    assert.equal(tokenizer.asked.length, 4);
    await sent(run, anthropic([user(SPACED, dear), assistant("ok"), user("on")]));
    assert.equal(tokenizer.asked.length, 4, "not counted again");
  });

  it("is to leave alone for good where nobody counts in time, also after a restart", async () => {
    const decisions = new DecisionMemory();
    const failing = new CountingTokenizer();
    failing.answer = () => Promise.reject(new Error("no threads"));
    const body = anthropic([user(SPACED)]);
    {
      await using run = await start({}, { decisions, tokenizer: failing });
      assertBytesEqual(await sent(run, body), JSON.stringify(body));
    }
    await using run = await start({}, { decisions });
    assertBytesEqual(await sent(run, body), JSON.stringify(body));
    assert.notEqual(
      String(await sent(run, anthropic([user(`${SPACED} `)]))),
      JSON.stringify(anthropic([user(`${SPACED} `)])),
    );
  });

  it("stays when the config changes: new rules are for new messages", async () => {
    const decisions = new DecisionMemory();
    const turns = [
      user("one   two"),
      assistant("ok   ok"),
      user("three   four"),
      assistant("ok"),
      user("five   six"),
    ];
    const expected = (count: number, from: number): string =>
      JSON.stringify(
        anthropic(
          turns
            .slice(0, count)
            .map((turn, index) =>
              index >= from && index % 2 === 0
                ? JSON.parse(JSON.stringify(turn).replaceAll("   ", " "))
                : turn,
            ),
        ),
      );
    {
      await using run = await start({}, { decisions });
      assert.equal(String(await sent(run, anthropic(turns.slice(0, 1)))), expected(1, 9));
    }
    {
      await using run = await start({ collapse_whitespace: true }, { decisions });
      assert.equal(String(await sent(run, anthropic(turns.slice(0, 3)))), expected(3, 2));
      assert.equal(String(await sent(run, anthropic(turns))), expected(5, 2));
    }
    // Switched off again, what was sent stays as it was sent.
    await using run = await start({}, { decisions });
    const more = [...turns, assistant("ok"), user("seven   eight")];
    const out = JSON.parse(String(await sent(run, anthropic(more)))) as { messages: unknown[] };
    assert.deepEqual(
      out.messages.slice(0, 5),
      (JSON.parse(expected(5, 2)) as { messages: unknown[] }).messages,
    );
    assert.deepEqual(out.messages[6], user("seven   eight"));
  });

  it("is not made for a session that may not be touched any more, and what was decided stays", async () => {
    let touch = "new";
    await using run = await start({}, { guard: { touch: () => touch } });
    const turns = [user(SPACED), assistant("ok"), user(`${SPACED} `), assistant("ok"), user(` ${SPACED}`)];
    const dense = (count: number) => JSON.stringify(anthropic([user(DENSE), ...turns.slice(1, count)]));
    const { exchange } = await run.send({
      path: "/v1/messages",
      headers: ANTHROPIC,
      body: anthropic(turns.slice(0, 1)),
    });
    assert.deepEqual(
      rewritesOf(exchange).map(({ knownTokens }) => knownTokens),
      [0],
    );
    touch = "known";
    assert.equal(String(await sent(run, anthropic(turns.slice(0, 3)))), dense(3));
    touch = "new";
    assert.equal(String(await sent(run, anthropic(turns))), dense(5), "left alone for good");
    touch = "none";
    assertBytesEqual(await sent(run, anthropic(turns)), JSON.stringify(anthropic(turns)));
  });

  it("is none for a subscription, nor for whoever asks for none", async () => {
    await using run = await start(ALL);
    const body = JSON.stringify(anthropic([user(SPACED, "a   b")]));
    assertBytesEqual(await sent(run, body, [...ANTHROPIC, "x-tokenman-nocompress", "true"]), body);
    assertBytesEqual(await sent(run, body, [...ANTHROPIC, "anthropic-beta", "oauth-2025-04-20"]), body);
  });
});

describe("the prefix", () => {
  it("stays the same over turns, a reload and a restart, in every dialect, with all rules", async () => {
    const texts = [
      SPACED,
      "a   b\n\n\n\n**c**  d",
      "warning: the same again\n".repeat(40),
      `${"QUJD".repeat(300)}`,
      "<a>\n  <b/>\n</a>",
    ];
    let changed = 0;
    for (const turns of conversations(36, { turns: 7, seed: 7, texts })) {
      const decisions = new DecisionMemory();
      const { dialect } = turns[0]!;
      let run = await start(ALL, { decisions });
      try {
        await assertPrefixStable(turns, async ({ number, path, body }) => {
          if (number === 3) assert.equal((await run.reload("test")).ok, true);
          if (number === 5) {
            await run.stop();
            run = await start(ALL, { decisions });
          }
          const out = await sent(run, body, dialect === "anthropic-messages" ? ANTHROPIC : OPENAI, path);
          assert.deepEqual(rewriteProblems(dialect, body, out), []);
          if (!out.equals(body)) changed++;
          return out;
        });
      } finally {
        for (const plugin of run.status().plugins)
          assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
        await run.stop();
      }
    }
    assert.ok(changed > 100, `${changed} were changed`);
  });
});

describe("odd requests", () => {
  it("pass, and never are a failure", async () => {
    await using run = await start(ALL);
    const many = Array.from({ length: 10_000 }, (_, index) => ({
      role: index % 2 ? "assistant" : "user",
      content: "m",
    }));
    const bodies: unknown[] = [
      Buffer.from('not json {"a": "{ }" '),
      Buffer.from('{"messages": [{"role":"user","content":"{ '),
      Buffer.from('{"messages": [{"role":"user","content":"[ \\q ]"}]}'),
      [],
      "null",
      { messages: [] },
      { messages: [null, 1, "x", []] },
      { messages: [{ role: "wizard", content: SPACED }] },
      {
        messages: [
          { role: "user" },
          { role: "user", content: null },
          { role: "user", content: [] },
          { role: "user", content: "" },
        ],
      },
      {
        messages: [
          { role: "user", content: [{ type: "hologram", text: SPACED }, null, 7, { type: "text" }] },
        ],
      },
      { messages: many },
      { system: 7, messages: [{ role: "user", content: `${"[".repeat(20_000)} ${"]".repeat(20_000)}` }] },
    ];
    const plain = new Set(
      bodies
        .slice(0, -1)
        .map((body) =>
          Buffer.isBuffer(body) ? String(body) : typeof body === "string" ? body : JSON.stringify(body),
        ),
    );
    for (const path of [
      "/v1/messages",
      "/v1/chat/completions",
      "/v1/responses",
      "/v1/embeddings",
      "/v1/other",
    ])
      for (const body of bodies) {
        const out = String(await sent(run, body, ANTHROPIC, path));
        if (!plain.has(out)) JSON.parse(out);
      }
    const random = new Random(3);
    const base = JSON.stringify(
      anthropic([user(SPACED, "a   b"), ...called("a", "bash", "x\n".repeat(300)), user("c   d")]),
    );
    for (let round = 0; round < 300; round++) {
      const at = random.below(base.length);
      const broken =
        base.slice(0, at) +
        random.pick(["", "{", '"', "]", "null", "\\", "\u0000"]) +
        base.slice(at + random.below(3));
      await sent(run, Buffer.from(broken));
    }
    for (const plugin of run.status().plugins)
      assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
  });
});
