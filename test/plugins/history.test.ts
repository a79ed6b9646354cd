import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Rewrite, savingsOf } from "@tokenman/plugin-sdk";
import {
  type Answer,
  assertBytesEqual,
  assertPrefixStable,
  conversations,
  Random,
  rewriteProblems,
  runPlugin,
} from "@tokenman/plugin-sdk/testkit";
import { historyPlugin } from "../../plugins/history/index.ts";
import { MARKER } from "../../plugins/history/windower.ts";
import { ANTHROPIC, OPENAI } from "../support/client-heads.ts";
import "../support/kernel.ts";
import {
  assistant,
  body,
  called,
  characters,
  chat,
  LONG,
  MINUTE_MS,
  send,
  start,
  user,
  world,
} from "../support/history-world.ts";

const MESSAGES_A_TURN = 4;

const marker = { role: "assistant", content: MARKER };
/** The conversation without what a cut at the beginning of `turn` leaves out. */
const cutAt = (messages: readonly object[], turn: number): object[] => [
  messages[0]!,
  marker,
  ...messages.slice(turn * MESSAGES_A_TURN),
];

/** What the provider says of its cache. */
const billed = (usage: object): Answer => ({
  status: 200,
  headers: ["Content-Type", "application/json"],
  body: JSON.stringify({ type: "message", model: "claude-test", usage: { output_tokens: 1, ...usage } }),
});

