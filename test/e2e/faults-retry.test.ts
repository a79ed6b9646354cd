import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AttemptPolicy,
  type Candidate,
  definePlugin,
  type Exchange,
  type Provider,
} from "@tokenman/plugin-sdk";
import { gate, headBytes, type Script, sendRequest, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { bodyText, requestBytes, statusOf } from "../support/raw-client.ts";
import { provider, startRouted } from "../support/routed.ts";

const JSON_TYPE = ["Content-Type", "application/json"];
const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, headers: JSON_TYPE, body: '{"ok":1}' });
/** An opaque path: its body streams through. */
const UPLOAD = "/v1/messages/files-upload";
const reset: Script = async (call) => {
  await call.received;
  call.reset();
};

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

/** Writes its own candidates over the router's, and walks all of them. */
function walker(candidates: (exchange: Exchange) => readonly Candidate[]) {
  return definePlugin({
    name: "walker",
    version: "1.0.0",
    apiVersion: 1,
    provides: [AttemptPolicy],
    setup(ctx) {
      ctx.provide(AttemptPolicy, {
        holdFirstEvent: () => false,
        next: ({ untried }) =>
          untried[0] === undefined ? { kind: "stop" } : { kind: "try", candidate: untried[0] },
        accept: () => false,
      });
      ctx.pipeline((_, hooks) =>
        hooks.request.tap((exchange) => {
          exchange.candidates = candidates(exchange);
        }),
      );
    },
  });
}
const ORDER = '[plugins]\norder = ["anthropic", "openai", "mock", "router", "outcome-recorder", "walker"]\n';

test(
  "fault 11: a streamed upload is sent once, whatever the policy asks for; a read body is sent anew",
  limits,
  async () => {
    const twice = walker(({ candidates: [first] }) => [first!, { ...first! }]);
    await using b = await bench({ plugins: [twice], more: ORDER });
    const no = wholeReply({ status: 503, body: '{"no":1}' });
    b.upstream.script(no);
    const upload = await b.ask({ target: UPLOAD, body: "upload", headers: ["Connection: close"] });
    await upload.ended;
    assert.equal(statusOf(upload.text), 503, "the one reply that came");
    assert.equal((await b.outcomes.settled(1)).attempts.length, 1);
    assert.equal(b.upstream.requests.length, 1);

    const read = await b.ask({ headers: ["Connection: close"] });
    await read.ended;
    assert.equal(statusOf(read.text), 503);
    assert.equal((await b.outcomes.settled(2)).attempts.length, 2);
    assert.deepEqual(
      b.upstream.requests.map(({ body }) => body.toString()),
      ["upload", MESSAGE, MESSAGE],
    );
  },
);

test(
  "fault 11: after a reset, what may have had effects is not sent again; what cannot have any is",
  limits,
  async () => {
    await using it = await startRouted(
      1,
      ([api_base]) =>
        `${provider("anthropic", { api_base, auth: "client" })}[resilience]\nretry_base_delay_ms = 1\n`,
    );
    const upstream = it.upstreams[0]!;
    upstream.script(OK);
    // Requests of no dialect, without a body: nothing but their methods tells them apart.
    for (const [method, status, sent] of [
      ["DELETE", 502, 1],
      ["GET", 200, 2],
    ] as const) {
      const before = upstream.requests.length;
      upstream.next(reset);
      const headers = ["x-api-key", "sk-ant-x", "anthropic-version", "2023-06-01"];
      const reply = await sendRequest(`${it.tokenman.proxy}/v1/files/file_1`, { method, headers });
      assert.equal(reply.status, status, method);
      assert.equal(upstream.requests.length - before, sent, method);
    }
  },
);

test("fault 11: a provider in this process gets a streamed upload whole", limits, async () => {
  let got = "";
  const local: Provider = {
    name: "local",
    format: "anthropic",
    apiBase: undefined,
    models: [],
    priority: 0,
    timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
    auth: "none",
    answer(request) {
      got = request.body.toString();
      return { status: 200, body: "done" };
    },
  };
  const here = walker(() => [{ provider: local, credential: { kind: "none" }, reason: "the test's" }]);
  await using b = await bench({ plugins: [here], more: ORDER });
  const client = await b.ask({
    target: UPLOAD,
    headers: ["Transfer-Encoding: chunked", "Connection: close"],
    body: "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
  });
  await client.ended;
  assert.match(client.text, /done$/);
  assert.equal(got, "abcdef");
});
