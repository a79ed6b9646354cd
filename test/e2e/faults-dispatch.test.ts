import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type AddressInfo } from "node:net";
import { test } from "node:test";
import { chunkBytes, gate, headBytes, type Script, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { bodyText, rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const JSON_TYPE = ["Content-Type", "application/json"];
const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, headers: JSON_TYPE, body: '{"ok":1}' });
/** An opaque path: its body streams through. */
const UPLOAD = "/v1/messages/files-upload";
const reset: Script = async (call) => {
  await call.received;
  call.reset();
};

test("fault 8: an early response during an upload is relayed, and the upload stops", limits, async () => {
  await using b = await bench();
  b.upstream.next(async (call) => {
    await call.write(headBytes(413, [...JSON_TYPE, "Content-Length", "7", "Connection", "close"]));
    await call.write('{"no":1}'.slice(0, 7));
    await call.end();
  });
  const client = await rawClient(b.tokenman.proxy);
  const total = 64 * 1024 * 1024;
  await client.send(requestBytes({ target: UPLOAD, headers: [`Content-Length: ${total}`] }));
  await client.send(Buffer.alloc(64 * 1024));
  await client.until('{"no":1');
  assert.equal(statusOf(client.text), 413);
  assert.equal(summary(await b.outcomes.settled(1)), "answered 413");
  assert.ok(b.upstream.requests[0]!.body.length < total);
  client.leave();
});

test(
  "fault 8: a client that goes on sending after an early response can reuse its connection",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(async (call) => {
      await call.reply({ status: 400, headers: [...JSON_TYPE, "Connection", "close"], body: "{}" });
      await call.end();
    }, OK);
    const client = await rawClient(b.tokenman.proxy);
    const total = 8 * 1024 * 1024;
    await client.send(requestBytes({ target: UPLOAD, headers: [`Content-Length: ${total}`] }));
    // The head goes upstream with the first of the body.
    await client.send("x");
    await client.until("{}");
    await client.send(Buffer.alloc(total - 1));
    await client.send(requestBytes({ body: MESSAGE }));
    await client.until('{"ok":1}');
    client.leave();
    await b.outcomes.settled(2);
  },
);

test(
  "fault 8: a reply that begins while a slow upload goes on is not cut, however long both take",
  limits,
  async () => {
    await using b = await bench();
    const more = gate();
    b.upstream.next(async (call) => {
      await call.write(
        Buffer.concat([headBytes(200, ["Transfer-Encoding", "chunked"]), chunkBytes("first")]),
      );
      await call.received;
      await call.write(Buffer.concat([chunkBytes("last"), chunkBytes("")]));
    });
    const client = await rawClient(b.tokenman.proxy);
    await client.send(requestBytes({ target: UPLOAD, headers: ["Content-Length: 6"] }));
    await client.send("abc");
    await client.until("first");
    more.open();
    await client.send("def");
    await client.until("last\r\n0\r\n\r\n");
    assert.equal((await b.upstream.request(1)).body.toString(), "abcdef");
    assert.equal(summary(await b.outcomes.settled(1)), "answered 200");
    client.leave();
  },
);

test(
  "fault 8: 1xx replies go on to the client, and a 100 that nobody asked for harms nobody",
  limits,
  async () => {
    await using b = await bench();
    const hints = headBytes(103, ["Link", "</a>; rel=preload", "Link", "</b>", "X-Odd", "1"]);
    b.upstream.next(
      steps(headBytes(102), hints, OK),
      steps(headBytes(100), OK),
      steps(headBytes(100).subarray(0, 20), headBytes(100).subarray(20), headBytes(100), hints, OK),
    );
    const client = await b.ask();
    await client.until('{"ok":1}');
    assert.match(client.text, /^HTTP\/1\.1 102 [\s\S]*HTTP\/1\.1 103 [\s\S]*HTTP\/1\.1 200 /);
    assert.match(client.text, /link: <\/a>; rel=preload\r\n/i);
    assert.match(client.text, /x-odd: 1\r\n/i);
    client.leave();

    for (const number of [2, 3]) {
      const next = await b.ask();
      await next.until('{"ok":1}');
      assert.doesNotMatch(next.text, /HTTP\/1\.1 100/);
      assert.equal(summary(await b.outcomes.settled(number)), "answered 200");
      next.leave();
    }
    const old = await b.ask({ version: "1.0" });
    b.upstream.next(steps(hints, OK));
    await old.ended;
    assert.doesNotMatch(old.text, /HTTP\/1\.1 103/, "HTTP/1.0 knows no 1xx");
  },
);

