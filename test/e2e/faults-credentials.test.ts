import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AttemptPolicy, definePlugin } from "@tokenman/plugin-sdk";
import {
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman } from "../support/kernel.ts";
import { bodyText, rawClient, requestBytes } from "../support/raw-client.ts";
import { SessionClient } from "../support/stream-session.ts";

const limits = { timeout: 20_000 };

/** Tries every candidate, whatever it is and whatever the one before said. */
const walker = definePlugin({
  name: "walker",
  version: "1.0.0",
  apiVersion: 1,
  provides: [AttemptPolicy],
  setup(ctx) {
    ctx.provide(AttemptPolicy, {
      holdFirstEvent: () => true,
      next: ({ untried }) =>
        untried[0] === undefined ? { kind: "stop" } : { kind: "try", candidate: untried[0] },
      accept: () => false,
    });
  },
});

/** The servers behind TokenMan, each with its own recorder. */
const NAMES = [
  "anthropic",
  "openai",
  "keyed",
  "keyed-openai",
  "unvouched",
  "local",
  "gateway",
  "azure",
] as const;
type Name = (typeof NAMES)[number];
const servers = {} as Record<Name, RecordingUpstream>;
const KEYS = { FAULTS_KEY_A: "own-key-number-one", FAULTS_KEY_B: "own-key-number-two" };

before(async () => {
  const script = wholeReply({ status: 500, headers: ["Set-Cookie", "no"], body: "{}" });
  for (const name of NAMES) servers[name] = await recordingUpstream({ script });
  Object.assign(process.env, KEYS);
});
after(async () => {
  for (const name of NAMES) await servers[name].stop();
  for (const name of Object.keys(KEYS)) delete process.env[name];
});

function config(priorities: Partial<Record<Name, number>>): string {
  const table = (name: Name, lines: Record<string, unknown>): string =>
    [
      `[providers.${name}]`,
      ...Object.entries({ api_base: servers[name].url, priority: priorities[name] ?? 0, ...lines }).map(
        ([key, value]) => `${key} = ${JSON.stringify(value)}`,
      ),
      "",
    ].join("\n");
  return [
    table("anthropic", { auth: "client" }),
    table("openai", { auth: "client" }),
    table("keyed", { format: "anthropic", auth: "key", key_ref: "env:FAULTS_KEY_A" }),
    table("keyed-openai", { format: "openai", auth: "key", key_ref: "env:FAULTS_KEY_B" }),
    // Takes the client's credential by default; but nobody vouched for its server.
    table("unvouched", { format: "anthropic" }),
    table("azure", { format: "openai", models: ["gpt-5", "claude-x"] }),
    table("local", { format: "openai", auth: "none" }),
    table("gateway", { format: "anthropic", auth: "none", models: ["claude-*", "gpt-5"] }),
    "[routing.model_map]",
    '"alias-keyed" = "keyed/claude-x"',
    '"alias-unvouched" = "unvouched/claude-x"',
    '"alias-local" = "local/llama"',
    '"alias-gateway" = "gateway"',
    "[projects.p.routing]",
    'default_provider = "gateway"',
    "[projects.q.routing]",
    'default_provider = "unvouched"',
  ].join("\n");
}

const CANARY = "canary-of-the-client";
/** Every way in which a client shows who it is. */
const CARRIERS: readonly (readonly string[])[] = [
  [`x-api-key: sk-ant-api-${CANARY}`],
  [`X-API-Key: ${CANARY}`],
  [`Authorization: Bearer sk-ant-oat01-${CANARY}`, "anthropic-beta: oauth-2025-04-20"],
  [`Authorization: Bearer sk-${CANARY}`],
  [`authorization: Basic ${CANARY}`],
  [`api-key: ${CANARY}`],
  [`Authorization: Bearer eyJ${CANARY}.x.y`, `chatgpt-account-id: ${CANARY}`],
  [`Cookie: session=${CANARY}`, `x-goog-api-key: ${CANARY}`, `X-Amz-Security-Token: ${CANARY}`],
  [`Authorization: Bearer ${CANARY}-1`, `x-api-key: ${CANARY}-2`, `api-key: ${CANARY}-3`],
  [`Proxy-Authorization: Basic ${CANARY}`, `X-Tokenman-Token: ${CANARY}`],
];
const MODELS = [
  "claude-x",
  "gpt-5",
  "alias-keyed",
  "alias-unvouched",
  "alias-local",
  "alias-gateway",
  "mock",
];
const VENDOR: readonly (readonly [path: string, vendor: "anthropic" | "openai"])[] = [
  ["/v1/messages", "anthropic"],
  ["/messages", "anthropic"],
  ["/v1/messages/count_tokens", "anthropic"],
  ["/v1/messages/batches/x", "anthropic"],
  ["/v1/chat/completions", "openai"],
  ["/v1/responses", "openai"],
  ["/v1/embeddings", "openai"],
  ["/v1/responses/resp_1/cancel", "openai"],
  ["/v1/audio/speech", "openai"],
];

