import assert from "node:assert/strict";
import net from "node:net";
import { test } from "node:test";
import { type Provider, TokenmanError } from "@tokenman/plugin-sdk";
import {
  chunkBytes,
  FakeClock,
  gate,
  headBytes,
  recordingUpstream,
  steps,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { ask, connecting, listening, MINUTE, providerAt } from "./support/calls.ts";

const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, body: "ok" });

test(
  "fault 16: a silent call is not cut at 300 s, nor when the wall clock jumps; at its time-out it is",
  limits,
  async () => {
    await using upstream = await recordingUpstream();
    using connections = connecting();
    using clock = new FakeClock();
    const answer = gate();
    upstream.next(steps(answer.opened, OK));
    const first = ask(connections, providerAt(upstream.url), Buffer.from("{}"));
    await upstream.request(1);
    await clock.advance(599_000);
    clock.jump(86_400_000);
    await clock.advance(500);
    answer.open();
    assert.equal(await first.end, "200 ok");

    upstream.next((call) => call.closed);
    const second = ask(connections, providerAt(upstream.url), Buffer.from("{}"));
    await upstream.request(2);
    clock.jump(-86_400_000);
    await clock.advance(600_000);
    assert.equal(await second.end, "TM_UPSTREAM_TIMEOUT sent");
  },
);

test("fault 3: the time between two bytes is counted anew with each of them", limits, async () => {
  await using upstream = await recordingUpstream();
  using connections = connecting();
  using clock = new FakeClock();
  const head = headBytes(200, ["Transfer-Encoding", "chunked"]);
  const more = [gate(), gate()];
  upstream.next(
    steps(
      head,
      chunkBytes("a"),
      more[0]!.opened,
      chunkBytes("b"),
      more[1]!.opened,
      chunkBytes("c"),
      (call) => call.closed,
    ),
  );
  const asked = ask(connections, providerAt(upstream.url, { idleMs: 60_000 }), Buffer.from("{}"));
  await asked.came("a");
  for (const [index, text] of ["ab", "abc"].entries()) {
    await clock.advance(59_000);
    more[index]!.open();
    await asked.came(text);
  }
  await clock.advance(60_000);
  assert.equal(await asked.end, "200 abc TM_UPSTREAM_IDLE");
});

test("total_timeout ends an attempt wherever it is: connecting, waiting, streaming", limits, async () => {
  await using upstream = await recordingUpstream();
  const mute = net.createServer((socket) => void socket.on("error", () => {}).resume());
  const port = await listening(mute);
  using connections = connecting();
  using clock = new FakeClock();
  const total = { totalMs: 30_000, connectMs: 0 };
  const connectingCall = ask(connections, providerAt(`https://127.0.0.1:${port}`, total), Buffer.from("{}"));
  await clock.advance(30_000);
  assert.equal(await connectingCall.end, "TM_UPSTREAM_DEADLINE");
  mute.close();

  upstream.next((call) => call.closed);
  const waiting = ask(connections, providerAt(upstream.url, total), Buffer.from("{}"));
  await upstream.request(1);
  await clock.advance(30_000);
  assert.equal(await waiting.end, "TM_UPSTREAM_DEADLINE sent");

  upstream.next(
    steps(headBytes(200, ["Transfer-Encoding", "chunked"]), chunkBytes("a"), (call) => call.closed),
  );
  const streaming = ask(connections, providerAt(upstream.url, total), Buffer.from("{}"));
  await streaming.head;
  await clock.advance(30_000);
  assert.equal(await streaming.end, "200 a TM_UPSTREAM_DEADLINE");

  upstream.next(OK);
  assert.equal(await ask(connections, providerAt(upstream.url, total), Buffer.from("{}")).end, "200 ok");
});

