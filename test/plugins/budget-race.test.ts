import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gate, providersAt, recordingUpstream, type Script, sendRequest } from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "../support/kernel.ts";

/** A dollar per million tokens in, ten out: 1,000 and 10,000 nano-dollars a token. */
const PRICES = '[pricing."claude-test"]\ninput = 1\noutput = 10\n';
const MAX_TOKENS = 1_000;
const body = JSON.stringify({
  model: "claude-test",
  max_tokens: MAX_TOKENS,
  messages: [{ role: "user", content: "how much is it?" }],
});
const HEADERS = [
  "Content-Type",
  "application/json",
  "x-api-key",
  "sk-test",
  "anthropic-version",
  "2023-06-01",
  // Each is to be sent: the response cache would answer all but one from it.
  "x-tokenman-cache",
  "no-store",
];

function ask(kernel: Tokenman, project = "default") {
  return sendRequest(`${kernel.proxy}/v1/messages`, {
    headers: [...HEADERS, "X-Tokenman-Project", project],
    body,
  });
}

/** A reply that bills these tokens. */
function billing(input: number, output: number): string {
  return JSON.stringify({
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-test",
    content: [{ type: "text", text: "much" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: input, output_tokens: output },
  });
}

interface Window {
  readonly scope: string;
  readonly period: string;
  readonly limit: number;
  readonly spent: number;
  readonly reserved: number;
}
async function windows(kernel: Tokenman): Promise<readonly Window[]> {
  const reply = await sendRequest(`${kernel.dashboard}/api/security/budget`);
  assert.equal(reply.status, 200, reply.body.toString());
  return JSON.parse(reply.body.toString()).windows;
}
/** When nothing is reserved any more. */
async function settled(kernel: Tokenman): Promise<Window> {
  for (;;) {
    const [window] = await windows(kernel);
    if (window!.reserved === 0) return window!;
  }
}

test("fault 35: of 200 requests at once no more are sent than the budget has room for, and it is settled exactly", async () => {
  await using upstream = await recordingUpstream();
  const open = gate();
  const script: Script = async (call) => {
    await call.received;
    await open.opened;
    await call.reply({ status: 200, headers: ["Content-Type", "application/json"], body: billing(20, 7) });
  };
  upstream.script(script);
  // One request may cost 1,000 tokens of output, which is 10 million nano-dollars, and its input, which is less than 100,000.
  const limit = 0.101;
  const config = `${providersAt(upstream.url)}${PRICES}
[security.budget]
enabled = true
monthly_limit = ${limit}
reserve = "max"
`;
  await using kernel = await startTokenman({ config });
  const replies = Array.from({ length: 200 }, () => ask(kernel));
  // The ten that fit wait for their replies; all the others are refused.
  let refused = 0;
  const first = gate();
  for (const reply of replies)
    void reply.then(({ status }) => {
      if (status === 429 && ++refused === 190) first.open();
    });
  await first.opened;
  await upstream.request(10);
  const [during] = await windows(kernel);
  assert.equal(upstream.requests.length, 10);
  assert.equal(during!.spent, 0);
  assert.ok(during!.reserved > 0.1 && during!.reserved <= limit, String(during!.reserved));
  open.open();
  const answered = (await Promise.all(replies)).filter(({ status }) => status === 200);
  assert.equal(answered.length, 10);
  assert.equal(upstream.requests.length, 10);
  const after = await settled(kernel);
  assert.deepEqual(
    { spent: Math.round(after.spent * 1e9), reserved: after.reserved, limit: after.limit },
    { spent: 10 * (20 * 1_000 + 7 * 10_000), reserved: 0, limit },
  );
  // There is room again, and what was refused can be asked again.
  assert.equal((await ask(kernel)).status, 200);
});

test("what is spent stays spent over a restart", async () => {
  await using upstream = await recordingUpstream();
  upstream.script(async (call) => {
    await call.received;
    await call.reply({
      status: 200,
      headers: ["Content-Type", "application/json"],
      body: billing(20, 1_000),
    });
  });
  const dataDir = mkdtempSync(join(tmpdir(), "budget-"));
  const config = `${providersAt(upstream.url)}${PRICES}
[security.budget]
enabled = true
monthly_limit = 0.025
reserve = "max"
`;
  try {
    {
      await using kernel = await startTokenman({ config, dataDir });
      assert.equal((await ask(kernel)).status, 200);
      assert.equal((await ask(kernel)).status, 200);
      assert.equal((await ask(kernel)).status, 429);
      await settled(kernel);
    }
    await using kernel = await startTokenman({ config, dataDir });
    const reply = await ask(kernel);
    assert.equal(reply.status, 429);
    assert.equal(JSON.parse(reply.body.toString()).error.spent, 0.02004);
    assert.equal(upstream.requests.length, 2);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});

test("a stream that its client leaves is settled with what is known of it", async () => {
  await using upstream = await recordingUpstream();
  const event = (type: string, data: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
  upstream.script(async (call) => {
    await call.received;
    await call.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    const usage = { input_tokens: 20, output_tokens: 1 };
    await call.write(
      event("message_start", {
        message: {
          id: "msg_1",
          type: "message",
          role: "assistant",
          model: "claude-test",
          content: [],
          usage,
        },
      }) +
        event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }) +
        event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "one two three four" } }),
    );
    await call.closed;
  });
  const config = `${providersAt(upstream.url)}${PRICES}
[security.budget]
enabled = true
monthly_limit = 1
reserve = "max"
`;
  await using kernel = await startTokenman({ config });
  const leaving = new AbortController();
  const request = http.request(`${kernel.proxy}/v1/messages`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-api-key": "sk-test",
      "anthropic-version": "2023-06-01",
    },
    signal: leaving.signal,
  });
  const cut = gate();
  request.on("error", () => cut.open());
  request.on("response", (response) => {
    response.on("error", () => {});
    response.once("data", () => leaving.abort());
  });
  request.end(JSON.stringify({ ...JSON.parse(body), stream: true }));
  await cut.opened;
  const window = await settled(kernel);
  const spent = Math.round(window.spent * 1e9);
  const output = (spent - 20 * 1_000) / 10_000;
  assert.ok(Number.isInteger(output) && output >= 1 && output < 50, `${spent}`);
});