/** Whose recorder has seen the text. */
function seenBy(text: string): Name[] {
  return NAMES.filter((name) =>
    servers[name].requests.some(({ head, body }) => head.includes(text) || body.includes(text)),
  );
}

for (const [order, priorities] of Object.entries<Partial<Record<Name, number>>>({
  "as configured": {},
  "the owner last": { anthropic: 9, openai: 9 },
  "strangers first": { unvouched: -9, azure: -8, gateway: -7, local: -6 },
  "keys first": { keyed: -9, "keyed-openai": -9 },
})) {
  test(
    `fault 43: a client's credential reaches only the provider it belongs to: ${order}`,
    limits,
    async () => {
      await using tokenman = await startTokenman({ plugins: [walker], config: config(priorities) });
      const client = await rawClient(tokenman.proxy);
      let count = 0;
      for (const [path, vendor] of VENDOR) {
        for (const prefix of ["", "/p/p", "/p/q"]) {
          for (const carrier of CARRIERS) {
            // By its form it is Anthropic's, on whatever path it comes.
            if (vendor === "openai" && /sk-ant-/.test(carrier[0]!)) continue;
            const model = MODELS[count++ % MODELS.length];
            const marked = carrier.map((line) => line.replaceAll(CANARY, `${CANARY}-for-${vendor}`));
            await client.send(
              requestBytes({
                target: `${prefix}${path}`,
                headers: [...marked, ...(vendor === "anthropic" ? ["anthropic-version: 2023-06-01"] : [])],
                body: JSON.stringify({ model, stream: count % 2 === 0, max_tokens: 9, messages: [] }),
              }),
            );
            await client.until(
              (text) => text.split("X-Tokenman-Request-Id").length === count + 1 && /[}\n]$/.test(text),
            );
          }
        }
      }
      client.leave();
      for (const vendor of ["anthropic", "openai"] as const) {
        const reached = seenBy(`${CANARY}-for-${vendor}`);
        assert.deepEqual(
          reached.filter((name) => name !== vendor),
          [],
          `a credential of ${vendor} reached a stranger`,
        );
      }
      assert.deepEqual(
        seenBy("Basic canary"),
        seenBy("authorization: Basic canary"),
        "Proxy-Authorization is the hop's",
      );
      for (const [name, key] of [
        ["keyed", KEYS.FAULTS_KEY_A],
        ["keyed-openai", KEYS.FAULTS_KEY_B],
      ] as const)
        assert.deepEqual(
          seenBy(key).filter((other) => other !== name),
          [],
          `the key of ${name}`,
        );
      if (order === "as configured") {
        // The walk did go round, and the owners were asked in the client's name: else the above proves nothing.
        for (const name of ["anthropic", "openai", "keyed", "keyed-openai", "gateway", "local"] as const)
          assert.ok(servers[name].requests.length > 0, `${name} was asked`);
        assert.deepEqual(seenBy(`${CANARY}-for-anthropic`), ["anthropic"]);
        assert.deepEqual(seenBy(`${CANARY}-for-openai`), ["openai"]);
        assert.deepEqual(seenBy(KEYS.FAULTS_KEY_A), ["keyed"]);
      }
    },
  );
}

