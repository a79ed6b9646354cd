import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { messages } from "../../plugins/anthropic/dialects.ts";
import { chat, embeddings } from "../../plugins/openai/dialects.ts";
import { Corrections } from "../../plugins/tokenizer/correction.ts";
import { Counter, countableText } from "../../plugins/tokenizer/counter.ts";
import { breakRuns, cut, PIECE, SAMPLED_ABOVE } from "../../plugins/tokenizer/cut.ts";
import { encodingOf } from "../../plugins/tokenizer/encoding.ts";
import { TokenCounter } from "../../plugins/tokenizer/estimate.ts";
import type { Piece } from "../../plugins/tokenizer/messages.ts";
import { CountingPool } from "../../plugins/tokenizer/pool.ts";
import { describedExchange } from "../support/described.ts";

const HOUR = 3_600_000;
const pool = new CountingPool({
  size: 1,
  idleMs: HOUR,
  onCrash: () => assert.fail("no thread may die here"),
});
const service = new TokenCounter(new Counter(pool, 1000), new Corrections(), () => {});
after(() => pool.close());

/** A pool that counts characters, and remembers what it was asked. */
class FakePool {
  readonly asked: string[] = [];
  readonly jobs: (readonly Piece[])[] = [];
  fails = false;
  async count(_encoding: unknown, pieces: readonly Piece[]): Promise<readonly number[] | undefined> {
    this.jobs.push(pieces);
    this.asked.push(...pieces.map(({ text }) => text));
    return this.fails ? undefined : pieces.map(({ text }) => text.length);
  }
}

function counterOf(fake: FakePool, maxEntries = 1000): Counter {
  return new Counter(fake as unknown as CountingPool, maxEntries);
}

describe("tokenizer: counts", () => {
  // OpenAI's cookbook, "How to count tokens with tiktoken".
  for (const [text, cl100k, o200k] of [
    ["tiktoken is great!", 6, 6],
    ["antidisestablishmentarianism", 6, 6],
    ["2 + 2 = 4", 7, 7],
    ["お誕生日おめでとう", 9, 8],
    ["", 0, 0],
  ] as const) {
    it(`${JSON.stringify(text)} is ${cl100k} tokens of older models and ${o200k} of newer ones`, async () => {
      assert.deepEqual(await service.count("gpt-4", [{ text }]), [cl100k]);
      assert.deepEqual(await service.count("gpt-4o", [{ text }]), [o200k]);
    });
  }

  it("chooses the encoding by the model's family", () => {
    for (const model of [
      "gpt-4",
      "gpt-4-0613",
      "gpt-4-turbo",
      "gpt-3.5-turbo",
      "openai/gpt-4",
      "text-embedding-3-small",
    ])
      assert.equal(encodingOf(model), "cl100k_base", model);
    for (const model of [
      "gpt-4o",
      "gpt-4.1",
      "gpt-4.5-preview",
      "gpt-5-mini",
      "o3",
      "claude-opus-4-5",
      "mock",
      "",
    ])
      assert.equal(encodingOf(model), "o200k_base", model);
  });

  it("counts any text: emoji, lone surrogates, control characters, special tokens", async () => {
    const texts = ["👩‍👩‍👧‍👦", "\ud800", "\u0000\u0007", "<|endoftext|>", "e\u0301", "\ufeff"];
    const counts = await service.count(
      "gpt-4o",
      texts.map((text) => ({ text })),
    );
    for (const [index, count] of counts.entries()) assert.ok(count >= 1, JSON.stringify(texts[index]));
    // As text it is several tokens, as the control token it would be one.
    assert.ok(counts[3]! > 1);
  });

  it("counts long runs, which byte-pair merging would take minutes for", async () => {
    const [letters, blanks, signs] = await service.count("gpt-4o", [
      { text: "a".repeat(400_000) },
      { text: " ".repeat(400_000) },
      { text: "=".repeat(400_000) },
    ]);
    assert.equal(letters, 400_000 / 8);
    assert.ok(blanks! > 1_000 && blanks! < 10_000);
    assert.ok(signs! > 1_000 && signs! < 30_000);
  });

  it("counts a text in pieces as it counts it whole, where lines end", async () => {
    const line = "The quick brown fox jumps over the lazy dog, and then some: 12345.\n";
    const lines = Math.ceil((3 * PIECE) / line.length);
    const [one, all] = await service.count("gpt-4o", [{ text: line }, { text: line.repeat(lines) }]);
    assert.equal(all, one! * lines);
  });
});

