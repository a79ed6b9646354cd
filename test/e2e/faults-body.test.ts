import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import { definePlugin } from "@tokenman/plugin-sdk";
import { wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { HOSTILE_BODIES } from "../support/hostile.ts";
import { bodyText, rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const limits = { timeout: 20_000 };

/** Reads what a guard would: the decoded body, the description, the segments. */
function inspector() {
  const seen: { body: string | undefined; model: string | undefined; texts: string[] }[] = [];
  const plugin = definePlugin({
    name: "inspector",
    version: "1.0.0",
    apiVersion: 1,
    setup: (ctx) =>
      ctx.pipeline((_, hooks) =>
        hooks.request.tap((exchange) => {
          seen.push({
            body: exchange.request.body?.toString(),
            model: exchange.description?.model,
            texts: exchange.segments.map(({ text }) => text),
          });
        }),
      ),
  });
  return { plugin, seen };
}

test("fault 20: a coded body is inspected on a decoded copy and forwarded as it came", limits, async () => {
  const { plugin, seen } = inspector();
  await using b = await bench({ plugins: [plugin] });
  b.upstream.script(OK);
  const codings: [string, Buffer][] = [
    ["gzip", zlib.gzipSync(MESSAGE)],
    ["br", zlib.brotliCompressSync(MESSAGE)],
    ["zstd", zlib.zstdCompressSync(MESSAGE)],
  ];
  for (const [coding, body] of codings) {
    const client = await b.ask({ headers: [`Content-Encoding: ${coding}`, "Connection: close"], body });
    await client.ended;
    assert.equal(statusOf(client.text), 200);
    assert.deepEqual(b.upstream.last().body, body);
    assert.equal(b.upstream.last().header("content-encoding"), coding);
    assert.equal(seen.at(-1)?.body, MESSAGE);
    assert.equal(seen.at(-1)?.model, "claude-x");
  }
});

test(
  "fault 20: what does not decode, or not within the bound, is forwarded uninspected",
  limits,
  async () => {
    const { plugin, seen } = inspector();
    await using b = await bench({ plugins: [plugin], server: "max_body_size = 1000000" });
    b.upstream.script(OK);
    const bomb = zlib.gzipSync(Buffer.alloc(50_000_000, "[["));
    const bodies: [string, Buffer][] = [
      ["gzip", bomb],
      ["br", zlib.brotliCompressSync(Buffer.alloc(50_000_000))],
      ["gzip", Buffer.from("not gzip")],
      ["x-martian", Buffer.from(MESSAGE)],
      ["gzip, br", zlib.brotliCompressSync(zlib.gzipSync(MESSAGE))],
    ];
    const before = process.memoryUsage().rss;
    for (const [coding, body] of bodies) {
      const client = await b.ask({ headers: [`Content-Encoding: ${coding}`, "Connection: close"], body });
      await client.ended;
      assert.deepEqual(b.upstream.last().body, body, coding);
      assert.equal(seen.at(-1)?.body, undefined, coding);
    }
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 60_000_000, `${grown} bytes of memory for a bomb of a bounded copy`);
  },
);

test(
  "fault 25: bad JSON, wrong types and a missing model are forwarded for the provider to judge",
  limits,
  async () => {
    const { plugin } = inspector();
    await using b = await bench({ plugins: [plugin] });
    const verdict = '{"type":"error","error":{"type":"invalid_request_error","message":"no"}}';
    b.upstream.script(
      wholeReply({ status: 400, headers: ["Content-Type", "application/json"], body: verdict }),
    );
    for (const body of [
      "",
      "{",
      "hello",
      "[]",
      '"x"',
      "7",
      '{"model":7}',
      '{"model":null,"messages":{}}',
      '{"messages":[]}',
    ]) {
      const client = await b.ask({ body, headers: ["Connection: close"] });
      await client.ended;
      assert.equal(statusOf(client.text), 400);
      assert.equal(bodyText(client.text), verdict);
      assert.equal(b.upstream.last().body.toString(), body);
    }
  },
);

test("fault 25: TokenMan's own refusals take the dialect's shape", limits, async () => {
  await using b = await bench({ more: '[routing.model_map]\n"gpt-*" = "anthropic"\n' });
  const client = await b.ask({
    target: "/v1/chat/completions",
    body: '{"model":"gpt-9","messages":[]}',
    headers: ["Connection: close"],
  });
  await client.ended;
  const { error } = JSON.parse(bodyText(client.text)) as { error: Record<string, unknown> };
  assert.deepEqual(Object.keys(error).sort(), ["code", "message", "param", "type"]);
  assert.equal(error["code"], "TM_NO_PROVIDER");
  assert.equal(b.upstream.connections, 0);
});

test(
  "fault 26: bodies that a parser may stumble over are forwarded byte for byte, whatever was read of them",
  limits,
  async () => {
    const { plugin, seen } = inspector();
    await using b = await bench({ plugins: [plugin], more: "[openai]\ninclude_usage = false\n" });
    b.upstream.script(OK);
    const targets = ["/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"];
    const client = await rawClient(b.tokenman.proxy);
    let count = 0;
    for (const target of targets) {
      for (const [name, body] of HOSTILE_BODIES) {
        await client.send(
          requestBytes({ target, body, headers: body.length === 0 ? ["Content-Length: 0"] : [] }),
        );
        count++;
        await client.until((text) => text.endsWith("}") && b.upstream.requests.length === count);
        await b.outcomes.settled(count);
        assert.deepEqual(b.upstream.last().body, body, `${target}: ${name}`);
      }
    }
    assert.equal(seen.length, count);
    assert.deepEqual([...new Set(b.outcomes.all.map(summary))], ["answered 200"]);
    assert.equal(({} as { model?: string }).model, undefined, "nobody's prototype was changed");
    client.leave();
  },
);
