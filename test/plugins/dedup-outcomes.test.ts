import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { definePlugin, type ReplyInit } from "@tokenman/plugin-sdk";
import { providersAt, recordingUpstream } from "@tokenman/plugin-sdk/testkit";
import { dedupPlugin } from "../../plugins/dedup/index.ts";
import { lifetimeFor, NO_GAPS, withGap } from "../../plugins/dedup/lifetime.ts";
import { minimumOf } from "../../plugins/dedup/minimums.ts";
import { long, MINUTE, NAMED, plain } from "../support/dedup-world.ts";
import { startTokenman } from "../support/kernel.ts";

/** Asks for the usage of every exchange. */
const track = definePlugin({
  name: "track",
  version: "1.0.0",
  apiVersion: 1,
  setup: (ctx) => ctx.pipeline((_config, hooks) => hooks.request.tap((exchange) => exchange.trackUsage())),
});

function usage(input: number, read: number): ReplyInit {
  const body = {
    type: "message",
    model: "claude-test",
    usage: { input_tokens: input - read, cache_read_input_tokens: read, output_tokens: 1 },
    stop_reason: "end_turn",
  };
  return { status: 200, headers: ["content-type", "application/json"], body: JSON.stringify(body) };
}

describe("what comes of it", () => {
  it("is measured from the usage, with the cause where the cache had nothing", async () => {
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [track, ...(NAMED.has("dedup") ? [] : [dedupPlugin()])],
      config: `${providersAt(upstream.url)}\n[compression.dedup]\nmin_tokens = { claude-test = 300 }\n`,
    });
    const send = async (body: object, input: number, read: number): Promise<void> => {
      upstream.next((connection) => connection.reply(usage(input, read)));
      const headers = {
        "content-type": "application/json",
        "x-api-key": "sk-ant-api03-test",
        "x-claude-code-session-id": "s",
      };
      const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      await reply.arrayBuffer();
    };
    await send(plain(1), 1_000, 0);
    await send(plain(2), 1_500, 0);
    await send(plain(3), 2_000, 1_500);
    await send({ ...plain(4), system: long("other") }, 2_500, 0);
    await send({ ...plain(5), system: long("other") }, 3_000, 2_500);
    await send({ ...plain(6), system: long("other"), model: "claude-test-b" }, 3_000, 0);
    await send({ ...plain(7), system: long("other"), model: "claude-test-b" }, 3_500, 0);
    const tools = [{ name: "read", input_schema: { type: "object" } }];
    await send({ ...plain(8), system: long("other"), model: "claude-test-b", tools }, 3_500, 0);
    const changed = plain(9) as { messages: { content: string }[] };
    changed.messages[2]!.content = "rewritten";
    await send({ ...changed, system: long("other"), model: "claude-test-b", tools }, 3_500, 0);
    const causes = ["first", "first", "hit", "system", "hit", "model", "provider", "tools", "history"];
    const report = (await (await fetch(`${tokenman.dashboard}/api/prompt-cache?session=s`)).json()) as {
      turns: { result: string; hit_rate: number }[];
      turns_by_result: Record<string, number>;
    };
    assert.deepEqual(report.turns.map(({ result }) => result).reverse(), causes);
    // The ledger has it, too, turn by turn.
    const list = (await (await fetch(`${tokenman.dashboard}/api/requests`)).json()) as {
      rows: { id: string; promptCache: string | null }[];
    };
    const rows = list.rows.toReversed();
    assert.deepEqual(
      rows.map(({ promptCache }) => promptCache),
      causes,
    );
    const row = await (await fetch(`${tokenman.dashboard}/api/requests/${rows[3]!.id}`)).json();
    assert.equal((row as { promptCache: string }).promptCache, "system");
    assert.equal(report.turns.at(-3)?.hit_rate, 0.75);
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /tokenman_prompt_cache_turns_total\{result="hit"\} 2/);
    assert.match(metrics, /tokenman_cache_hints_total\{outcome="hinted"\} 8/);
  });
});

