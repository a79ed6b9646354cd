import assert from "node:assert/strict";
import { test } from "node:test";
import {
  chunkBytes,
  type Gate,
  gate,
  headBytes,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  steps,
} from "@tokenman/plugin-sdk/testkit";
import { processIdentity } from "../../cli/process-identity.ts";
import { gone, Sandbox, untilIn } from "../cli/support/instance.ts";
import { MESSAGE, STOP } from "../support/faulty.ts";
import { outcomesByProcess } from "../support/ledger-file.ts";
import { isWholeChunked, rawClient, requestBytes } from "../support/raw-client.ts";
import { traffic } from "../support/traffic.ts";

const limits = { timeout: 90_000 };

test(
  "two restarts under load: nothing is refused, cut or lost, and the ledger has each request once, as answered",
  limits,
  async (t) => {
    await using box = new Sandbox();
    const start = await box.run("start");
    assert.equal(start.status, 0, start.stderr);
    const proxy = box.record.proxy as string;
    await using load = traffic(proxy, 24);
    const pids = [box.record.pid];
    await load.more(100);
    for (let round = 0; round < 2; round++) {
      const { status, stdout, stderr } = await box.run("restart");
      assert.equal(status, 0, stderr);
      pids.push(box.record.pid);
      assert.match(stdout, new RegExp(`^TokenMan was restarted \\(version \\S+, pid ${pids.at(-1)}\\)\n`));
      assert.match(stdout, new RegExp(`pid ${pids.at(-2)} (finishes \\d+ requests|has no requests left)`));
      assert.equal(box.record.proxy, proxy);
      await load.more(200);
    }
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.ok(load.last > 24, "every connection to an old process ends with a reply that says so");
    // With their last connection the old ones end by themselves; the newest serves.
    await Promise.all(pids.slice(0, 2).map(gone));
    assert.equal((await fetch(`${proxy}/health`)).status, 200);
    assert.equal((await box.run("stop")).status, 0);
    const outcomes = outcomesByProcess(box.dataDir);
    t.diagnostic(JSON.stringify({ whole: load.whole, last: load.last, outcomes }));
    assert.deepEqual(
      outcomes.map((each) => Object.keys(each)),
      [["answered"], ["answered"], ["answered"]],
      "each of the three served, and nothing else came of it",
    );
    const rows = outcomes.reduce((sum, { answered = 0 }) => sum + answered, 0);
    assert.equal(rows, load.whole);
  },
);

/** A background instance before an upstream that answers by script. */
async function world(): Promise<
  AsyncDisposable & { readonly box: Sandbox; readonly upstream: RecordingUpstream }
> {
  const upstream = await recordingUpstream();
  const box = new Sandbox();
  box.config(providersAt(upstream.url));
  const { status, stderr } = await box.run("start");
  assert.equal(status, 0, stderr);
  return {
    box,
    upstream,
    async [Symbol.asyncDispose]() {
      await box[Symbol.asyncDispose]();
      await upstream.stop();
    },
  };
}
const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
/** A stream that ends when the gate is opened. */
const streamUntil = (end: Gate) =>
  steps(STREAM, chunkBytes("event: a\n\n"), end.opened, chunkBytes(STOP), chunkBytes(""));
/** No two are the same: none is answered with another's reply. */
const message = (text: string) => requestBytes({ body: MESSAGE.replace("hi", text) });

test(
  "what comes on a connection that was idle when its process handed over is served, and is the last on it",
  limits,
  async () => {
    await using w = await world();
    const { box, upstream } = w;
    const [end, none] = [gate(), gate()];
    none.open();
    upstream.next(streamUntil(end), streamUntil(none), streamUntil(none));
    const { proxy, dashboard, pid } = box.record;
    const page = await rawClient(dashboard as string);
    await page.send(requestBytes({ method: "GET", target: "/health" }));
    await page.until("ok");
    const idle = await rawClient(proxy as string);
    await idle.send(requestBytes({ method: "GET", target: "/health" }));
    assert.doesNotMatch(await idle.until("ok"), /connection: close/i);
    const stream = await rawClient(proxy as string);
    await stream.send(message("one"));
    await stream.until("event: a");

    assert.equal((await box.run("restart")).status, 0);
    assert.notEqual(box.record.pid, pid);
    const status = await box.run("status");
    assert.match(status.stdout, new RegExp(`is running \\(pid ${box.record.pid},`));
    assert.match(status.stdout, new RegExp(`before +pid ${pid} finishes its requests`));
    assert.deepEqual(
      outcomesByProcess(box.dataDir),
      [{ open: 1 }, {}],
      "what goes on there is not interrupted",
    );

    await page.send(requestBytes({ method: "GET", target: "/api/status" }));
    assert.equal(await page.ended, "end");
    assert.match(page.text, new RegExp(`"pid":${pid},[\\s\\S]*"draining":true`));
    await idle.send(message("two"));
    assert.equal(await idle.ended, "end");
    assert.match(idle.text, /ok[\s\S]*HTTP\/1\.1 200 [\s\S]*connection: close[\s\S]*message_stop/i);
    end.open();
    await stream.until("message_stop");
    // The stream's head was out before the restart: its connection stays until its time is over, or it is used.
    await stream.send(message("three"));
    assert.equal(await stream.ended, "end");
    assert.match(
      stream.text,
      /message_stop[\s\S]*HTTP\/1\.1 200 [\s\S]*connection: close[\s\S]*message_stop/i,
    );
    await gone(pid);
    await box.run("stop");
    assert.deepEqual(outcomesByProcess(box.dataDir), [{ answered: 3 }, {}]);
  },
);