describe("tokenizer: estimates", () => {
  const weather = {
    type: "function",
    function: {
      name: "get_current_weather",
      description: "Get the current weather in a given location",
      parameters: {
        type: "object",
        properties: {
          location: { type: "string", description: "The city and state, e.g. San Francisco, CA" },
          unit: {
            type: "string",
            description: "The unit of temperature to return",
            enum: ["celsius", "fahrenheit"],
          },
        },
        required: ["location"],
      },
    },
  };
  const question = [
    {
      role: "system",
      content: "You are a helpful assistant that can answer to questions about the weather.",
    },
    { role: "user", content: "What's the weather like in San Francisco?" },
  ];

  it("is what OpenAI's cookbook gives for its example with a tool: 101 tokens of GPT-4o", async () => {
    const exchange = describedExchange(chat, { model: "gpt-4o", messages: question, tools: [weather] });
    assert.deepEqual(await service.estimate(exchange), { uncorrected: 101, tokens: 101, error: undefined });
  });

  it("counts embeddings without any framing", async () => {
    const exchange = describedExchange(embeddings, {
      model: "text-embedding-3-small",
      input: "tiktoken is great!",
    });
    assert.equal((await service.estimate(exchange)).tokens, 6);
  });

  it("counts what plugins made of a segment", async () => {
    const body = { model: "gpt-4o", messages: question };
    const before = await service.estimate(describedExchange(chat, body));
    const edited = { "/messages/1/content": "Weather?" };
    const afterwards = await service.estimate(describedExchange(chat, body, { edited }));
    const [long, short] = await service.count("gpt-4o", [
      { text: question[1]!.content },
      { text: "Weather?" },
    ]);
    assert.equal(before.tokens - afterwards.tokens, long! - short!);
  });

  it("goes by the size of a body that it cannot read", async () => {
    const exchange = describedExchange(chat, Buffer.from("x".repeat(400)));
    assert.equal((await service.estimate(exchange)).tokens, 100);
  });

  it("expects more tokens of Claude than the public encoding counts, before the first bill", async () => {
    const exchange = describedExchange(messages, {
      model: "claude-opus-4-5",
      max_tokens: 1,
      messages: [{ role: "user", content: "word ".repeat(1000) }],
    });
    const { tokens, uncorrected, error } = await service.estimate(exchange);
    assert.equal(tokens, Math.round(uncorrected * 1.24));
    assert.equal(error, undefined);
  });

  it("reads signatures as no text, and encrypted reasoning by its length", async () => {
    const block = (extra: object) => ({
      model: "claude-opus-4-5",
      max_tokens: 1,
      messages: [{ role: "assistant", content: [extra] }],
    });
    const plain = await service.estimate(
      describedExchange(messages, block({ type: "thinking", thinking: "Hm." })),
    );
    const signed = await service.estimate(
      describedExchange(messages, block({ type: "thinking", thinking: "Hm.", signature: "A".repeat(6000) })),
    );
    assert.equal(signed.uncorrected, plain.uncorrected);
    const hidden = await service.estimate(
      describedExchange(messages, block({ type: "redacted_thinking", data: "A".repeat(6000) })),
    );
    assert.ok(hidden.uncorrected > 1000 && hidden.uncorrected < 1100);
  });
});

describe("tokenizer: memory", () => {
  const turn = (texts: readonly string[]) =>
    describedExchange(chat, {
      model: "gpt-4o",
      messages: texts.map((content) => ({ role: "user", content })),
    });

  it("counts only the segments that a turn adds", async () => {
    const fake = new FakePool();
    const counting = new TokenCounter(counterOf(fake), new Corrections(), () => {});
    await counting.estimate(turn(["one", "two"]));
    await counting.estimate(turn(["one", "two", "three"]));
    assert.deepEqual(fake.asked, ["one", "two", "three"]);
  });

  it("guesses what is new where it is short, and then counts it with what comes", async () => {
    const fake = new FakePool();
    let learnt = 0;
    const counting = new TokenCounter(counterOf(fake), new Corrections(), () => learnt++);
    const one = "one ".repeat(25);
    assert.ok((await counting.estimate(turn([one]), undefined, 300)).tokens > 0);
    assert.deepEqual(fake.asked, [one], "of nothing known there is no guess");
    const whole = (await counting.estimate(turn([one, one]))).uncorrected;
    assert.equal(learnt, 2);
    const two = "two ".repeat(25);
    const guessed = await counting.estimate(turn([one, two]), undefined, 300);
    assert.deepEqual(fake.asked, [one]);
    assert.ok(Math.abs(guessed.uncorrected - whole) <= 1, `${guessed.uncorrected} is not about ${whole}`);
    assert.equal(learnt, 2, "a guess teaches nothing");
    const three = "three ".repeat(40);
    await counting.estimate(turn([one, two, three]), undefined, 300);
    assert.deepEqual(fake.asked, [one, two, three]);
  });

  it("counts once what is asked for twice at the same time", async () => {
    const fake = new FakePool();
    const counting = new TokenCounter(counterOf(fake), new Corrections(), () => {});
    const [left, right] = await Promise.all([
      counting.estimate(turn(["one", "two"])),
      counting.estimate(turn(["two", "one"])),
    ]);
    assert.deepEqual(fake.asked, ["one", "two"]);
    assert.deepEqual(left, right);
  });

  it("keeps encodings apart", async () => {
    const fake = new FakePool();
    const counter = counterOf(fake);
    await counter.count("o200k_base", [countableText("x", "hash")]);
    await counter.count("cl100k_base", [countableText("x", "hash")]);
    assert.equal(fake.asked.length, 2);
  });

  it("stays within its bound", async () => {
    const counter = counterOf(new FakePool(), 100);
    for (let index = 0; index < 1000; index++) {
      await counter.count("o200k_base", [countableText(`text ${index}`, `hash ${index}`)]);
    }
    // quick-lru holds up to twice its size.
    assert.ok(counter.size <= 200, `${counter.size} entries`);
  });

  it("does not remember what could not be counted, and guesses it from its length", async () => {
    const fake = new FakePool();
    fake.fails = true;
    const counter = counterOf(fake);
    assert.deepEqual(await counter.count("o200k_base", [countableText("x".repeat(30), "hash")]), [10]);
    fake.fails = false;
    assert.deepEqual(await counter.count("o200k_base", [countableText("x".repeat(30), "hash")]), [30]);
  });
});