describe("a cut", () => {
  it("is made once there are more than twice as many turns, when the cache is cold, and then repeated", async () => {
    const on = world();
    await using run = await start(on);
    for (const turns of [1, 2, 3, 4]) {
      const sent = body(chat(turns));
      assertBytesEqual((await send(run, sent)).out, sent);
      on.at += 6 * MINUTE_MS;
    }
    const five = await send(run, body(chat(5)));
    assertBytesEqual(five.out, body(cutAt(chat(5), 3)));
    const saved = 8 * (LONG.length + '{"path":""}'.length);
    assert.equal(five.rewrites.length, 1);
    const [{ plugin, newTokens, knownTokens, breaksPrefix }] = five.rewrites as [Rewrite];
    assert.deepEqual(
      { plugin, newTokens, breaksPrefix },
      { plugin: "history", newTokens: 0, breaksPrefix: true },
    );
    assert.ok(knownTokens > saved && knownTokens < 12 * LONG.length, String(knownTokens));
    // The next turns begin as this one did, until there are twice as many again.
    for (const turns of [5, 6, 7]) {
      on.at += 6 * MINUTE_MS;
      const { out, rewrites } = await send(run, body(chat(turns)));
      assertBytesEqual(out, body(cutAt(chat(turns), 3)));
      assert.deepEqual(rewrites, [{ plugin: "history", newTokens: 0, knownTokens }]);
    }
    on.at += 6 * MINUTE_MS;
    assertBytesEqual((await send(run, body(chat(8)))).out, body(cutAt(chat(8), 6)));
  });

  it("waits while the cache is warm, until it pays by the provider's prices", async () => {
    const on = world();
    await using run = await start(on, 1);
    const warm = billed({ input_tokens: 5, cache_read_input_tokens: 5_000, cache_creation_input_tokens: 90 });
    let first = 0;
    for (let turns = 1; turns <= 40 && first === 0; turns++) {
      on.at += MINUTE_MS;
      const { out } = await send(run, body(chat(turns)), { answer: warm });
      if (String(out) !== body(chat(turns))) first = turns;
    }
    // Next to nothing is kept behind the cut: it pays as soon as one further turn may be expected.
    assert.equal(first, 3);
    const on2 = world();
    await using other = await start(on2, 4);
    const large = (count: number): object[] => {
      const messages = chat(count);
      messages.splice(-1, 1, user(`${LONG.repeat(60)}`));
      return messages;
    };
    for (let turns = 1; turns <= 12; turns++) {
      on2.at += MINUTE_MS;
      const sent = body(large(turns));
      assertBytesEqual((await send(other, sent, { answer: warm })).out, sent, `turn ${turns}`);
    }
  });

  it("is free where the provider cached nothing, or another model reads the conversation", async () => {
    const on = world();
    await using run = await start(on);
    await send(run, body(chat(4)), { answer: billed({ input_tokens: 5_000 }) });
    on.at += 1_000;
    assertBytesEqual((await send(run, body(chat(5)))).out, body(cutAt(chat(5), 3)));

    const on2 = world();
    await using other = await start(on2);
    const cached = billed({
      input_tokens: 5,
      cache_read_input_tokens: 4_000,
      cache_creation_input_tokens: 90,
    });
    const late = (turns: number): object[] => {
      const messages = chat(turns);
      messages.splice(-1, 1, user(LONG.repeat(60)));
      return messages;
    };
    await send(other, body(late(4)), { answer: cached });
    on2.at += 1_000;
    assertBytesEqual((await send(other, body(late(5)), { answer: cached })).out, body(late(5)));
    const changed = body(late(6), { model: "claude-other" });
    assertBytesEqual((await send(other, changed)).out, body(cutAt(late(6), 4), { model: "claude-other" }));
  });

  it("keeps to the lifetime that was written: an hour is not over after six minutes", async () => {
    const on = world();
    await using run = await start(on, 4);
    const hour = billed({
      input_tokens: 5,
      cache_read_input_tokens: 5_000,
      cache_creation_input_tokens: 90,
      cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 90 },
    });
    const large = (count: number): object[] => {
      const messages = chat(count);
      messages.splice(-1, 1, user(LONG.repeat(60)));
      return messages;
    };
    await send(run, body(large(8)), { answer: hour });
    on.at += 30 * MINUTE_MS;
    assertBytesEqual((await send(run, body(large(9)), { answer: hour })).out, body(large(9)));
    on.at += 61 * MINUTE_MS;
    assertBytesEqual((await send(run, body(large(10)))).out, body(cutAt(large(10), 6)));
  });

  it("is none of a conversation of which nothing is known: a provider may have it cached", async () => {
    const on = world();
    await using run = await start(on, 4);
    const messages = chat(9);
    messages.splice(-1, 1, user(LONG.repeat(60)));
    assertBytesEqual((await send(run, body(messages))).out, body(messages));
  });

  it("stays over a reload, a restart, and what the client changes in what is left out", async () => {
    const on = world();
    const five = body(cutAt(chat(5), 3));
    {
      await using run = await start(on);
      await send(run, body(chat(4)));
      on.at += 6 * MINUTE_MS;
      assertBytesEqual((await send(run, body(chat(5)))).out, five);
      assert.equal((await run.reload("test")).ok, true);
      on.at += MINUTE_MS;
      assertBytesEqual((await send(run, body(chat(5)))).out, five);
    }
    await using run = await start(on, 30);
    on.at += MINUTE_MS;
    assertBytesEqual((await send(run, body(chat(5)))).out, five);
    const cleared = chat(6);
    cleared[2] = {
      role: "user",
      content: [{ type: "tool_result", tool_use_id: "toolu_0", content: "[cleared]" }],
    };
    assertBytesEqual((await send(run, body(cleared))).out, body(cutAt(cleared, 3)));
    // A call that the rest needs: the request goes out whole.
    const torn = chat(6);
    torn[10] = user("no result");
    assertBytesEqual((await send(run, body(torn))).out, body(torn));
    // Another question at the place of the cut: nothing is known of this conversation's turns.
    const other = chat(6);
    other[12] = user("something else");
    assertBytesEqual((await send(run, body(other))).out, body(other));
  });

  it("knows a conversation by its opening, wherever the client puts its marks", async () => {
    const on = world();
    await using run = await start(on);
    const marked = (count: number, at: number): object[] =>
      chat(count).map((message, index) => {
        const { role, content } = message as { role: string; content: object[] };
        if (index !== at) return message;
        return {
          role,
          content: content.map((block) => ({ ...block, cache_control: { type: "ephemeral" } })),
        };
      });
    await send(run, body(marked(4, 0)));
    on.at += 6 * MINUTE_MS;
    assertBytesEqual((await send(run, body(marked(5, 16)))).out, body(cutAt(marked(5, 16), 3)));
    on.at += MINUTE_MS;
    const texts = chat(5).map((message, index) =>
      index === 0 ? { role: "user", content: "question 0" } : message,
    );
    assertBytesEqual((await send(run, body(texts))).out, body(cutAt(texts, 3)));
  });

  it("keeps what a developer says among the messages, and works on Chat and Responses", async () => {
    const on = world();
    await using run = await start(on);
    const turn = (index: number) => [
      { role: "user", content: `question ${index}` },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: `c${index}`, type: "function", function: { name: "f", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: `c${index}`, content: LONG },
      { role: "assistant", content: LONG },
    ];
    const told = { role: "developer", content: "Be brief from now on." };
    const messages = (count: number): object[] => [
      { role: "system", content: "You help." },
      ...Array.from({ length: count - 1 }, (_, index) => [
        ...turn(index),
        ...(index === 1 ? [told] : []),
      ]).flat(),
      { role: "user", content: "the last one" },
    ];
    const sent = (list: readonly object[]) => JSON.stringify({ model: "gpt-test", messages: list });
    const options = { headers: OPENAI, path: "/v1/chat/completions" };
    await send(run, sent(messages(4)), options);
    on.at += 61 * MINUTE_MS;
    const all = messages(5);
    const { out } = await send(run, sent(all), options);
    assertBytesEqual(out, sent([all[0]!, all[1]!, told, marker, ...all.slice(14)]));
    assert.deepEqual(rewriteProblems("openai-chat", Buffer.from(sent(all)), out), []);

    const item = (index: number) => [
      { type: "message", role: "user", content: [{ type: "input_text", text: `question ${index}` }] },
      { type: "reasoning", summary: [], encrypted_content: "xyz" },
      { type: "function_call", call_id: `c${index}`, name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: `c${index}`, output: LONG },
      { type: "message", role: "assistant", content: [{ type: "output_text", text: LONG }] },
    ];
    const input = (count: number): object[] => [
      ...Array.from({ length: count - 1 }, (_, index) => item(index)).flat(),
      ...item(count - 1).slice(0, 1),
    ];
    const asked = (list: readonly object[], more: object = {}) =>
      JSON.stringify({ model: "gpt-test", ...more, input: list });
    const responses = { headers: OPENAI, path: "/v1/responses" };
    await send(run, asked(input(4)), responses);
    on.at += 61 * MINUTE_MS;
    const items = input(5);
    const cut = await send(run, asked(items), responses);
    assertBytesEqual(cut.out, asked([items[0]!, { type: "message", ...marker }, ...items.slice(15)]));
    assert.deepEqual(rewriteProblems("openai-responses", Buffer.from(asked(items)), cut.out), []);
    // What the provider keeps by itself is not all here.
    const back = asked(items, { previous_response_id: "resp_1" });
    assertBytesEqual((await send(run, back, responses)).out, back);
  });

  it("is not made where it cannot be counted, and of what is not to be touched", async () => {
    const on = world();
    await using run = await start(on);
    await send(run, body(chat(4)));
    on.at += 6 * MINUTE_MS;
    const sent = body(chat(5));
    on.tokenizer = { ...characters, count: () => Promise.reject(new Error("no threads")) };
    assertBytesEqual((await send(run, sent)).out, sent);
    on.tokenizer = characters;
    on.at += 6 * MINUTE_MS;
    on.touch = "none";
    assertBytesEqual((await send(run, sent)).out, sent);
    on.touch = "known";
    assertBytesEqual((await send(run, sent)).out, sent);
    on.touch = "new";
    for (const more of [
      ["x-tokenman-nocompress", "true"],
      ["anthropic-beta", "oauth-2025-04-20"],
    ])
      assertBytesEqual((await send(run, sent, { headers: [...ANTHROPIC, ...more] })).out, sent);
    on.at += 6 * MINUTE_MS;
    assertBytesEqual((await send(run, sent)).out, body(cutAt(chat(5), 3)));
    on.touch = "known";
    assertBytesEqual((await send(run, sent)).out, body(cutAt(chat(5), 3)), "what was decided stays");
  });

  it("is one, however many requests of a conversation come at once", async () => {
    const on = world();
    await using run = await start(on);
    await send(run, body(chat(4)));
    on.at += 6 * MINUTE_MS;
    const counted = Promise.withResolvers<void>();
    on.tokenizer = {
      ...characters,
      async count(model, texts) {
        await counted.promise;
        return characters.count(model, texts);
      },
    };
    const all = [5, 6, 7].map((turns) => send(run, body(chat(turns))));
    counted.resolve();
    const cuts = (await Promise.all(all)).map(({ out }) => {
      const { messages } = JSON.parse(String(out)) as { messages: object[] };
      return JSON.stringify(messages[2]);
    });
    assert.equal(new Set(cuts).size, 1, cuts.join(" "));
  });

  it("is noted as a saving in tokens where nobody prices it", async () => {
    const on = world();
    await using run = await runPlugin(historyPlugin({ now: () => on.at }), {
      config: { enabled: true, window_size: 2 },
      services: { decisions: on.decisions, tokenizer: characters },
    });
    await send(run, body(chat(4)));
    on.at += 6 * MINUTE_MS;
    const { exchange } = await run.send({ path: "/v1/messages", headers: ANTHROPIC, body: body(chat(5)) });
    const [saving] = savingsOf(exchange);
    assert.equal(saving?.plugin, "history");
    assert.equal(saving?.nanoUsd, undefined);
    assert.ok(saving!.tokens > 8 * LONG.length);
  });
});

