import assert from "node:assert/strict";
import test from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { startTokenman } from "../support/kernel.ts";
import { chunkBytes, gate, headBytes, providersAt, recordingUpstream, steps } from "../support/upstream.ts";

test("a kernel with a plugin of the test's sends a client's bytes to the recording upstream", async () => {
  await using upstream = await recordingUpstream();
  const seen: string[] = [];
  const plugin = definePlugin({
    name: "seer",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => void seen.push(exchange.description?.model ?? ""));
      });
    },
  });
  await using tokenman = await startTokenman({
    plugins: [plugin],
    config: providersAt(upstream.url),
  });
  const second = gate();
  upstream.next(
    steps(
      headBytes(200, ["Content-Type", "text/plain", "Transfer-Encoding", "chunked"]),
      chunkBytes("one,"),
      second.opened,
      chunkBytes("two"),
      chunkBytes(""),
    ),
  );
  const body = '{"model":"claude-x",  "max_tokens":1,"messages":[]}';
  const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", "X-Api-Key": "sk-ant-x" },
    body,
  });
  const reader = reply.body!.getReader();
  assert.equal(Buffer.from((await reader.read()).value!).toString(), "one,");
  second.open();
  assert.equal(Buffer.from((await reader.read()).value!).toString(), "two");
  assert.equal((await reader.read()).done, true);
  const request = await upstream.request(1);
  assert.equal(request.body.toString(), body);
  assert.equal(request.header("x-api-key"), "sk-ant-x");
  assert.deepEqual(seen, ["claude-x"]);
  assert.deepEqual(upstream.failures, []);
  assert.equal(tokenman.kernel.status().generation, 1);
});
