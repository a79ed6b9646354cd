import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { messages } from "../../plugins/anthropic/dialects.ts";
import { chat } from "../../plugins/openai/dialects.ts";
import { OutputSample } from "../../plugins/recorder/output-sample.ts";

const delta = (text: string): string =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text } }] })}\n\n`;

describe("the sample of a stream", () => {
  test("has the text, however the bytes are cut into chunks", () => {
    const words = Array.from({ length: 50 }, (_, index) => `naïve café ${index} → `);
    const bytes = Buffer.from(`: ping\n\n${words.map(delta).join("")}`);
    for (const size of [1, 7, 64, 100_000]) {
      const sample = new OutputSample(chat);
      for (let from = 0; from < bytes.length; from += size) sample.data(bytes.subarray(from, from + size));
      assert.equal(sample.text(), words.join(""));
      assert.equal(sample.scale, 1);
    }
  });

  test("leaves an event out that was cut off in its middle", () => {
    const sample = new OutputSample(chat);
    const bytes = Buffer.from(delta("whole") + delta("half"));
    sample.data(bytes.subarray(0, bytes.length - 20));
    assert.equal(sample.text(), "whole");
  });

  test("is bounded, and says how much longer the whole is", () => {
    const sample = new OutputSample(chat);
    const chunk = Buffer.from(delta("x".repeat(1_000)));
    const count = 1_000;
    for (let index = 0; index < count; index++) sample.data(chunk);
    const text = sample.text();
    assert.ok(text.length > 200_000 && text.length < 256 * 1024);
    const estimated = text.length * sample.scale;
    assert.ok(Math.abs(estimated / (count * 1_000) - 1) < 0.01, String(estimated));
    const one = new OutputSample(chat);
    one.data(Buffer.from(delta("y").repeat(10_000)));
    assert.ok(one.text().length > 0, "a chunk that is longer than the bound is kept in part");
    sample.drop();
    assert.equal(sample.text(), "");
  });

  test("reads events that name themselves", () => {
    const sample = new OutputSample(messages);
    const data = { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "hello" } };
    sample.data(Buffer.from(`event: content_block_delta\r\ndata: ${JSON.stringify(data)}\r\n\r\n`));
    assert.equal(sample.text(), "hello");
  });
});