test("fault 9: a redirect is relayed, never followed", limits, async () => {
  await using elsewhere = await bench();
  await using b = await bench();
  for (const status of [301, 302, 303, 307, 308]) {
    const location = `${elsewhere.upstream.url}/v1/messages`;
    b.upstream.next(wholeReply({ status, headers: ["Location", location], body: "" }));
    const client = await b.ask({ headers: ["x-api-key: sk-ant-api-canary", "Connection: close"] });
    await client.ended;
    assert.equal(statusOf(client.text), status);
    assert.ok(client.text.includes(`Location: ${location}`));
  }
  assert.equal(elsewhere.upstream.connections, 0);
});

test(
  "fault 10: a reset on a reused connection before any byte came is tried once more, on a fresh one",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(OK, reset, OK);
    const client = await b.ask();
    await client.until('{"ok":1}');
    await client.send(requestBytes({ body: MESSAGE }));
    await client.until((text) => text.split('{"ok":1}').length === 3);
    assert.deepEqual(
      b.upstream.requests.map(({ connection }) => connection),
      [1, 1, 2],
    );
    assert.deepEqual(b.upstream.requests[1]!.body, b.upstream.requests[2]!.body);
    assert.equal((await b.outcomes.settled(2)).attempts.length, 1, "it is one attempt");
    client.leave();
  },
);

test("fault 10: the second try is the last: two resets are a 502", limits, async () => {
  await using b = await bench();
  b.upstream.next(OK, reset, reset, OK);
  const client = await b.ask();
  await client.until('{"ok":1}');
  await client.send(requestBytes({ body: MESSAGE }));
  await client.until("HTTP/1.1 502");
  assert.equal(summary(await b.outcomes.settled(2)), "refused 502 TM_UPSTREAM_RESET");
  assert.equal(b.upstream.requests.length, 3);
  client.leave();
});

test(
  "fault 10: a connection that the upstream closed while idle is not counted as reused",
  limits,
  async () => {
    await using b = await bench();
    const closed = gate();
    b.upstream.next(
      steps(
        headBytes(200, ["Content-Length", "2"]),
        "{}",
        (call) => call.end(),
        (call) => void call.closed.then(closed.open),
      ),
      reset,
      OK,
    );
    const client = await b.ask();
    await client.until("{}");
    await closed.opened;
    await client.send(requestBytes({ body: MESSAGE }));
    await client.until("HTTP/1.1 502");
    assert.deepEqual(
      b.upstream.requests.map(({ connection }) => connection),
      [1, 2],
      "the socket was fresh: no second send",
    );
    client.leave();
    await b.outcomes.settled(2);
  },
);

test(
  "fault 10: a POST on a fresh connection that is reset is a 502 and is not sent again",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(reset);
    const client = await b.ask({ headers: ["anthropic-version: 2023-06-01"] });
    const text = await client.until("}}".slice(0, 1));
    assert.equal(statusOf(text), 502);
    const settled = await b.outcomes.settled(1);
    assert.equal(summary(settled), "refused 502 TM_UPSTREAM_RESET");
    const result = settled.attempts[0]!.result;
    assert.ok(result?.kind === "error" && result.bytesSent, "the bytes were sent");
    assert.equal(b.upstream.requests.length, 1);
    client.leave();
  },
);

