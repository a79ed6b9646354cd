import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type AddressInfo } from "node:net";
import { test } from "node:test";
import { gate, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, summary } from "../support/faulty.ts";
import { bodyText, statusOf } from "../support/raw-client.ts";

const JSON_TYPE = ["Content-Type", "application/json"];
const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, headers: JSON_TYPE, body: '{"ok":1}' });

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
      assert.deepEqual(provider.timeouts, {
        connectMs: 10_000,
        headMs: 600_000,
        idleMs: undefined,
        totalMs: 0,
      });
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
      // The time that plugins have to be set up is none of a request's.
      timers.mock.resetCalls();
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