test("fault 43: nor do sessions and lists of models show it to anybody else", limits, async () => {
  await using tokenman = await startTokenman({ plugins: [walker], config: config({}) });
  for (const [dialect, vendor] of [
    ["anthropic-messages", "anthropic"],
    ["openai-chat", "openai"],
    ["openai-responses", "openai"],
  ] as const) {
    for (const carrier of CARRIERS) {
      if (vendor === "openai" && /sk-ant-/.test(carrier[0]!)) continue;
      const headers = carrier.flatMap((line) => {
        const [name = "", value = ""] = line.split(": ", 2);
        return [name, value.replaceAll(CANARY, `${CANARY}-in-session-for-${vendor}`)];
      });
      if (vendor === "anthropic") headers.push("anthropic-version", "2023-06-01");
      for (const model of ["claude-x", "alias-keyed", "alias-unvouched", "alias-gateway"]) {
        const template = { dialect, model, max_tokens: 9 };
        const session = await SessionClient.create(`${tokenman.proxy}/v1`, headers, template);
        assert.equal((await session.send({ content: "hi" })).status, 202);
        await using events = session.events();
        await events.until("tokenman.turn.failed");
        await session.delete();
      }
      await sendRequest(`${tokenman.proxy}/v1/models`, { headers });
    }
  }
  for (const vendor of ["anthropic", "openai"] as const) {
    const reached = seenBy(`${CANARY}-in-session-for-${vendor}`);
    assert.deepEqual(reached, [vendor], `a credential of ${vendor}`);
  }
  for (const name of ["anthropic", "openai", "keyed", "keyed-openai", "local"] as const)
    assert.ok(
      servers[name].requests.some(({ target }) => target.startsWith("/v1/models")),
      `${name} was asked for its list`,
    );
  assert.deepEqual(seenBy(KEYS.FAULTS_KEY_A), ["keyed"]);
  assert.deepEqual(seenBy(KEYS.FAULTS_KEY_B), ["keyed-openai"]);
});

test("fault 43: a credential in the query goes to its owner or nowhere", limits, async () => {
  await using tokenman = await startTokenman({ plugins: [walker], config: config({}) });
  for (const [path, vendor] of VENDOR) {
    for (const parameter of ["key", "api_key", "api-key", "access_token", "token"]) {
      const canary = `query-${CANARY}-for-${vendor}`;
      const client = await rawClient(tokenman.proxy);
      await client.send(
        requestBytes({
          target: `${path}?beta=true&${parameter}=${canary}`,
          headers: [
            "Connection: close",
            ...(vendor === "anthropic" ? ["anthropic-version: 2023-06-01"] : []),
          ],
          body: '{"model":"claude-x","messages":[]}',
        }),
      );
      await client.ended;
      assert.deepEqual(
        seenBy(canary).filter((name) => name !== vendor),
        [],
        `${path}?${parameter}=`,
      );
    }
  }
});

test("fault 43: an opaque request that nobody claims takes no credential anywhere", limits, async () => {
  await using tokenman = await startTokenman({ plugins: [walker], config: config({}) });
  for (const path of ["/v1/files", "/v1/unknown", "/", "/v1/files/x/content", "/openai/deployments/x/chat"]) {
    const canary = `opaque-${CANARY}`;
    const client = await rawClient(tokenman.proxy);
    await client.send(
      requestBytes({
        target: path,
        headers: [`Authorization: Bearer ${canary}`, `Cookie: ${canary}`, "Connection: close"],
        body: "{}",
      }),
    );
    await client.ended;
    assert.deepEqual(seenBy(canary), [], `${path}: ${bodyText(client.text)}`);
  }
});

test("fault 43: TokenMan's own token never goes upstream, by whatever header it came", limits, async () => {
  const token = `own-token-${CANARY}`;
  await using tokenman = await startTokenman({
    plugins: [walker],
    config: `[auth]\nenabled = true\nproxy = true\ntoken = "${token}"\n${config({})}`,
  });
  const lines = [
    `Authorization: Bearer ${token}`,
    `x-api-key: ${token}`,
    `api-key: ${token}`,
    `X-Tokenman-Token: ${token}`,
  ];
  for (const [path] of VENDOR) {
    for (const line of lines) {
      const client = await rawClient(tokenman.proxy);
      await client.send(
        requestBytes({ target: path, headers: [line, "Connection: close"], body: '{"model":"claude-x"}' }),
      );
      await client.ended;
      assert.deepEqual(seenBy(token), [], `${path} ${line}`);
    }
  }
});