test(
  "fault 10: an upload that streams is never sent twice, not even from a reused connection",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(OK, reset, OK);
    const client = await b.ask();
    await client.until('{"ok":1}');
    await client.send(requestBytes({ target: UPLOAD, body: "upload" }));
    await client.until("HTTP/1.1 502");
    await b.outcomes.settled(2);
    assert.equal(b.upstream.requests.length, 2);
    client.leave();
  },
);

test(
  "fault 11: a POST whose answer had begun is not sent again, even on a reused connection",
  limits,
  async () => {
    await using b = await bench();
    for (const beginning of ["H", "HTTP/1.1 200 OK\r\nContent-"]) {
      const count = b.upstream.requests.length;
      const seen = gate();
      b.upstream.next(
        OK,
        steps(beginning, (call) => {
          // Both in order: the beginning is at the proxy when the reset comes.
          call.socket.end(() => seen.open());
        }),
      );
      const client = await b.ask();
      await client.until('{"ok":1}');
      await client.send(requestBytes({ body: MESSAGE }));
      await client.until("HTTP/1.1 502");
      assert.equal(b.upstream.requests.length, count + 2);
      client.leave();
    }
    await b.outcomes.settled(4);
  },
);

test(
  "fault 13: an error that is HTML, or not text at all, goes through with its type and bytes",
  limits,
  async () => {
    await using b = await bench();
    const html = "<html><body><h1>502 Bad Gateway</h1></body></html>";
    const noise = Buffer.from([0, 255, 254, 10, 13, 0, 128]);
    b.upstream.next(
      wholeReply({ status: 502, headers: ["Content-Type", "text/html", "X-Amzn-Odd", "é"], body: html }),
      wholeReply({ status: 529, headers: ["Content-Type", "application/json"], body: noise }),
    );
    const first = await b.ask({ headers: ["Connection: close"] });
    await first.ended;
    assert.equal(statusOf(first.text), 502);
    assert.match(first.text, /content-type: text\/html\r\n/i);
    assert.equal(bodyText(first.text), html);
    const second = await b.ask({ headers: ["Connection: close"] });
    await second.ended;
    assert.equal(statusOf(second.text), 529);
    assert.equal(bodyText(second.text), noise.toString("latin1"));
    assert.equal(summary(await b.outcomes.settled(2)), "answered 529");
  },
);

test(
  "fault 16: the time to a reply's head is the provider's, 600 s unless configured, and a 504 after it",
  limits,
  async () => {
    await using b = await bench({ provider: { timeout: 0.3 } });
    const silent = gate();
    b.upstream.next(() => silent.opened);
    const client = await b.ask();
    await client.until("HTTP/1.1 504");
    assert.equal(summary(await b.outcomes.settled(1)), "refused 504 TM_UPSTREAM_TIMEOUT");
    silent.open();
    client.leave();
    const given = b.tokenman.kernel.generation.registry.all("provider");
    assert.equal(given.find(({ name }) => name === "anthropic")?.timeouts.headMs, 300);

    await using usual = await bench();
    for (const provider of usual.tokenman.kernel.generation.registry.all("provider")) {
      if (provider.apiBase === undefined) continue;
      assert.deepEqual(provider.timeouts, { connectMs: 10_000, headMs: 600_000, idleMs: 600_000 });
    }
  },
);