test("the API shows every window", async () => {
  const config = `[security.budget]
enabled = true
hourly_limit = 1
daily_limit = 2.5
time_zone = "Europe/Berlin"
[security.budget.providers.openai]
monthly_limit = 20
`;
  await using kernel = await startTokenman({ config });
  const reply = await sendRequest(`${kernel.dashboard}/api/security/budget`);
  const { windows: shown, ...rest } = JSON.parse(reply.body.toString());
  assert.deepEqual(rest, {
    enabled: true,
    reserve: "expected",
    unpriced: "allow",
    time_zone: "Europe/Berlin",
  });
  assert.deepEqual(
    shown.map(({ resets_at, ...window }: { resets_at: string }) => {
      assert.ok(Date.parse(resets_at) > Date.now());
      return window;
    }),
    [
      { scope: "total", period: "hourly", limit: 1, spent: 0, reserved: 0 },
      { scope: "total", period: "daily", limit: 2.5, spent: 0, reserved: 0 },
      { scope: "provider:openai", period: "monthly", limit: 20, spent: 0, reserved: 0 },
    ],
  );
});

test("the API shows no window of a limit that a reload took away", async () => {
  await using upstream = await recordingUpstream();
  const budget = (limits: string) => `${providersAt(upstream.url)}${PRICES}[security.budget]
enabled = true
daily_limit = 5
[projects.web.security.budget]
${limits}`;
  await using kernel = await startTokenman({ config: budget("hourly_limit = 1\nmonthly_limit = 9\n") });
  upstream.script(async (call) => {
    await call.received;
    await call.reply({ status: 200, headers: ["Content-Type", "application/json"], body: billing(10, 10) });
  });
  assert.equal((await ask(kernel, "web")).status, 200);
  const shown = async () => (await windows(kernel)).map(({ scope, period, limit }) => [scope, period, limit]);
  assert.deepEqual(await shown(), [
    ["total", "daily", 5],
    ["project:web", "hourly", 1],
    ["project:web", "monthly", 9],
  ]);
  writeFileSync(kernel.configFile, budget("monthly_limit = 7\n"));
  assert.equal((await kernel.reload("a test")).ok, true);
  assert.deepEqual(await shown(), [
    ["total", "daily", 5],
    ["project:web", "monthly", 7],
  ]);
});

test("both limits of a config for the original load and work", async () => {
  await using upstream = await recordingUpstream();
  const config = `${providersAt(upstream.url)}
[security.budget]
enabled = true
hourly_limit = 10
daily_limit = 50.5
monthly_limit = 500
alert_thresholds = [50, 75, 90]
[security.rate_limit]
enabled = true
default_rate = 10
default_burst = 2
[security.rate_limit.provider_limits]
anthropic = 0.001
openai = { rate = 2.5, burst = 4 }
`;
  await using kernel = await startTokenman({ config });
  const statuses: number[] = [];
  for (let each = 0; each < 3; each++) statuses.push((await ask(kernel)).status);
  assert.deepEqual(statuses, [200, 200, 429]);
  assert.deepEqual(
    (await windows(kernel)).map(({ period, limit }) => [period, limit]),
    [
      ["hourly", 10],
      ["daily", 50.5],
      ["monthly", 500],
    ],
  );
  const on = kernel.status().plugins.filter(({ state }) => state === "on");
  assert.ok(on.some(({ name }) => name === "budget") && on.some(({ name }) => name === "rate-limit"));
});
