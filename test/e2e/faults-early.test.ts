import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkBytes, gate, headBytes, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const JSON_TYPE = ["Content-Type", "application/json"];
const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, headers: JSON_TYPE, body: '{"ok":1}' });
/** An opaque path: its body streams through. */
const UPLOAD = "/v1/messages/files-upload";

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
    assert.deepEqual(b.outcomes.all.map(summary), ["answered 400", "answered 200"]);
    const [early, whole] = b.upstream.requests;
    assert.ok(early!.body.length < total, "the upload stopped");
    assert.equal(whole!.body.toString(), MESSAGE);
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