test(
  "an idle connection is closed when its time is over, and with the last one its process ends",
  limits,
  async () => {
    await using box = new Sandbox();
    box.config("idle_timeout = 1\n");
    await box.run("start");
    const { proxy, pid } = box.record;
    const idle = await rawClient(proxy as string);
    await idle.send(requestBytes({ method: "GET", target: "/health" }));
    assert.match(await idle.until("ok"), /keep-alive: timeout=1/i);
    assert.equal((await box.run("restart")).status, 0);
    assert.equal(await idle.ended, "end");
    await gone(pid);
  },
);

test(
  "what the old process has reserved of a budget counts in the new one, until it is settled",
  limits,
  async () => {
    await using w = await world();
    const { box, upstream } = w;
    // A dollar per million tokens in, ten out: 1,000 tokens of output and a short prompt are a little over a cent.
    box.config(`${providersAt(upstream.url)}
[pricing."claude-test"]
input = 1
output = 10
[security.budget]
enabled = true
monthly_limit = 0.021
reserve = "max"
`);
    assert.equal((await box.run("restart")).status, 0);
    const { proxy, pid } = box.record;
    const ask = (content: string) =>
      fetch(`${proxy}/v1/messages`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "x-api-key": "sk-ant-x",
          "anthropic-version": "2023-06-01",
          connection: "close",
        },
        body: JSON.stringify({
          model: "claude-test",
          max_tokens: 1_000,
          messages: [{ role: "user", content }],
        }),
      });
    const end = gate();
    upstream.script(async (call) => {
      await call.received;
      await end.opened;
      await call.reply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: '{"id":"msg_1","type":"message","role":"assistant","model":"claude-test","content":[],"usage":{"input_tokens":20,"output_tokens":7}}',
      });
    });
    const before = ask("before");
    await upstream.request(1);
    assert.equal((await box.run("restart")).status, 0);
    assert.notEqual(box.record.pid, pid);
    const beside = ask("beside");
    await upstream.request(2);
    const refused = await ask("one too many");
    assert.equal(refused.status, 429, "both are reserved, each by its process");
    assert.match(await refused.text(), /TM_BUDGET/);
    end.open();
    assert.deepEqual([(await before).status, (await beside).status], [200, 200]);
    await gone(pid);
    const budget = async () => {
      const reply = await fetch(`${box.record.dashboard}/api/security/budget`);
      const { windows } = (await reply.json()) as { windows: { spent: number; reserved: number }[] };
      return windows[0] as { spent: number; reserved: number };
    };
    let seen = await budget();
    while (seen.reserved > 0) seen = await budget();
    assert.equal(Math.round(seen.spent * 1e9), 2 * (20 * 1_000 + 7 * 10_000));
    assert.equal((await ask("there is room again")).status, 200);
  },
);

test("stop ends the processes that still finish requests, too, within the same time", limits, async () => {
  await using w = await world();
  const { box, upstream } = w;
  const [soon, never] = [gate(), gate()];
  upstream.next(streamUntil(soon));
  upstream.next(streamUntil(never));
  const { proxy, pid } = box.record;
  const ask = async (text: string) => {
    const client = await rawClient(proxy as string);
    await client.send(message(text));
    await client.until("event: a");
    return client;
  };
  const [whole, cut] = [await ask("soon"), await ask("never")];
  assert.equal((await box.run("restart")).status, 0);
  const stopping = box.run("stop", "--timeout", "2");
  await untilIn(box.dataDir, () => box.log.split(/"reason":"SIGTERM".*"shutting down"/).length > 2);
  soon.open();
  const { status, stdout } = await stopping;
  assert.equal(status, 0);
  assert.match(stdout, /requests that took longer than 2 s were cut/);
  await Promise.all([whole.ended, cut.ended]);
  assert.ok(whole.text.includes(STOP) && !cut.text.includes(STOP));
  assert.equal(processIdentity(pid), undefined);
  assert.deepEqual(outcomesByProcess(box.dataDir), [{ answered: 1, failed: 1 }, {}]);
  never.open();
});

test(
  "--drain bounds what the old process waits for: then what is left is broken off, visibly",
  limits,
  async () => {
    await using w = await world();
    const { box, upstream } = w;
    const never = gate();
    upstream.next(streamUntil(never));
    const { proxy, pid } = box.record;
    const client = await rawClient(proxy as string);
    await client.send(message("never"));
    await client.until("event: a");
    assert.equal((await box.run("restart", "--drain", "0.5")).status, 0);
    await client.ended;
    assert.ok(!isWholeChunked(client.text), "a broken stream looks broken");
    await gone(pid);
    assert.deepEqual(outcomesByProcess(box.dataDir), [{ failed: 1 }, {}]);
    never.open();
  },
);
