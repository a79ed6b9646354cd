import assert from "node:assert/strict";
import { test } from "node:test";
import { chunkBytes, gate, headBytes, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { isWholeChunked, rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const UPLOAD = "/v1/messages/files-upload";
const limits = { timeout: 20_000 };

/** Requests that a proxy and a server could read differently: line by line, an empty line before the body. */
const AMBIGUOUS: Readonly<Record<string, string>> = {
  "the same Content-Length twice": "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
  "two Content-Lengths": "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
  "a list of Content-Lengths": "Content-Length: 3, 3\r\n\r\nabc",
  "a signed Content-Length": "Content-Length: +3\r\n\r\nabc",
  "a Content-Length in hexadecimal": "Content-Length: 0x3\r\n\r\nabc",
  "Content-Length and Transfer-Encoding": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  "Transfer-Encoding and Content-Length": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
  "Transfer-Encoding twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  "a coding after chunked": "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
  "a coding before chunked": "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
  "an unknown Transfer-Encoding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
  "Transfer-Encoding: identity": "Transfer-Encoding: identity\r\n\r\n",
  "a quoted Transfer-Encoding": 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
  "a folded header": "X-A: b\r\n c\r\nContent-Length: 3\r\n\r\nabc",
  "a folded Transfer-Encoding": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
  "a space before the colon": "Content-Length : 3\r\n\r\nabc",
  "a second Host": "Host: other\r\nContent-Length: 3\r\n\r\nabc",
  "the same Host twice": "Host: localhost\r\nContent-Length: 3\r\n\r\nabc",
  "a chunk size that is no number": "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
  "a chunk size that overflows": "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
  "a negative chunk size": "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
  "a chunk size with 0x": "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
  "a chunk longer than its size": "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
  "chunks that end in a bare LF": "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
  "a chunk extension that ends in a bare LF": "Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
  "a header that ends in a bare LF": "X-A: b\nContent-Length: 3\r\n\r\nabc",
  "a header that ends in a bare CR": "X-A: b\rContent-Length: 3\r\n\r\nabc",
  "a head that ends in a bare LF": "Content-Length: 3\r\n\nabc",
  "a NUL in a value": "X-A: b\0c\r\nContent-Length: 3\r\n\r\nabc",
  "a control character in a value": "X-A: b\x01c\r\nContent-Length: 3\r\n\r\nabc",
  "a header without a name": ": b\r\nContent-Length: 3\r\n\r\nabc",
};
const WHOLE: Readonly<Record<string, string>> = {
  "bare LFs everywhere": "POST /v1/messages HTTP/1.1\nHost: localhost\nContent-Length: 3\n\nabc",
  "no Host": "POST /v1/messages HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
  "HTTP/0.9": "GET /v1/models\r\n\r\n",
  "HTTP/1.2": "GET /v1/models HTTP/1.2\r\nHost: localhost\r\n\r\n",
  "HTTP/2.0": "GET /v1/models HTTP/2.0\r\nHost: localhost\r\n\r\n",
  "chunks in HTTP/1.0":
    "POST /v1/messages HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  "a space in the path": "GET /v1/models HTTP/1.1 x HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "an unknown method": "FOO /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
  CONNECT: "CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "a TLS greeting": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

test(
  "fault 22: what two readers could read differently is a 400 and a close, and never goes upstream",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.script(OK);
    const cases = Object.entries(WHOLE);
    for (const target of ["/v1/messages", UPLOAD]) {
      for (const [name, rest] of Object.entries(AMBIGUOUS))
        cases.push([`${name} (${target})`, `POST ${target} HTTP/1.1\r\nHost: localhost\r\n${rest}`]);
    }
    for (const [name, bytes] of cases) {
      const client = await rawClient(b.tokenman.proxy);
      // A second request rides behind: where the first is refused, it must not be served.
      await client.send(
        Buffer.from(`${bytes}${requestBytes({ body: MESSAGE }).toString("latin1")}`, "latin1"),
      );
      await client.ended;
      assert.ok([400, 405, 505].includes(statusOf(client.text)), `${name}: ${JSON.stringify(client.text)}`);
      assert.equal(client.text.split("HTTP/1.1 ").length, 2, `${name}: one reply`);
      assert.equal(
        b.upstream.requests.filter((request) => request.complete).length,
        0,
        `${name}: nothing whole goes upstream`,
      );
    }
  },
);

test("fault 22: garbage behind a request does not get into the middle of its reply", limits, async () => {
  await using b = await bench();
  const go = gate();
  b.upstream.next(
    steps(
      headBytes(200, ["Transfer-Encoding", "chunked"]),
      chunkBytes("first"),
      go.opened,
      chunkBytes("last"),
      chunkBytes(""),
    ),
  );
  const client = await b.ask();
  await client.until("first");
  await client.send("\0\0garbage\r\n\r\n");
  await client.ended;
  assert.ok(client.text.endsWith("first\r\n"), client.text);
  assert.ok(!isWholeChunked(client.text), "the reply is broken, and looks broken");
  assert.equal(summary(await b.outcomes.settled(1)), "aborted 200 TM_CLIENT_GONE");
  go.open();
});

test("fault 22: pipelined requests are answered in order, each with its own reply", limits, async () => {
  await using b = await bench();
  const first = gate();
  b.upstream.script(async (call) => {
    await call.received;
    if (call.request.json() === 1) await first.opened;
    await call.reply({ status: 200, body: `reply ${call.request.body}` });
  });
  const client = await rawClient(b.tokenman.proxy);
  await client.send(Buffer.concat([1, 2, 3].map((body) => requestBytes({ body: String(body) }))));
  await Promise.all([b.upstream.request(1), b.upstream.request(2), b.upstream.request(3)]);
  first.open();
  await client.until("reply 3");
  assert.match(client.text, /reply 1HTTP[\s\S]*reply 2HTTP[\s\S]*reply 3$/);
  client.leave();
  await b.outcomes.settled(3);
});

test("fault 22: a client that pipelines and leaves ends all of its exchanges", limits, async () => {
  await using b = await bench();
  b.upstream.script((call) => call.closed);
  const client = await rawClient(b.tokenman.proxy);
  await client.send(Buffer.concat([1, 2, 3].map((body) => requestBytes({ body: String(body) }))));
  await Promise.all([b.upstream.request(1), b.upstream.request(2), b.upstream.request(3)]);
  client.leave();
  await b.outcomes.settled(3);
  assert.deepEqual(b.outcomes.all.map(summary), Array(3).fill("aborted 499 TM_CLIENT_GONE"));
});
