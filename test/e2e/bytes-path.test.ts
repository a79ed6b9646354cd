import assert from "node:assert/strict";
import { test } from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { requestBytes, startRelay } from "../support/relay.ts";

const ANTHROPIC = ["anthropic-version: 2023-06-01", "x-api-key: sk-ant-1", "content-type: application/json"];
const BODY = Buffer.from('{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}');

/** Spellings of `/v1/messages`, each of which goes out as it came. */
const SPELLINGS = [
  "/v1/messages",
  "/v1/mess%61ges",
  "/v1/messages/",
  "/v1/messages/?beta=true",
  "//v1/messages",
  "/v1//messages",
  "/V1/Messages",
  "/v1/./messages",
  "/v1/%2e/messages",
  "/v1/x/../messages",
  "/v1/x/%2E%2e/messages",
  "/v1%2fmessages",
  "/v1%5Cmessages",
  "/v1\\messages",
  "/v1/messages;a",
  "/v1;a=1/messages;x=1?beta=true",
  "/v1/messages/;a",
  "/;a/v1/messages",
  "/v1/x/..;a/messages",
  "/v1/messages%3Ba",
];
/** Spellings without the version, and where they go. */
const VERSIONLESS = [
  ["/messages", "/v1/messages"],
  ["//mess%61ges/", "/v1//mess%61ges/"],
] as const;
/** What no provider reads as a path that is known. */
const OPAQUE = [
  "/v1/mess%2561ges",
  "/v1/messages%00",
  "/v1/messagesa;",
  "/v1/messages%3Fa",
  "/v1/x/messages",
];

test("a path is known in every spelling that a provider may read as it, and goes out as it came", async () => {
  const seen: (readonly [string | undefined, string])[] = [];
  const spy = definePlugin({
    name: "spy",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap(({ dialect, request }) => void seen.push([dialect?.name, request.path]));
      });
    },
  });
  await using relay = await startRelay({ plugins: [spy] });
  using client = await relay.client();
  const ask = async (target: string): Promise<void> => {
    const { status } = await client.ask(requestBytes({ target, lines: ANTHROPIC, body: BODY }));
    assert.equal(status, 200, target);
  };
  for (const [target, sent] of [...SPELLINGS.map((same) => [same, same] as const), ...VERSIONLESS]) {
    await ask(target);
    assert.deepEqual(seen.pop(), ["anthropic-messages", "/v1/messages"], target);
    assert.equal(relay.upstream.last().target, sent);
  }
  for (const target of OPAQUE) {
    await ask(target);
    assert.deepEqual(seen.pop(), [undefined, target]);
    assert.equal(relay.upstream.last().target, target);
  }
});

test("a body limit, a refusal's shape and a count hold for every spelling of a path", async () => {
  await using relay = await startRelay({ config: "[server]\nmax_body_size = 32\n" });
  using client = await relay.client();
  for (const target of ["/v1/messages", "//v1/messages", "/v1/mess%61ges/", "/v1/messages;x=1"]) {
    const reply = await client.ask(requestBytes({ target, lines: ANTHROPIC, body: BODY }));
    assert.equal(reply.status, 413, target);
    assert.equal(JSON.parse(reply.body.toString()).type, "error", "in Anthropic's shape");
  }
});

test("a target with a fragment is refused in its vendor's shape, and goes nowhere", async () => {
  await using relay = await startRelay();
  for (const target of [
    "/v1/messages#a",
    "/v1/messages?beta=true#a",
    "/v1/messages#",
    "/p/web#a",
    "/p/web/v1/messages#a",
    "http://127.0.0.1/v1/messages#a",
    "/v1/x#/../messages",
  ]) {
    using client = await relay.client();
    const reply = await client.ask(requestBytes({ target, lines: ANTHROPIC, body: BODY }));
    assert.equal(reply.status, 400, target);
    const said = JSON.parse(reply.body.toString());
    assert.equal(said.type, "error", "in Anthropic's shape");
    assert.match(JSON.stringify(said), /fragment/);
  }
  assert.equal(relay.upstream.requests.length, 0);
  using client = await relay.client();
  const { status } = await client.ask(
    requestBytes({ target: "/v1/messages%23a", lines: ANTHROPIC, body: BODY }),
  );
  assert.deepEqual([status, relay.upstream.last().target], [200, "/v1/messages%23a"]);
});
