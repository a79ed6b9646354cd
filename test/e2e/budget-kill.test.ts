import assert from "node:assert/strict";
import { test } from "node:test";
import { gate, providersAt, recordingUpstream, type Script, sendRequest } from "@tokenman/plugin-sdk/testkit";
import { Sandbox } from "../cli/support/instance.ts";

/** 10,000 nano-dollars a token of output: a request reserves ten million for its 1,000, and less than 100,000 for its input. */
const PRICES = '[pricing."claude-test"]\ninput = 1\noutput = 10\n';
const HELD = 10_000_000;
const BUDGET = '[security.budget]\nenabled = true\nmonthly_limit = 0.101\nreserve = "max"\n';
/** Identical requests would share one answer. */
const NO_CACHE = "[cache]\nenabled = false\n";
const HEADERS = [
  "Content-Type",
  "application/json",
  "x-api-key",
  "sk-test",
  "anthropic-version",
  "2023-06-01",
];
const BODY = JSON.stringify({
  model: "claude-test",
  max_tokens: 1_000,
  messages: [{ role: "user", content: "how much is it?" }],
});
const REPLY = JSON.stringify({
  type: "message",
  role: "assistant",
  model: "claude-test",
  content: [{ type: "text", text: "much" }],
  stop_reason: "end_turn",
  usage: { input_tokens: 20, output_tokens: 7 },
});
const SPENT = 20 * 1_000 + 7 * 10_000;

interface Crowd {
  /** Resolves when so many were refused. */
  refused(count: number): Promise<void>;
  /** Resolves when so many were answered. */
  answered(count: number): Promise<void>;
}

/** 200 requests at once, over connections that may break. */
function crowd(proxy: string): Crowd {
  const counts = new Map<number, number>();
  const waiting: { readonly status: number; readonly count: number; readonly open: () => void }[] = [];
  for (let each = 0; each < 200; each++)
    void sendRequest(`${proxy}/v1/messages`, { headers: HEADERS, body: BODY }).then(
      ({ status }) => {
        const count = (counts.get(status) ?? 0) + 1;
        counts.set(status, count);
        for (const waiter of waiting) if (waiter.status === status && waiter.count === count) waiter.open();
      },
      () => {},
    );
  const reached = async (status: number, count: number): Promise<void> => {
    if ((counts.get(status) ?? 0) >= count) return;
    const { opened, open } = gate();
    waiting.push({ status, count, open });
    await opened;
  };
  return { refused: (count) => reached(429, count), answered: (count) => reached(200, count) };
}

async function spentIn(dashboard: string): Promise<{ readonly spent: number; readonly reserved: number }> {
  const reply = await sendRequest(`${dashboard}/api/security/budget`);
  const [window] = JSON.parse(reply.body.toString()).windows;
  return { spent: Math.round(window.spent * 1e9), reserved: Math.round(window.reserved * 1e9) };
}

test("a budget holds over kill -9: what was under way stays spent, and 200 requests at once get what is left", async () => {
  await using upstream = await recordingUpstream();
  const answer: Script = async (call) => {
    await call.received;
    await call.reply({ status: 200, headers: ["Content-Type", "application/json"], body: REPLY });
  };
  const hold: Script = async (call) => call.closed;
  await using sandbox = new Sandbox(`${providersAt(upstream.url)}${PRICES}${BUDGET}${NO_CACHE}`);

  const first = await sandbox.serve();
  // Four of the ten that fit are answered, one after the other; six are under way when it dies.
  upstream.script(answer);
  for (let each = 0; each < 4; each++)
    await sendRequest(`${first.proxy}/v1/messages`, { headers: HEADERS, body: BODY });
  for (let settled = false; !settled; ) {
    const { spent, reserved } = await spentIn(first.dashboard);
    settled = reserved === 0 && spent === 4 * SPENT;
  }
  upstream.script(hold);
  const open = crowd(first.proxy);
  // 0.101 less what the four cost has room for ten reservations.
  await upstream.request(14);
  await open.refused(190);
  assert.equal(upstream.requests.length, 14);
  const gone = new Promise((resolve) => first.child.once("exit", resolve));
  first.child.kill("SIGKILL");
  await gone;

  const second = await sandbox.serve();
  const { spent, reserved } = await spentIn(second.dashboard);
  assert.equal(reserved, 0);
  assert.ok(spent >= 10 * HELD + 4 * SPENT && spent <= 101_000_000, String(spent));
  upstream.script(answer);
  await crowd(second.proxy).refused(200);
  assert.equal(upstream.requests.length, 14, "nothing more is sent");
});

test("after kill -9 there is room for what was settled before", async () => {
  await using upstream = await recordingUpstream();
  const late = gate();
  let count = 0;
  const script: Script = async (call) => {
    await call.received;
    // Four are answered, six never are.
    if (++count > 4) return call.closed;
    await late.opened;
    await call.reply({ status: 200, headers: ["Content-Type", "application/json"], body: REPLY });
  };
  upstream.script(script);
  await using sandbox = new Sandbox(`${providersAt(upstream.url)}${PRICES}${BUDGET}${NO_CACHE}`);
  const first = await sandbox.serve();
  const open = crowd(first.proxy);
  await open.refused(190);
  await upstream.request(10);
  late.open();
  await open.answered(4);
  for (let settled = false; !settled; ) settled = (await spentIn(first.dashboard)).spent === 4 * SPENT;
  const gone = new Promise((resolve) => first.child.once("exit", resolve));
  first.child.kill("SIGKILL");
  await gone;
  assert.equal(upstream.requests.length, 10);

  const second = await sandbox.serve();
  const room = crowd(second.proxy);
  await upstream.request(14);
  await room.refused(196);
  assert.equal(upstream.requests.length, 14, "four more fit, and no fifth");
});