describe("what comes of a client's own hints", () => {
  it("is measured from the usage, with the cause, wherever its marks move, and nothing is changed", async () => {
    const clock = { ms: Date.UTC(2026, 10, 24) };
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [track, dedupPlugin({ now: () => clock.ms })],
      config: `${providersAt(upstream.url)}\n`,
    });
    const mark = { cache_control: { type: "ephemeral" } };
    /** As clients do it: the newest message is a block with a mark, those before are texts again. */
    const hinted = (turns: number, more: object = {}, old = "a"): object => {
      const { messages, ...rest } = plain(turns, old) as { messages: { role: string; content: string }[] };
      const [last] = messages.slice(-1);
      const marked = { role: "user", content: [{ type: "text", text: last!.content, ...mark }] };
      const system = [{ type: "text", text: long("system"), ...mark }];
      return { ...rest, system, messages: [...messages.slice(0, -1), marked], ...more };
    };
    const send = async (
      body: object,
      read: number,
      written: number,
      { afterMs = MINUTE, oauth = false, hour = false } = {},
    ): Promise<void> => {
      clock.ms += afterMs;
      const cacheCreation = {
        ephemeral_5m_input_tokens: hour ? 0 : written,
        ephemeral_1h_input_tokens: hour ? written : 0,
      };
      const said = {
        type: "message",
        model: "claude-test",
        usage: {
          input_tokens: 10,
          cache_read_input_tokens: read,
          cache_creation_input_tokens: written,
          cache_creation: cacheCreation,
          output_tokens: 1,
        },
        stop_reason: "end_turn",
      };
      const headers = ["content-type", "application/json"];
      upstream.next((connection) => connection.reply({ status: 200, headers, body: JSON.stringify(said) }));
      const bytes = JSON.stringify(body);
      const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "x-claude-code-session-id": "s",
          ...(oauth
            ? { authorization: "Bearer sk-ant-oat01-x", "anthropic-beta": "oauth-2025-04-20" }
            : { "x-api-key": "sk-ant-api03-test" }),
        },
        body: bytes,
      });
      await reply.arrayBuffer();
      assert.equal(String(upstream.requests.at(-1)!.body), bytes);
    };
    await send(hinted(1), 0, 1_000);
    await send(hinted(2), 1_000, 500);
    await send(hinted(3), 1_500, 500, { oauth: true });
    await send(hinted(4), 0, 2_500, { afterMs: 6 * MINUTE });
    await send(hinted(5), 0, 3_000);
    await send(hinted(6, { model: "claude-other" }), 0, 3_500);
    await send(hinted(7, { model: "claude-other", tools: [{ name: "t", input_schema: {} }] }), 0, 4_000);
    const tools = [{ name: "t", input_schema: {} }];
    const system = [{ type: "text", text: long("another"), ...mark }];
    await send(hinted(8, { model: "claude-other", tools, system }), 0, 4_500, { hour: true });
    const changed = hinted(9, { model: "claude-other", tools, system }) as {
      messages: { content: unknown }[];
    };
    changed.messages[2]!.content = "rewritten";
    await send(changed, 0, 5_000, { hour: true });
    // An hour's entries outlive six minutes: then it is the provider that had it no more.
    changed.messages.push(
      { role: "assistant", content: "x" } as never,
      { role: "user", content: [{ type: "text", text: "y", ...mark }] } as never,
    );
    await send(changed, 0, 5_500, { afterMs: 6 * MINUTE, hour: true });
    const report = (await (await fetch(`${tokenman.dashboard}/api/prompt-cache?session=s`)).json()) as {
      turns: { result: string; hints: string; expected_tokens: number }[];
    };
    assert.deepEqual(report.turns.map(({ result }) => result).reverse(), [
      "first",
      "hit",
      "hit",
      "expired",
      "provider",
      "model",
      "tools",
      "system",
      "history",
      "provider",
    ]);
    assert.ok(report.turns.every(({ hints }) => hints === "client"));
    assert.equal(report.turns.at(-3)?.expected_tokens, 1_500);
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /tokenman_cache_hints_total\{outcome="client"\} 10/);
  });
});

describe("its figures", () => {
  it("choose a lifetime by what a turn costs", () => {
    const after = (gaps: readonly (number | undefined)[]) => gaps.reduce(withGap, NO_GAPS);
    assert.equal(lifetimeFor(after([MINUTE]), 100, 5, true), "5m");
    assert.equal(lifetimeFor(after([20 * MINUTE]), 100, 5, true), "1h");
    assert.equal(lifetimeFor(after([120 * MINUTE]), 100, 5, true), undefined);
    assert.equal(lifetimeFor(after([undefined, undefined]), 100, 5, true), undefined);
    assert.equal(lifetimeFor(after(Array(50).fill(MINUTE)), 100, 2, true), "5m");
    assert.equal(
      lifetimeFor(after([...Array(20).fill(MINUTE), ...Array(6).fill(20 * MINUTE)]), 100, 2, true),
      "1h",
    );
    assert.equal(
      lifetimeFor(after([...Array(20).fill(MINUTE), ...Array(6).fill(20 * MINUTE)]), 100, 2, false),
      "5m",
    );
  });

  it("know the shortest prompt that a model caches", () => {
    assert.equal(minimumOf("claude-opus-4-5-20251101", {}), 4_096);
    assert.equal(minimumOf("anthropic/claude-haiku-4-5", {}), 4_096);
    assert.equal(minimumOf("us.anthropic.claude-haiku-4-5-20251001-v1:0", {}), 4_096);
    assert.equal(minimumOf("claude-sonnet-4-20250514", {}), 1_024);
    assert.equal(minimumOf("somebody-else", {}), 1_024);
    assert.equal(minimumOf("claude-opus-4-5", { claude: 7, "claude-opus": 9 }), 9);
  });
});