describe("the prefix of random conversations", () => {
  it("stays the same but at the cuts that are noted, over a reload and a restart, in every dialect", async () => {
    let cuts = 0;
    let repeated = 0;
    for (const turns of conversations(36, {
      turns: 14,
      seed: 5,
      texts: [LONG, "and then?", LONG, "go on"],
    })) {
      const on = world();
      const random = new Random(turns[0]!.body.length);
      const { dialect } = turns[0]!;
      let run = await start(on);
      let isCut = false;
      try {
        await assertPrefixStable(
          turns,
          async ({ number, path, body: sent }) => {
            if (number === 8) assert.equal((await run.reload("test")).ok, true);
            if (number === 11) {
              await run.stop();
              run = await start(on);
            }
            on.at += random.pick([MINUTE_MS / 2, MINUTE_MS, 90 * MINUTE_MS]);
            const headers = dialect === "anthropic-messages" ? ANTHROPIC : OPENAI;
            const { out, rewrites } = await send(run, sent, { headers, path });
            isCut = rewrites.some(({ breaksPrefix }) => breaksPrefix === true);
            if (isCut) cuts++;
            else if (rewrites.length > 0) repeated++;
            assert.equal(out.equals(sent), rewrites.length === 0);
            assert.deepEqual(rewriteProblems(dialect, sent, out), []);
            return out;
          },
          () => isCut,
        );
      } finally {
        for (const plugin of run.status().plugins)
          assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
        await run.stop();
      }
    }
    assert.ok(cuts > 30 && repeated > 60, `${cuts} cuts, ${repeated} repeated`);
  });
});

