import assert from "node:assert/strict";
import { test } from "node:test";
import { type Dialect, definePlugin, type Format } from "@tokenman/plugin-sdk";
import { startTokenman } from "../support/kernel.ts";

const format: Format = {
  name: "odd",
  defaultBase: "http://127.0.0.1:9",
  hosts: [],
  credentialHeaders: [],
  credential: () => undefined,
  sessionId: () => undefined,
  isSubscription: () => false,
  authorize: () => [],
  claims: () => false,
  errorReply: () => {
    throw new Error("no words");
  },
};
const dialect: Dialect = {
  name: "odd-chat",
  format: "odd",
  routes: [{ method: "POST", path: "/v1/odd" }],
  generates: true,
  describe: () => {
    throw new Error("no description");
  },
  segments: () => {
    throw new Error("no segments");
  },
  usageReader: () => ({ event() {}, body() {}, usage: () => undefined }),
  judgeEvent: () => ({ kind: "content" }),
  judgeError: () => ({ type: undefined, code: undefined, message: undefined, retryable: false }),
};
const odd = definePlugin({
  name: "odd",
  version: "1.0.0",
  apiVersion: 1,
  setup(ctx) {
    ctx.contribute("format", format);
    ctx.contribute("dialect", dialect);
    ctx.contribute("provider", {
      name: "oddity",
      format: "odd",
      apiBase: undefined,
      models: [],
      priority: 0,
      timeouts: { connectMs: 0, headMs: 50, idleMs: 0 },
      auth: "none",
      answer: async (request) => {
        if (request.body.includes("hang")) await new Promise(() => {});
        return { status: 200, body: "odd" };
      },
    });
  },
});

test("a dialect that throws is blamed itself: the router is not, and requests go on", async () => {
  const tokenman = await startTokenman({ plugins: [odd] });
  try {
    // More often than a plugin may fail before it is left out.
    for (let round = 0; round < 12; round++) {
      const reply = await fetch(`${tokenman.proxy}/v1/odd`, { method: "POST", body: '{"a":1}' });
      assert.equal(reply.status, 200);
      assert.equal(await reply.text(), "odd");
    }
    for (const plugin of tokenman.kernel.status().plugins) assert.equal(plugin.failures, 0, plugin.name);
  } finally {
    await tokenman.stop();
  }
});

test("a format that cannot word an error does not take the error away", async () => {
  const tokenman = await startTokenman({ plugins: [odd] });
  try {
    const reply = await fetch(`${tokenman.proxy}/v1/odd`, {
      method: "POST",
      headers: { "x-tokenman-project": "no good" },
      body: "{}",
    });
    assert.equal(reply.status, 400);
    assert.match(await reply.text(), /TM_BAD_REQUEST/);
  } finally {
    await tokenman.stop();
  }
});

test("a provider in this process that does not answer in time is called off", async () => {
  const tokenman = await startTokenman({ plugins: [odd] });
  try {
    const reply = await fetch(`${tokenman.proxy}/v1/odd`, { method: "POST", body: '"hang"' });
    assert.equal(reply.status, 504);
    assert.match(await reply.text(), /TM_UPSTREAM_TIMEOUT/);
  } finally {
    await tokenman.stop();
  }
});
