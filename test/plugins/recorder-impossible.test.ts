import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { wholeReply } from "@tokenman/plugin-sdk/testkit";
import { ask, type RecordedWorld, recordedWorld } from "../support/recorded-world.ts";

const BUDGET = "[security.budget]\nenabled = true\ndaily_limit = 100\n";

const json = (body: object) =>
  wholeReply({ status: 200, headers: ["content-type", "application/json"], body: JSON.stringify(body) });
const stream = (...events: (object | string)[]) =>
  wholeReply({
    status: 200,
    headers: ["content-type", "text/event-stream"],
    body: events
      .map((data) => {
        const name = typeof data === "object" && "type" in data ? `event: ${data.type}\n` : "";
        return `${name}data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
      })
      .join(""),
  });

/** What nobody may have added up: sums, by minute and by name, the metrics, and the budget's window. */
async function sumsOf({ ledger, tokenman }: RecordedWorld) {
  const now = Date.now();
  const range = { from: now - 3_600_000, to: now + 60_000 };
  const totals = await ledger.totals(range);
  const [project] = await ledger.groups("project", range);
  const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
  const { windows } = (await (await fetch(`${tokenman.dashboard}/api/security/budget`)).json()) as {
    windows: { spent: number }[];
  };
  const metric = (name: string): number =>
    Number(new RegExp(`^tokenman_${name} (.*)$`, "m").exec(metrics)?.[1]);
  return {
    tokens: [totals, project!].map((sums) => [sums.inputTokens, sums.cacheReadTokens, sums.outputTokens]),
    cost: [totals.cost, project!.cost],
    unpriced: [totals.unpriced, project!.unpriced],
    metrics: ["tokens_in_total", "tokens_out_total", "cost_usd_total", "unpriced_requests_total"].map(metric),
    spent: windows.map(({ spent }) => spent),
  };
}

describe("a usage that cannot be true is none", () => {
  const message = (usage: object) => json({ type: "message", model: "test-model", content: [], usage });
  const chat = (usage: object) => json({ model: "test-model", choices: [], usage });
  const response = (usage: object) => json({ object: "response", model: "test-model", output: [], usage });
  for (const [about, path, reply] of [
    ["9e15", "/v1/messages", message({ input_tokens: 9e15, output_tokens: 1 })],
    ["-5", "/v1/messages", message({ input_tokens: 10, output_tokens: -5 })],
    ["1.5", "/v1/messages", message({ input_tokens: 10, cache_read_input_tokens: 1.5, output_tokens: 1 })],
    ['"12"', "/v1/messages", message({ input_tokens: "12", output_tokens: 1 })],
    ["a billion and one", "/v1/messages", message({ input_tokens: 1e9 + 1, output_tokens: 1 })],
    [
      "-1 searches",
      "/v1/messages",
      message({ input_tokens: 1, output_tokens: 1, server_tool_use: { web_search_requests: -1 } }),
    ],
    [
      "an hour's writes of 1e12",
      "/v1/messages",
      message({ input_tokens: 1, output_tokens: 1, cache_creation: { ephemeral_1h_input_tokens: 1e12 } }),
    ],
    ["9e15", "/v1/chat/completions", chat({ prompt_tokens: 9e15, completion_tokens: 1 })],
    ["-5", "/v1/chat/completions", chat({ prompt_tokens: -5, completion_tokens: 1 })],
    ["1.5", "/v1/chat/completions", chat({ prompt_tokens: 1, completion_tokens: 1.5 })],
    ['"12"', "/v1/chat/completions", chat({ prompt_tokens: 1, completion_tokens: "12" })],
    [
      "more cached tokens than there are",
      "/v1/chat/completions",
      chat({ prompt_tokens: 100, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 9e15 } }),
    ],
    ["9e15", "/v1/responses", response({ input_tokens: 1, output_tokens: 9e15 })],
    ["9e15", "/v1/embeddings", json({ data: [], model: "test-model", usage: { prompt_tokens: 9e15 } })],
  ] as const) {
    test(`${about} on ${path}: unpriced, and in no sum`, async () => {
      await using it = await recordedWorld(BUDGET);
      it.upstream.next(reply);
      await ask(it.tokenman.proxy, path, { model: "test-model", input: "a" });
      const { tries, costNanoUsd, unpriced, estimated } = await it.ended();
      assert.equal(tries[0]!.usage, undefined);
      assert.match(tries[0]!.unpriced!, /^the provider's usage cannot be true: its \w+ are /);
      assert.deepEqual([costNanoUsd, unpriced, estimated], [undefined, true, false]);
      const { tokens, cost, unpriced: apart, metrics, spent } = await sumsOf(it);
      assert.deepEqual(
        [tokens, cost, apart],
        [
          [
            [0, 0, 0],
            [0, 0, 0],
          ],
          [0, 0],
          [1, 1],
        ],
      );
      assert.deepEqual(metrics, [0, 0, 0, 1]);
      // What was expected of it stays spent, a few cents at most.
      assert.ok(spent[0]! < 0.1, String(spent[0]));
    });
  }

  for (const [about, path, reply] of [
    ['"12"', "/v1/chat/completions", chat({ prompt_tokens: 7, completion_tokens: 3, total_tokens: "12" })],
    ["9e15", "/v1/chat/completions", chat({ prompt_tokens: 7, completion_tokens: 3, total_tokens: 9e15 })],
    ["-1", "/v1/responses", response({ input_tokens: 7, output_tokens: 3, total_tokens: -1 })],
  ] as const)
    test(`a total of ${about} on ${path} takes nothing from the counts beside it`, async () => {
      await using it = await recordedWorld();
      it.upstream.next(reply);
      await ask(it.tokenman.proxy, path, { model: "test-model", input: "a" });
      const { costNanoUsd, estimated, unpriced } = await it.ended();
      assert.deepEqual([costNanoUsd, estimated, unpriced], [7 * 1_000 + 3 * 10_000, false, false]);
    });

  test("a billion tokens are believed, and billed", async () => {
    await using it = await recordedWorld();
    it.upstream.next(message({ input_tokens: 1e9, output_tokens: 0 }));
    await ask(it.tokenman.proxy, "/v1/messages", { model: "test-model" });
    // 10^9 tokens at $1 a million: $1,000.
    assert.equal((await it.ended()).costNanoUsd, 1_000e9);
  });
});

describe("a stream whose usage cannot be true is estimated, as one that told none", () => {
  const start = (usage: object) => ({ type: "message_start", message: { model: "test-model", usage } });
  const text = {
    type: "content_block_delta",
    index: 0,
    delta: { type: "text_delta", text: "one two three" },
  };
  const end = (usage: object) => ({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage });
  const stop = { type: "message_stop" };
  const content = [{ role: "user", content: "four words of input" }];
  for (const [about, path, reply] of [
    [
      "its beginning",
      "/v1/messages",
      stream(start({ input_tokens: 9e15, output_tokens: 1 }), text, end({ output_tokens: 3 }), stop),
    ],
    [
      "its end",
      "/v1/messages",
      stream(start({ input_tokens: 9, output_tokens: 1 }), text, end({ output_tokens: 9e15 }), stop),
    ],
    [
      "its last chunk",
      "/v1/chat/completions",
      stream(
        { model: "test-model", choices: [{ delta: { content: "one two three" } }] },
        { model: "test-model", choices: [], usage: { prompt_tokens: 1.5, completion_tokens: 3 } },
        "[DONE]",
      ),
    ],
    [
      "its last event",
      "/v1/responses",
      stream(
        { type: "response.output_text.delta", delta: "one two three" },
        {
          type: "response.completed",
          response: { model: "test-model", output: [], usage: { input_tokens: -1, output_tokens: 3 } },
        },
      ),
    ],
  ] as const)
    test(`${about} on ${path}`, async () => {
      await using it = await recordedWorld(BUDGET);
      it.upstream.next(reply);
      await ask(it.tokenman.proxy, path, {
        model: "test-model",
        stream: true,
        messages: content,
        input: content,
      });
      const { tries, costNanoUsd, estimated } = await it.ended();
      const usage = tries[0]!.usage!;
      assert.deepEqual([usage.source, estimated, tries[0]!.unpriced], ["estimate", true, undefined]);
      assert.ok(usage.inputTokens > 0 && usage.inputTokens < 50, String(usage.inputTokens));
      assert.ok(usage.outputTokens >= 3 && usage.outputTokens < 10, String(usage.outputTokens));
      // $1 and $10 a million.
      const cost = usage.inputTokens * 1_000 + usage.outputTokens * 10_000;
      assert.equal(costNanoUsd, cost);
      const { tokens, metrics, spent } = await sumsOf(it);
      assert.deepEqual(tokens[0], [usage.inputTokens, 0, usage.outputTokens]);
      assert.deepEqual(metrics, [usage.inputTokens, usage.outputTokens, cost / 1e9, 0]);
      assert.deepEqual(spent, [cost / 1e9]);
    });

  test("what is told later, and can be true, is believed", async () => {
    await using it = await recordedWorld();
    it.upstream.next(
      stream(
        start({ input_tokens: -1, output_tokens: 1 }),
        text,
        end({ input_tokens: 7, output_tokens: 3 }),
        stop,
      ),
    );
    await ask(it.tokenman.proxy, "/v1/messages", { model: "test-model", stream: true });
    const { costNanoUsd, estimated } = await it.ended();
    assert.deepEqual([costNanoUsd, estimated], [7 * 1_000 + 3 * 10_000, false]);
  });
});

test("the log names a provider and a model once, over a reload too", async () => {
  await using it = await recordedWorld();
  const send = async (model: string) => {
    it.upstream.next(json({ type: "message", model, content: [], usage: { input_tokens: -1 } }));
    await ask(it.tokenman.proxy, "/v1/messages", { model });
    await it.ended();
  };
  const said = () => it.tokenman.log.filter(({ message }) => message?.includes("cannot be true"));
  await send("test-model");
  await send("test-model");
  assert.equal((await it.tokenman.kernel.reload("asked")).ok, true);
  await send("test-model");
  assert.deepEqual(
    said().map(({ facts }) => [facts["provider"], facts["model"]]),
    [["anthropic", "test-model"]],
  );
  await send("another-model");
  assert.equal(said().length, 2);
});
