import assert from "node:assert/strict";
import net, { type AddressInfo } from "node:net";
import { test } from "node:test";
import type { LedgerEnd } from "@tokenman/plugin-sdk";
import { chunkBytes, headBytes, recordingUpstream, type Script, steps } from "@tokenman/plugin-sdk/testkit";
import { startLedgered } from "../support/ledgered.ts";
import { providerTable, QUESTION } from "../support/proxied.ts";
import { rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const limits = { timeout: 30_000 };
const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
const PIECE = chunkBytes('event: ping\ndata: {"type":"ping"}\n\n');
const silent: Script = (call) => call.closed;
const stops: Script = steps(STREAM, PIECE, (call) => call.closed);
/** Goes on for ever, a piece whenever the one before it has left. */
const endless: Script = async (call) => {
  await call.write(STREAM);
  for (;;) {
    await call.write(PIECE);
    await new Promise((resolve) => setImmediate(resolve));
  }
};

/** Questions that are alike may share one answer. */
const question = (number: number): string => QUESTION.replace("hi", `hi ${number}`);

interface Expected {
  readonly status: number | undefined;
  readonly outcome: string;
  readonly attempt: string;
}

function shown({ outcome, attempts }: LedgerEnd): Expected {
  const result = attempts[0]!.result;
  return {
    status: outcome.status,
    outcome: `${outcome.kind} ${outcome.code}`,
    attempt:
      result.kind === "error" ? `${result.kind} ${result.code}` : `${result.kind} ${JSON.stringify(result)}`,
  };
}

test("each time-out has its code, at the client and in the ledger", limits, async () => {
  await using upstream = await recordingUpstream();
  const mute = net.createServer((socket) => void socket.on("error", () => {}).resume());
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  const mutePort = (mute.address() as AddressInfo).port;
  const cut = { kind: "reply", status: 200, body: "upstream-cut" };
  const cases: [Record<string, string | number>, Script, Expected][] = [
    [
      { api_base: `https://127.0.0.1:${mutePort}`, connect_timeout: 0.1 },
      silent,
      {
        status: 504,
        outcome: "refused TM_UPSTREAM_CONNECT_TIMEOUT",
        attempt: "error TM_UPSTREAM_CONNECT_TIMEOUT",
      },
    ],
    [
      { timeout: 0.1 },
      silent,
      { status: 504, outcome: "refused TM_UPSTREAM_TIMEOUT", attempt: "error TM_UPSTREAM_TIMEOUT" },
    ],
    [
      { idle_timeout: 0.1 },
      stops,
      { status: 200, outcome: "partial TM_UPSTREAM_IDLE", attempt: `reply ${JSON.stringify(cut)}` },
    ],
    [
      { total_timeout: 0.1 },
      silent,
      { status: 504, outcome: "refused TM_UPSTREAM_DEADLINE", attempt: "error TM_UPSTREAM_DEADLINE" },
    ],
    [
      { total_timeout: 0.3 },
      endless,
      { status: 200, outcome: "partial TM_UPSTREAM_DEADLINE", attempt: `reply ${JSON.stringify(cut)}` },
    ],
  ];
  for (const [provider, script, expected] of cases) {
    await using tokenman = await startLedgered({
      config: providerTable({ api_base: upstream.url, ...provider }),
    });
    upstream.script(script);
    const client = await rawClient(tokenman.proxy);
    await client.send(requestBytes({ body: QUESTION }));
    const [row] = await tokenman.ended();
    assert.deepEqual(shown(row!), expected);
    if (expected.status === 200) {
      await client.ended;
      assert.ok(!client.text.endsWith("\r\n0\r\n\r\n"), "a broken stream stays visibly broken");
    } else {
      const text = await client.until((all) => all.includes("}}") || all.includes('"}'));
      assert.equal(statusOf(text), expected.status);
      assert.match(text, /"type":"error"/);
    }
    client.leave();
  }
  mute.close();
});

test(
  "server.stream_timeout is the time between bytes of a provider that has none of its own",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ script: stops });
    await using tokenman = await startLedgered({
      config: `[server]\nstream_timeout = 0.1\n${providerTable({ api_base: upstream.url })}`,
    });
    const client = await rawClient(tokenman.proxy);
    await client.send(requestBytes({ body: QUESTION }));
    const [row] = await tokenman.ended();
    assert.equal(row!.outcome.code, "TM_UPSTREAM_IDLE");
    client.leave();
  },
);

test(
  "a provider whose connections are all in use says so, and what waited is served when one is free",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ script: stops });
    await using tokenman = await startLedgered({
      config: providerTable({ api_base: upstream.url, max_connections: 1, timeout: 0.2 }),
    });
    const first = await rawClient(tokenman.proxy);
    await first.send(requestBytes({ body: question(1) }));
    await first.until("ping");
    const second = await rawClient(tokenman.proxy);
    await second.send(requestBytes({ body: question(2) }));
    const [row] = await tokenman.ended();
    assert.deepEqual(shown(row!), {
      status: 503,
      outcome: "refused TM_UPSTREAM_BUSY",
      attempt: "error TM_UPSTREAM_BUSY",
    });
    assert.match(await second.until('"}'), /^HTTP\/1\.1 503 /);
    second.leave();
    const third = await rawClient(tokenman.proxy);
    await third.send(requestBytes({ body: question(3) }));
    first.leave();
    await third.until("ping");
    third.leave();
    await tokenman.ended(2);
  },
);

test("what is no time is refused when it is read, with its place", limits, async () => {
  const cases: [string, RegExp][] = [
    ["timeout = -1", /timeout: expected a number/],
    ["connect_timeout = -0.5", /connect_timeout: expected/],
    ["idle_timeout = nan", /idle_timeout: expected/],
    ["total_timeout = inf", /total_timeout: expected/],
    ["timeout = 1e12", /timeout: expected/],
    ['timeout = "10m"', /timeout: expected/],
    ["max_connections = -1", /max_connections: expected/],
    ["max_connections = 1.5", /max_connections: expected/],
    ["keep_alive_timeout = -1", /keep_alive_timeout: expected/],
    ["max_connection_age = -1", /max_connection_age: expected/],
  ];
  for (const [line, expected] of cases) {
    await assert.rejects(startLedgered({ config: `[providers.anthropic]\n${line}\n` }), (error: Error) => {
      assert.match(error.message, expected, line);
      assert.match(error.message, /tokenman\.toml:\d+:\d+/, line);
      return true;
    });
  }
});