test(
  "fault 16: a time-out of 0 is none, and none of the HTTP client's own cuts a call",
  limits,
  async (t) => {
    const { Client } = await import("undici");
    const own: unknown[] = [];
    const real = Client.prototype.dispatch;
    type Dispatch = typeof real;
    const dispatch = function (
      this: InstanceType<typeof Client>,
      ...[options, handler]: Parameters<Dispatch>
    ) {
      own.push(options.headersTimeout, options.bodyTimeout);
      return real.call(this, options, handler);
    };
    t.mock.method(Client.prototype, "dispatch", dispatch);
    const timers = t.mock.method(globalThis, "setTimeout");
    const waits = (): unknown[] => timers.mock.calls.map(({ arguments: [, ms] }) => ms);
    const answer = async (options: Parameters<typeof bench>[0]): Promise<unknown[]> => {
      await using b = await bench(options);
      b.upstream.next(OK);
      const client = await b.ask();
      await client.until('{"ok":1}');
      client.leave();
      const after = waits();
      timers.mock.resetCalls();
      return after;
    };
    const none = await answer({ provider: { timeout: 0, idle_timeout: 0 }, server: "stream_timeout = 0" });
    assert.deepEqual(
      none.filter((ms) => Number(ms) > 60_000),
      [],
    );
    const usual = await answer({});
    assert.ok(usual.includes(600_000), "the provider's time-out");
    assert.ok(!usual.includes(300_000), "the HTTP client's usual time-out");
    assert.deepEqual(new Set(own), new Set([0]), "the HTTP client is told to set none");
  },
);

test(
  "fault 16: an upstream that cannot be reached is a 502 at once, and one that never accepts is given up",
  limits,
  async () => {
    const server = net.createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    await using b = await bench({ provider: { api_base: `http://127.0.0.1:${port}` } });
    const client = await b.ask();
    await client.until("HTTP/1.1 502");
    const settled = await b.outcomes.settled(1);
    assert.equal(summary(settled), "refused 502 TM_UPSTREAM_CONNECT");
    const result = settled.attempts[0]!.result;
    assert.ok(result?.kind === "error" && !result.bytesSent, "nothing was sent");
    client.leave();
  },
);

test(
  "fault 17: the client gets all of a reply over max_response_size; only the copy stops",
  limits,
  async () => {
    let seen = 0;
    let cut: boolean | undefined;
    const { definePlugin } = await import("@tokenman/plugin-sdk");
    const watcher = definePlugin({
      name: "watcher",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_, hooks) =>
          hooks.response.tap((reply) =>
            reply.observe({
              data: (chunk) => {
                seen += chunk.length;
              },
              end: (_end, truncated) => {
                cut = truncated;
              },
            }),
          ),
        ),
    });
    await using b = await bench({ server: "max_response_size = 100000", plugins: [watcher] });
    const body = Buffer.alloc(1_000_000, "abcdefghij");
    b.upstream.next(wholeReply({ status: 200, headers: JSON_TYPE, body }));
    const client = await b.ask({ headers: ["Connection: close"] });
    await client.ended;
    assert.ok(Buffer.from(bodyText(client.text), "latin1").equals(body));
    await b.outcomes.settled(1);
    assert.ok(seen <= 100_000 && cut === true, `${seen} ${cut}`);
  },
);

test(
  "fault 17: a reply over max_response_size that must be inspected is refused with a clear error",
  limits,
  async () => {
    const { definePlugin } = await import("@tokenman/plugin-sdk");
    const guard = definePlugin({
      name: "guard",
      version: "1.0.0",
      apiVersion: 1,
      onError: "closed",
      setup: (ctx) =>
        ctx.pipeline((_, hooks) =>
          hooks.response.tap(async (reply) => {
            await reply.read();
          }),
        ),
    });
    await using b = await bench({ server: "max_response_size = 1000", plugins: [guard] });
    b.upstream.next(wholeReply({ status: 200, headers: JSON_TYPE, body: Buffer.alloc(100_000, "x") }));
    const client = await b.ask({ headers: ["Connection: close"] });
    await client.ended;
    assert.ok(statusOf(client.text) >= 500, client.text);
    assert.doesNotMatch(client.text, /xxxx/);
    const settled = await b.outcomes.settled(1);
    assert.equal(settled.outcome.kind, "refused");
  },
);