describe("odd requests", () => {
  it("pass untouched, are counted, and never are a failure", async () => {
    const on = world();
    await using run = await start(on, 1);
    const many = Array.from({ length: 10_000 }, (_, index) => ({
      role: index % 2 ? "assistant" : "user",
      content: "m",
    }));
    const padding = { metadata: { padding: "x".repeat(5_000) } };
    const odd = (...extra: unknown[]): object => ({
      ...padding,
      model: "m",
      messages: [...chat(3), ...extra, ...chat(4).slice(4)],
    });
    const bodies: unknown[] = [
      Buffer.from(`not json ${"{".repeat(5_000)}`),
      Buffer.from(`{"messages": [{"role":"user","content":"${"x".repeat(5_000)}`),
      { ...padding, messages: [] },
      { ...padding, messages: {} },
      { ...padding, messages: [null, 1, "x", []] },
      { ...padding, messages: [assistant(LONG), ...chat(5)] },
      odd({ role: "wizard", content: LONG }),
      odd({ role: "user", content: "" }, { role: "assistant", content: [] }),
      odd({ role: "assistant", content: [{ type: "hologram", text: LONG }] }),
      odd({ role: "assistant", content: [{ type: "compaction", content: LONG }] }),
      odd(called("toolu_x")[0]),
      odd(called("toolu_x")[1]),
      odd(null, 7, "text", []),
      {
        ...padding,
        input: [
          { role: "user", content: "a" },
          { type: "item_reference", id: "x" },
        ],
      },
    ];
    for (const path of [
      "/v1/messages",
      "/v1/chat/completions",
      "/v1/responses",
      "/v1/embeddings",
      "/v1/other",
    ])
      for (const each of bodies) {
        const sent = Buffer.isBuffer(each) ? each : Buffer.from(JSON.stringify(each));
        for (let round = 0; round < 2; round++) {
          on.at += 90 * MINUTE_MS;
          assertBytesEqual((await send(run, sent, { path })).out, sent);
        }
      }
    const long = Buffer.from(JSON.stringify({ model: "m", max_tokens: 1, messages: many.slice(0, -1) }));
    await send(run, long);
    on.at += 90 * MINUTE_MS;
    const { out } = await send(run, long);
    assert.equal((JSON.parse(String(out)) as { messages: unknown[] }).messages.length, 3);
    assert.deepEqual(rewriteProblems("anthropic-messages", long, out), []);
    const random = new Random(3);
    const base = body(chat(6));
    for (let round = 0; round < 300; round++) {
      const at = random.below(base.length);
      const broken =
        base.slice(0, at) +
        random.pick(["", "{", '"', "]", "null", "\\", "\u0000"]) +
        base.slice(at + random.below(3));
      on.at += 90 * MINUTE_MS;
      await send(run, Buffer.from(broken));
    }
    for (const plugin of run.status().plugins)
      assert.equal(plugin.failures, 0, JSON.stringify(run.log.slice(-3)));
  });
});