describe("tokenizer: big input", () => {
  it("counts samples of a text of 30 MB", async () => {
    const fake = new FakePool();
    const [count] = await counterOf(fake).count("o200k_base", [
      countableText("x".repeat(30_000_000), "hash"),
    ]);
    // The fake one counts characters, so the extrapolation must come out at their number.
    assert.equal(count, 30_000_000);
    const characters = fake.asked.reduce((sum, text) => sum + text.length, 0);
    assert.ok(characters < 300_000, `${characters} characters were counted`);
  });

  it("samples a long segment without decoding it", async () => {
    const fake = new FakePool();
    const counting = new TokenCounter(counterOf(fake), new Corrections(), () => {});
    const exchange = describedExchange(chat, {
      model: "gpt-4o",
      messages: [{ role: "user", content: "a\n".repeat(3 * SAMPLED_ABOVE) }],
    });
    Object.defineProperty(exchange.segments[0], "text", { get: () => assert.fail("the text was read") });
    await counting.estimate(exchange);
    assert.match(fake.asked[5]!, /^\n?(?:a\n)+a?\\?$/);
  });

  it("counts a part of very many texts, and takes the rest to be like it", async () => {
    const fake = new FakePool();
    const texts = Array.from({ length: 300 }, (_, index) =>
      countableText("y".repeat(50_000), `hash ${index}`),
    );
    const counts = await counterOf(fake).count("o200k_base", texts);
    assert.ok(counts.every((count) => count === 50_000));
    assert.ok(fake.asked.reduce((sum, text) => sum + text.length, 0) < 5_000_000);
  });

  it("gives the threads jobs of bounded size", async () => {
    const fake = new FakePool();
    await counterOf(fake).count("o200k_base", [countableText("z ".repeat(400_000), undefined)]);
    assert.ok(fake.jobs.length > 4);
    for (const pieces of fake.jobs)
      assert.ok(pieces.reduce((sum, { text }) => sum + text.length, 0) <= 131_072);
  });

  it("cuts between lines, blanks or characters, and loses nothing", () => {
    for (const text of [
      "line\n".repeat(20_000),
      "word ".repeat(20_000),
      "😀".repeat(50_000),
      "a".repeat(100_000),
    ]) {
      const { pieces, factor } = cut(text);
      assert.equal(pieces.join(""), text);
      assert.equal(factor, 1);
      assert.ok(pieces.every((piece) => piece.length <= PIECE && piece.isWellFormed()));
    }
  });

  it("breaks runs only, and loses nothing", () => {
    const prose = "Some ordinary words, 1234567890 and signs (); in a row.\n".repeat(1000);
    assert.deepEqual(breakRuns(prose), [prose]);
    assert.deepEqual(breakRuns("7".repeat(5000)), ["7".repeat(5000)]);
    for (const text of [
      "b".repeat(5000),
      " ".repeat(5000),
      "-".repeat(5000),
      "😀".repeat(5000),
      `${prose}${"c".repeat(5000)}`,
    ]) {
      const parts = breakRuns(text);
      assert.equal(parts.join(""), text);
      assert.ok(parts.length > 5);
      assert.ok(parts.every((part) => part.isWellFormed()));
    }
  });
});

