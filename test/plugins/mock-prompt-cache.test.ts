import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { headerValue, type Provider, type ReplyInit, type Usage } from "@tokenman/plugin-sdk";
import { mockPlugin } from "../../plugins/mock/index.ts";
import { askProvider, bodyOf, dialects } from "../support/ask-provider.ts";
import { splitEvents } from "../support/events.ts";
import { setUp } from "../support/fake-setup.ts";
import { CHAT, MESSAGES, mock, user } from "../support/mock-provider.ts";

/** The usage as the dialect's own reader finds it in the reply. */
async function usageOf(dialect: string, reply: ReplyInit): Promise<Usage> {
  const reader = dialects.find((one) => one.name === dialect)!.usageReader();
  const body = await bodyOf(reply);
  if (headerValue(reply.headers ?? [], "content-type")?.startsWith("text/event-stream")) {
    for (const event of splitEvents(body)) reader.event(event);
  } else reader.body(body, reply.status);
  return reader.usage()!;
}

/** Text of exactly so many tokens by the mock's rule. */
const tokens = (count: number, seed = "a") => seed.repeat(count * 4);

describe("mock: Anthropic's prompt cache", () => {
  type Turn = { system?: unknown; messages?: unknown; tools?: unknown; model?: string; stream?: boolean };
  const cached = (text: string, ttl?: string) => ({
    type: "text",
    text,
    cache_control: { type: "ephemeral", ...(ttl !== undefined && { ttl }) },
  });
  const asking = async (config: object = {}) => {
    const made = await mock(config);
    const bill = async (turn: Turn, credentialHash = "") => {
      const body = { model: "mock", max_tokens: 9, messages: [user("x")], ...turn };
      const usage = await usageOf("anthropic-messages", await made.ask(MESSAGES, body, { credentialHash }));
      return [usage.inputTokens, usage.cacheReadTokens, usage.cacheWrite5mTokens, usage.cacheWrite1hTokens];
    };
    return { ...made, bill };
  };
  const SYSTEM = [cached(tokens(2_000))];
  /** A message "x": one token of text, four for the message. */
  const X = 5;

  it("writes a prefix once, then reads it, streamed or not", async () => {
    const { bill } = await asking();
    assert.deepEqual(await bill({ system: SYSTEM }), [X, 0, 2_000, 0]);
    assert.deepEqual(await bill({ system: SYSTEM }), [X, 2_000, 0, 0]);
    assert.deepEqual(await bill({ system: SYSTEM, stream: true }), [X, 2_000, 0, 0]);
  });

  it("caches nothing without a breakpoint, nor below the minimum", async () => {
    const { bill } = await asking({ prompt_cache: { min_tokens_by_model: { "mock-small": 10 } } });
    for (const _ of [1, 2]) assert.deepEqual(await bill({ system: tokens(2_000) }), [2_000 + X, 0, 0, 0]);
    for (const _ of [1, 2])
      assert.deepEqual(await bill({ system: [cached(tokens(1_000))] }), [1_000 + X, 0, 0, 0]);
    assert.deepEqual(await bill({ system: [cached(tokens(10))], model: "mock-small" }), [X, 0, 10, 0]);
  });

  it("grows with a conversation whose breakpoint moves on", async () => {
    const { bill } = await asking();
    const first = user([cached(tokens(2_000))]);
    const plain = user([{ type: "text", text: tokens(2_000) }]);
    const reply = { role: "assistant", content: "ok" };
    assert.deepEqual(await bill({ messages: [first] }), [0, 0, 2_004, 0]);
    const second = user([cached(tokens(500, "b"))]);
    assert.deepEqual(await bill({ messages: [plain, reply, second] }), [0, 2_004, 5 + 504, 0]);
    assert.deepEqual(await bill({ messages: [plain, reply, second] }), [0, 2_513, 0, 0]);
  });

  it("misses behind any change, and reads what stands before it", async () => {
    const { bill } = await asking();
    const tool = {
      name: "f",
      input_schema: {},
      description: tokens(2_000),
      cache_control: { type: "ephemeral" },
    };
    const [, , tools] = (await bill({ tools: [tool] })) as [number, number, number];
    const turn = { tools: [tool], system: SYSTEM, messages: [user([cached(tokens(300))])] };
    await bill(turn);
    assert.deepEqual(await bill(turn), [0, tools + 2_000 + 304, 0, 0]);
    const otherSystem = [cached(tokens(2_000, "c"))];
    assert.deepEqual(
      await bill({ ...turn, system: otherSystem }),
      [0, tools, 2_000 + 304, 0],
      "tools are spared",
    );
    const otherTool = { ...tool, description: tokens(2_000, "c") };
    assert.deepEqual((await bill({ ...turn, tools: [otherTool] }))[1], 0, "a tool change invalidates all");
    assert.deepEqual((await bill({ ...turn, model: "mock-echo" }))[1], 0, "so does another model");
  });

  it("does not look further back than 20 blocks", async () => {
    const { bill } = await asking();
    const texts = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ type: "text", text: tokens(10, String(index % 10)) }));
    const turn = (count: number) => ({
      messages: [
        user([{ type: "text", text: tokens(2_000) }, ...texts(count).slice(0, -1), cached(tokens(10, "z"))]),
      ],
    });
    const marked = user([cached(tokens(2_000))]);
    await bill({ messages: [marked] });
    const near = await bill(turn(19));
    assert.equal(near[1], 2_004, "19 blocks behind the breakpoint");
    const { bill: fresh } = await asking();
    await fresh({ messages: [marked] });
    assert.equal((await fresh(turn(20)))[1], 0, "20 blocks behind the breakpoint");
  });

  it("lives for five minutes after the last read, or for an hour", async () => {
    const { bill, clock } = await asking();
    await bill({ system: SYSTEM });
    clock.now += 299_000;
    assert.equal((await bill({ system: SYSTEM }))[1], 2_000);
    clock.now += 299_000;
    assert.equal((await bill({ system: SYSTEM }))[1], 2_000, "the read renewed it");
    clock.now += 300_000;
    assert.deepEqual(await bill({ system: SYSTEM }), [X, 0, 2_000, 0]);
    const hour = [cached(tokens(2_000, "h"), "1h")];
    assert.deepEqual(await bill({ system: hour }), [X, 0, 0, 2_000]);
    clock.now += 3_599_000;
    assert.equal((await bill({ system: hour }))[1], 2_000);
    clock.now += 3_600_000;
    assert.equal((await bill({ system: hour }))[1], 0);
  });

  it("splits what it writes between the hour and the five minutes", async () => {
    const { bill } = await asking();
    const turn = {
      system: [cached(tokens(2_000), "1h")],
      messages: [user([cached(tokens(300))]), user("x")],
    };
    assert.deepEqual(await bill(turn), [X, 0, 304, 2_000]);
    assert.deepEqual(await bill(turn), [X, 2_304, 0, 0]);
  });

  it("takes a breakpoint beside the messages for one on the last block", async () => {
    const { bill } = await asking();
    const turn = { system: tokens(2_000), cache_control: { type: "ephemeral" } };
    assert.deepEqual(await bill(turn), [0, 0, 2_000 + X, 0]);
    assert.deepEqual(await bill(turn), [0, 2_000 + X, 0, 0]);
  });

  it("does not mind where earlier turns had their breakpoints", async () => {
    const { bill } = await asking();
    await bill({ system: SYSTEM });
    const unmarked = {
      system: [{ type: "text", text: tokens(2_000) }],
      messages: [user([cached(tokens(300))])],
    };
    assert.deepEqual(await bill(unmarked), [0, 2_000, 304, 0]);
  });

  it("keeps accounts apart", async () => {
    const { bill } = await asking();
    await bill({ system: SYSTEM }, "one");
    assert.equal((await bill({ system: SYSTEM }, "other"))[1], 0);
    assert.equal((await bill({ system: SYSTEM }, "one"))[1], 2_000);
  });

  it("lets requests side by side all miss until the first one's reply begins", async () => {
    const gates: (() => void)[] = [];
    const plugin = mockPlugin({ sleep: () => new Promise<void>((resolve) => void gates.push(resolve)) });
    const provider = (await setUp(plugin)).contributed("provider")[0] as Provider;
    const body = JSON.stringify({ model: "mock-slow", max_tokens: 9, system: SYSTEM, messages: [user("x")] });
    const asked = [1, 2, 3].map(() => askProvider(provider, { path: MESSAGES, body }));
    assert.equal(gates.length, 3);
    for (const open of gates) open();
    for (const reply of asked) {
      const usage = await usageOf("anthropic-messages", await reply);
      assert.equal(usage.cacheWrite5mTokens, 2_000);
    }
  });

  it("caches nothing of a request that failed", async () => {
    const { bill, ask } = await asking();
    const failing = { model: "mock-fail-500", max_tokens: 9, system: SYSTEM, messages: [user("x")] };
    await ask(MESSAGES, failing);
    assert.deepEqual((await bill({ system: SYSTEM }))[1], 0);
  });

  it("goes on over a reload", async () => {
    const first = await mock();
    const body = { model: "mock", max_tokens: 9, system: SYSTEM, messages: [user("x")] };
    await first.ask(MESSAGES, body);
    const second = await mock({ mode: "fixed" }, first.setup.kept);
    const usage = await usageOf("anthropic-messages", await second.ask(MESSAGES, body));
    assert.equal(usage.cacheReadTokens, 2_000);
  });

  it("can be switched off", async () => {
    const { bill } = await asking({ prompt_cache: { enabled: false } });
    for (const _ of [1, 2]) assert.deepEqual(await bill({ system: SYSTEM }), [2_000 + X, 0, 0, 0]);
  });
});