test(
  "fault 15: a name is looked up for each connection, and one that is old takes no further request",
  limits,
  async () => {
    await using here = await recordingUpstream({ script: wholeReply({ status: 200, body: "old" }) });
    const moved = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"));
    });
    await listening(moved, "127.0.0.2", here.port);
    let address = "127.0.0.1";
    let lookups = 0;
    using connections = connecting({
      lookup(_name, options, done) {
        lookups++;
        if (options.all === true) done(null, [{ address, family: 4 }]);
        else done(null, address, 4);
      },
    });
    using clock = new FakeClock();
    // Longer than its age, which is not the reason for closing it.
    const connection = { keepAliveMs: 60 * MINUTE };
    const provider = providerAt(`http://api.example.test:${here.port}`, {}, connection);
    assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 old");
    assert.equal(here.last().header("host"), `api.example.test:${here.port}`);
    address = "127.0.0.2";
    await clock.advance(9 * MINUTE);
    assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 old");
    assert.deepEqual([here.connections, lookups], [1, 1]);
    await clock.advance(MINUTE);
    assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 new");
    assert.equal(lookups, 2);
    moved.close();
    connections.close();
  },
);

test(
  "a name with several addresses is reached by the one that answers; one without any fails at once",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ script: OK });
    const dead = { address: "127.0.0.3", family: 4 };
    const live = { address: "127.0.0.1", family: 4 };
    using connections = connecting({
      lookup(name, _options, done) {
        if (name === "none.test")
          done(Object.assign(new Error("none"), { code: "ENOTFOUND" }), [], undefined);
        else done(null, [{ address: "::1", family: 6 }, dead, live]);
      },
    });
    const asked = ask(connections, providerAt(`http://many.test:${upstream.port}`), Buffer.from("{}"));
    assert.equal(await asked.end, "200 ok");
    const none = ask(connections, providerAt("http://none.test"), Buffer.from("{}"));
    assert.equal(await none.end, "TM_UPSTREAM_CONNECT");
  },
);

test(
  "connections are limited where the provider says so; who waits is served in turn, or goes",
  limits,
  async () => {
    await using upstream = await recordingUpstream();
    using connections = connecting();
    const provider = providerAt(upstream.url, {}, { maxConnections: 2 });
    const gates = [gate(), gate(), gate(), gate(), gate()];
    for (const each of gates) upstream.next(steps(each.opened, OK));
    const asked = [0, 1, 2, 3, 4].map((number) =>
      ask(connections, provider, Buffer.from("{}"), `/v1/${number}`),
    );
    await upstream.request(2);
    asked[3]!.call.abort();
    assert.equal(await asked[3]!.end, "TM_CLIENT_GONE");
    gates[0]!.open();
    assert.equal(await asked[0]!.end, "200 ok");
    assert.equal((await upstream.request(3)).target, "/v1/2");
    // A failure frees its place too.
    asked[1]!.call.abort();
    assert.equal(await asked[1]!.end, "TM_CLIENT_GONE sent");
    assert.equal((await upstream.request(4)).target, "/v1/4");
    for (const each of gates) each.open();
    assert.equal(await asked[2]!.end, "200 ok");
    assert.equal(await asked[4]!.end, "200 ok");
    assert.equal(upstream.connections, 3, "two, and one in the place of the one that was broken off");
  },
);

test("who waits for a connection does so for the time to the head at the most", limits, async () => {
  await using upstream = await recordingUpstream();
  using connections = connecting();
  using clock = new FakeClock();
  const provider = providerAt(upstream.url, { headMs: 30_000 }, { maxConnections: 1 });
  upstream.next(
    steps(headBytes(200, ["Transfer-Encoding", "chunked"]), (call) => call.closed),
    OK,
  );
  const first = ask(connections, provider, Buffer.from("{}"));
  await first.head;
  const second = ask(connections, provider, Buffer.from("{}"));
  await clock.advance(30_000);
  assert.equal(await second.end, "TM_UPSTREAM_BUSY");
  first.call.abort();
  assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 ok");
});