describe("tokenizer: threads", () => {
  /** Not a text: the thread dies of it. */
  const POISON = { form: "text", text: { length: 1000 } } as unknown as Piece;
  const HELLO: Piece = { form: "text", text: "hello world" };

  it("start when there is something to count, and no more of them than allowed", async () => {
    const lazy = new CountingPool({ size: 2, idleMs: HOUR, onCrash: () => assert.fail() });
    assert.equal(lazy.threads, 0);
    const counts = await Promise.all(Array.from({ length: 8 }, () => lazy.count("o200k_base", [HELLO])));
    assert.ok(counts.every((count) => count?.[0] === 2));
    assert.equal(lazy.threads, 2);
    await lazy.close();
    assert.equal(lazy.threads, 0);
  });

  it("are replaced when they die; only what they die of stays uncounted", async () => {
    const crashes: unknown[] = [];
    const dying = new CountingPool({ size: 1, idleMs: HOUR, onCrash: (error) => crashes.push(error) });
    const [first, poisoned, last] = await Promise.all([
      dying.count("o200k_base", [HELLO]),
      dying.count("o200k_base", [POISON]),
      dying.count("o200k_base", [HELLO]),
    ]);
    assert.deepEqual([first, poisoned, last], [[2], undefined, [2]]);
    assert.equal(crashes.length, 2);
    await dying.close();
  });

  it("are ended when a job takes too long", async () => {
    const crashes: unknown[] = [];
    const slow = new CountingPool({
      size: 1,
      idleMs: HOUR,
      jobMs: 1,
      onCrash: (error) => crashes.push(error),
    });
    const text = "some words ".repeat(200_000);
    assert.equal(await slow.count("o200k_base", [{ form: "text", text }]), undefined);
    assert.match(String(crashes[0]), /took over 1 ms/);
    await slow.close();
  });

  it("end when they have been idle", async () => {
    const idle = new CountingPool({
      size: 1,
      idleMs: 1,
      onCrash: () => assert.fail("an idle end is no crash"),
    });
    assert.deepEqual(await idle.count("o200k_base", [HELLO]), [2]);
    // The timer of an idle thread does not keep a process alive; this one does.
    while (idle.threads > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(await idle.count("o200k_base", [HELLO]), [2]);
    await idle.close();
  });

  it("leave nothing behind, and nobody waiting, when the pool is closed", async () => {
    const before = handles();
    const closing = new CountingPool({
      size: 1,
      idleMs: HOUR,
      onCrash: () => assert.fail("a close is no crash"),
    });
    const counts = Promise.all([1, 2, 3].map(() => closing.count("o200k_base", [HELLO])));
    await closing.close();
    assert.deepEqual(await counts, [undefined, undefined, undefined]);
    assert.equal(await closing.count("o200k_base", [HELLO]), undefined);
    assert.deepEqual(handles(), before);
  });

  function handles(): readonly string[] {
    return process
      .getActiveResourcesInfo()
      .filter((name) => /Worker|MessagePort|Timeout/.test(name))
      .sort();
  }
});

describe("tokenizer: learning", () => {
  it("corrects by the middle one of the last bills, and says how far it was off", () => {
    const corrections = new Corrections();
    assert.equal(corrections.ratio("gpt-4o"), 1);
    assert.equal(corrections.error("gpt-4o"), undefined);
    corrections.learn("gpt-4o", 100, 150);
    assert.equal(corrections.ratio("gpt-4o"), 1.5);
    // It was expected to be 100.
    assert.equal(corrections.error("gpt-4o"), 50 / 150);
    corrections.learn("gpt-4o", 200, 300);
    assert.equal(corrections.error("gpt-4o"), 50 / 150 / 2);
  });

  it("is not moved by odd bills", () => {
    const corrections = new Corrections();
    for (let index = 0; index < 20; index++) corrections.learn("model", 1000, index % 3 === 0 ? 4000 : 1100);
    assert.equal(corrections.ratio("model"), 1.1);
    for (const [counted, billed] of [
      [0, 5],
      [5, 0],
      [1, 1000],
      [1000, 1],
      [Number.NaN, 1],
      [-5, 5],
    ] as const)
      assert.equal(corrections.learn("model", counted, billed), false);
    assert.equal(corrections.ratio("model"), 1.1);
  });

  it("follows a change that stays", () => {
    const corrections = new Corrections();
    for (let index = 0; index < 40; index++) corrections.learn("model", 100, 100);
    for (let index = 0; index < 16; index++) corrections.learn("model", 100, 130);
    assert.equal(corrections.ratio("model"), 1.3);
  });

  it("shares what it learns between snapshots of a model, and forgets the models of long ago", () => {
    const corrections = new Corrections();
    corrections.learn("gpt-4o-2024-08-06", 100, 120);
    assert.equal(corrections.ratio("openai/gpt-4o"), 1.2);
    for (let index = 0; index < 1000; index++) corrections.learn(`model-${index}`, 100, 120);
    assert.equal(corrections.ratio("gpt-4o"), 1);
  });
});
