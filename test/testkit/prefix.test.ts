import assert from "node:assert/strict";
import test from "node:test";
import { definePlugin, type Exchange } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  cachedPrefix,
  conversation,
  conversations,
  providersAt,
  recordingUpstream,
  runPlugin,
  throughKernel,
  throughPlugin,
} from "@tokenman/plugin-sdk/testkit";
import { dialects } from "../support/ask-provider.ts";
import { startTokenman } from "../support/kernel.ts";

function editor(edit: (exchange: Exchange) => void) {
  return definePlugin({
    name: "editor",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => hooks.request.tap(edit));
    },
  });
}

test("conversations grow as an agent's do: each turn begins with the one before, and their dialect reads them", async () => {
  const kinds = new Set<string>();
  for (const turns of conversations(60)) {
    await assertPrefixStable(turns, async (turn) => turn.body);
    const dialect = dialects.find(({ name }) => name === turns[0]!.dialect)!;
    for (const segment of dialect.segments(turns.at(-1)!.body)) kinds.add(`${dialect.name} ${segment.kind}`);
    for (const { body } of turns) JSON.parse(body.toString("utf8"));
  }
  for (const name of ["anthropic-messages", "openai-chat", "openai-responses"])
    for (const kind of ["system", "tool-definition", "text", "tool-call", "tool-result"])
      assert.ok(kinds.has(`${name} ${kind}`), `${name} ${kind}`);
  assert.ok(kinds.has("anthropic-messages thinking"));
  assert.deepEqual(
    conversation({ dialect: "openai-chat", seed: 7 }),
    conversation({ dialect: "openai-chat", seed: 7 }),
  );
});

test("the cache breakpoint of an Anthropic client moves, and is no difference", async () => {
  const [first, second] = conversation({ dialect: "anthropic-messages", seed: 3 });
  assert.ok(!second!.body.subarray(0, first!.body.length).equals(first!.body));
  const prefix = cachedPrefix(first!.body);
  assertBytesEqual(cachedPrefix(second!.body).subarray(0, prefix.length), prefix);
  const moved = Buffer.from(
    '{"messages":[{"cache_control":{"a":1},"x":1},{"y":[{"cache_control":1}]}],"z":1}',
  );
  assertBytesEqual(cachedPrefix(moved), '{"messages":[{"x":1},{"y":[{}]}');
});

test("a plugin that rewrites the same text the same way is stable", async () => {
  await using run = await runPlugin(
    editor((exchange) => {
      for (const segment of exchange.segments)
        if (!segment.sealed && segment.node.kind === "string")
          exchange.edit(segment, segment.text.toUpperCase());
    }),
  );
  for (const turns of conversations(9)) {
    const sent = await assertPrefixStable(turns, throughPlugin(run));
    assert.equal(sent.length, turns.length);
    assert.ok(!sent[0]!.equals(turns[0]!.body));
  }
  assert.deepEqual(
    run.log.filter(({ level }) => level === "error"),
    [],
  );
});

test("a plugin whose rewriting depends on the turn, or on what is newest, is found out", async () => {
  let count = 0;
  const counting = editor((exchange) => {
    const [segment] = exchange.segments.filter(({ role }) => role === "user");
    exchange.edit(segment!, `${segment!.text} ${++count}`);
  });
  const sparingTheNewest = editor((exchange) => {
    const texts = exchange.segments.filter(({ role, kind }) => role === "user" && kind === "text");
    for (const segment of texts.slice(0, -1)) exchange.edit(segment, `${segment.text}!`);
  });
  for (const plugin of [counting, sparingTheNewest]) {
    await using run = await runPlugin(plugin);
    for (const turns of conversations(3))
      await assert.rejects(
        assertPrefixStable(turns, throughPlugin(run)),
        /turn \d does not begin with what turn \d sent, at byte \d+, \/(messages|input)\/\d.*\n {2}actual /,
      );
  }
});

test("a whole TokenMan as it comes sends conversations on byte for byte", async () => {
  await using upstream = await recordingUpstream();
  await using kernel = await startTokenman({ config: providersAt(upstream.url) });
  for (const turns of conversations(3)) {
    const sent = await assertPrefixStable(turns, throughKernel(kernel, upstream));
    for (const [index, body] of sent.entries()) assertBytesEqual(body, turns[index]!.body);
  }
});