test("a storm over few connections loses nobody, whatever breaks", limits, async () => {
  await using upstream = await recordingUpstream();
  using connections = connecting();
  const provider = providerAt(upstream.url, {}, { maxConnections: 4 });
  let open = 0;
  let most = 0;
  let count = 0;
  upstream.script(async (call) => {
    await call.received;
    most = Math.max(most, ++open);
    await new Promise((resolve) => setImmediate(resolve));
    open--;
    if (++count % 7 === 0) call.reset();
    else await OK(call);
  });
  const ends = await Promise.all(
    Array.from({ length: 300 }, async (_, number) => {
      const { call, end } = ask(connections, provider, Buffer.from("{}"));
      if (number % 11 === 0) setImmediate(() => call.abort());
      return end;
    }),
  );
  const kinds = new Set(ends);
  assert.ok(
    [...kinds].every((kind) => /^(200 ok|TM_UPSTREAM_RESET sent|TM_CLIENT_GONE( sent)?)$/.test(kind)),
    [...kinds].join(),
  );
  assert.ok(most <= 4, `${most} at once`);
  assert.equal(
    await ask(connections, provider, Buffer.from("{}")).end.then((end) => /200|RESET/.test(end)),
    true,
  );
});

test("idle connections make room for others where sockets are few", limits, async () => {
  await using here = await recordingUpstream({ script: OK });
  await using there = await recordingUpstream({ script: OK });
  using connections = connecting({ maxSockets: 2 });
  const busy = [gate(), gate()];
  const closed = gate();
  for (const each of busy) {
    here.next(
      steps(each.opened, OK, (call) => {
        void call.closed.then(() => closed.open());
      }),
    );
  }
  const first = busy.map(() => ask(connections, providerAt(here.url), Buffer.from("{}")));
  await here.request(2);
  for (const each of busy) each.open();
  for (const { end } of first) assert.equal(await end, "200 ok");
  assert.equal(await ask(connections, providerAt(there.url), Buffer.from("{}")).end, "200 ok");
  await closed.opened;
  assert.equal(await ask(connections, providerAt(here.url), Buffer.from("{}")).end, "200 ok");
  assert.deepEqual([here.connections, there.connections], [2, 1], "and no more than is needed of them");
});

test(
  "connections are not kept where the provider says so, and are where it says nothing",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ script: OK });
    using connections = connecting();
    for (const [connection, expected] of [
      [{ keepAliveMs: 0 }, 2],
      [undefined, 3],
      [{ maxAgeMs: 0 }, 4],
    ] as const) {
      const provider = providerAt(upstream.url, {}, connection);
      assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 ok");
      assert.equal(await ask(connections, provider, Buffer.from("{}")).end, "200 ok");
      assert.equal(upstream.connections, expected);
    }
  },
);

test(
  "providers of equal options share their connections over a reload; others of a gone one are closed",
  limits,
  async () => {
    await using upstream = await recordingUpstream({ script: OK });
    using connections = connecting();
    const same = (): Provider => providerAt(upstream.url, {}, { maxConnections: 3 });
    assert.equal(await ask(connections, same(), Buffer.from("{}")).end, "200 ok");
    connections.keepOnly([same()], 0);
    assert.equal(await ask(connections, same(), Buffer.from("{}")).end, "200 ok");
    assert.equal(upstream.connections, 1);

    const slow = gate();
    upstream.next(steps(slow.opened, OK));
    const old = same();
    const inFlight = ask(connections, old, Buffer.from("{}"));
    await upstream.request(3);
    connections.keepOnly([providerAt(upstream.url, {}, { maxConnections: 4 })], 0);
    slow.open();
    assert.equal(await inFlight.end, "200 ok", "what is in flight ends");
    assert.equal(
      await ask(connections, old, Buffer.from("{}")).end,
      "200 ok",
      "and an old generation may go on",
    );
    assert.equal(upstream.connections, 2);
  },
);

test("a provider without an address is told so", () => {
  using connections = connecting();
  const nowhere: Provider = { ...providerAt("http://x"), apiBase: undefined };
  assert.throws(
    () => connections.to(nowhere, 0),
    (error: unknown) => error instanceof TokenmanError && error.code === "TM_NO_PROVIDER",
  );
});
