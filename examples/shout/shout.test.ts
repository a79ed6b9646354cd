import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertBytesEqual,
  errorEvent,
  errorReply,
  runPlugin,
  streamReply,
  textEvents,
  textReply,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import shout from "./index.ts";

const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
const body = { model: "m", stream: true, messages: [] };

for (const [name, path] of Object.entries(PATHS)) {
  const dialect = name as VendorDialect;

  test(`${dialect}: a stream's text is in capitals, event by event, and nothing else is changed`, async () => {
    await using run = await runPlugin(shout);
    const { reply } = await run.send({ path, body }, streamReply(dialect, ["Grüß", ' "dich"\n', ""]));
    assertBytesEqual(reply.body, Buffer.concat(textEvents(dialect, ["GRÜSS", ' "DICH"\n', ""])));
  });

  test(`${dialect}: so is that of a whole body`, async () => {
    await using run = await runPlugin(shout);
    const { reply } = await run.send({ path, body }, textReply(dialect, "Hello, world"));
    assertBytesEqual(reply.body, textReply(dialect, "HELLO, WORLD").body as string);
  });

  test(`${dialect}: errors, and what is not text, pass as they came`, async () => {
    await using run = await runPlugin(shout);
    const refused = await run.send({ path, body }, errorReply(dialect, 429));
    assertBytesEqual(refused.reply.body, errorReply(dialect, 429).body as string);
    const stream = Buffer.concat([
      Buffer.from(": a ping\r\n\r\nid:7\r\ndata: not json\r\n\r\n"),
      errorEvent(dialect),
    ]);
    const { reply } = await run.send(
      { path, body },
      { status: 200, headers: ["Content-Type", "text/event-stream"], body: stream },
    );
    assertBytesEqual(reply.body, stream);
  });
}

test("tool calls and thinking are not shouted", async () => {
  await using run = await runPlugin(shout);
  const body = JSON.stringify({
    content: [
      { type: "thinking", thinking: "quietly", signature: "abc" },
      { type: "tool_use", id: "x", name: "read", input: { text: "as it is" } },
    ],
  });
  const { reply } = await run.send(
    { path: "/v1/messages", body: "{}" },
    { status: 200, headers: ["Content-Type", "application/json"], body },
  );
  assert.equal(String(reply.body), body);
});
