import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { CommandContext } from "@tokenman/plugin-sdk";
import { type RunningKernel, startKernel } from "@tokenman/plugin-sdk/testkit";
import parrot from "./index.ts";

async function say(kernel: RunningKernel, path: string, content: string, more: object = {}): Promise<string> {
  const reply = await fetch(kernel.proxy + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "parrot", max_tokens: 9, messages: [{ role: "user", content }], ...more }),
  });
  return reply.text();
}

async function listed(dataDir: string, options: Readonly<Record<string, unknown>> = {}): Promise<string[]> {
  const lines: string[] = [];
  const context = { host: { dataDir }, options, print: (line: string) => void lines.push(line) };
  await parrot.commands?.[0]?.run(context as unknown as CommandContext);
  return lines;
}

test("repeats what it is told, in both dialects, and lists what it heard most often first", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "parrot-"));
  try {
    assert.deepEqual(await listed(dataDir), [
      "The parrot has learnt nothing yet. Talk to it: its model is called parrot.",
    ]);
    {
      await using kernel = await startKernel({ plugins: [parrot], dataDir });
      const message = JSON.parse(await say(kernel, "/v1/messages", "Polly"));
      assert.equal(message.content[0].text, "Polly");
      // It remembers over a reload, and over a restart.
      assert.equal((await kernel.reload("the test's")).ok, true);
      const completion = JSON.parse(await say(kernel, "/v1/chat/completions", "cracker\u001b[31m"));
      assert.equal(completion.choices[0].message.content, "cracker\u001b[31m");
    }
    {
      await using kernel = await startKernel({ plugins: [parrot], dataDir });
      await say(kernel, "/v1/messages", "cracker\u001b[31m");
    }
    assert.deepEqual(await listed(dataDir), ['    2  "cracker\\u001b[31m"', '    1  "Polly"']);
    assert.deepEqual(await listed(dataDir, { json: true }), ['[["cracker\\u001b[31m",2],["Polly",1]]']);
  } finally {
    await rm(dataDir, { recursive: true });
  }
});

test("streams word by word", async () => {
  await using kernel = await startKernel({ plugins: [parrot] });
  const anthropic = await say(kernel, "/v1/messages", "one two", { stream: true });
  assert.deepEqual(anthropic.match(/"text":"[^"]*"/g), ['"text":""', '"text":"one "', '"text":"two"']);
  assert.match(anthropic, /event: message_stop\ndata: .*\n\n$/);
  const chat = await say(kernel, "/v1/chat/completions", "one two", { stream: true });
  assert.deepEqual(chat.match(/"content":"[^"]*"/g), ['"content":""', '"content":"one "', '"content":"two"']);
  assert.ok(chat.endsWith("data: [DONE]\n\n"));
});

test("what it cannot answer it refuses in the client's dialect", async () => {
  await using kernel = await startKernel({ plugins: [parrot] });
  const reply = await fetch(`${kernel.proxy}/v1/responses`, {
    method: "POST",
    body: JSON.stringify({ model: "parrot", input: "hello" }),
  });
  assert.equal(reply.status, 404);
  const { error } = (await reply.json()) as { error: { message: string } };
  assert.match(error.message, /Messages and Chat only/);
  assert.match(await say(kernel, "/v1/messages", ""), /Squawk\?|"text":""/);
});