describe("mock: OpenAI's prompt cache", () => {
  const asking = async (config: object = {}) => {
    const made = await mock(config);
    const bill = async (content: string, more: object = {}) => {
      const body = { model: "mock", messages: [user(content)], ...more };
      const usage = await usageOf("openai-chat", await made.ask(CHAT, body));
      return [usage.inputTokens, usage.cacheReadTokens, usage.cacheWrite5mTokens];
    };
    return { ...made, bill };
  };

  it("caches from 1,024 tokens in steps of 128, without being asked", async () => {
    const { bill } = await asking();
    for (const _ of [1, 2]) assert.deepEqual(await bill(tokens(1_000)), [1_004, 0, 0]);
    assert.deepEqual(await bill(tokens(2_000, "b")), [2_004, 0, 0]);
    assert.deepEqual(await bill(tokens(2_000, "b")), [84, 1_920, 0], "1,024 + 7 × 128");
  });

  it("reads the longest common prefix", async () => {
    const { bill } = await asking();
    await bill(tokens(1_500) + tokens(1_000, "b"));
    // 4 tokens for the message, then 1,500 in common: 1,408 is the last step below.
    assert.deepEqual((await bill(tokens(1_500) + tokens(1_000, "c")))[1], 1_408);
    assert.deepEqual((await bill(`z${tokens(2_500)}`))[1], 0);
  });

  it("is routed by prompt_cache_key and by model, and dies with disuse", async () => {
    const { bill, clock } = await asking();
    const text = tokens(2_000);
    await bill(text, { prompt_cache_key: "a" });
    assert.equal((await bill(text, { prompt_cache_key: "a" }))[1], 1_920);
    assert.equal((await bill(text, { prompt_cache_key: "b" }))[1], 0);
    assert.equal((await bill(text, { prompt_cache_key: "a", model: "mock-echo" }))[1], 0);
    clock.now += 300_000;
    assert.equal((await bill(text, { prompt_cache_key: "a" }))[1], 0);
    await bill(text, { prompt_cache_key: "day", prompt_cache_retention: "24h" });
    clock.now += 86_000_000;
    assert.equal((await bill(text, { prompt_cache_key: "day" }))[1], 1_920);
  });

  it("reports writes where the config says that the model bills them", async () => {
    const { bill } = await asking({ prompt_cache: { openai_reports_writes: true } });
    assert.deepEqual(await bill(tokens(2_000)), [84, 0, 1_920]);
    assert.deepEqual(await bill(tokens(2_000)), [84, 1_920, 0]);
  });
});
