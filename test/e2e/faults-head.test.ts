import assert from "node:assert/strict";
import { test } from "node:test";
import { wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { bodyText, rawClient, requestBytes, statusOf } from "../support/raw-client.ts";

const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const UPLOAD = "/v1/messages/files-upload";
const limits = { timeout: 20_000 };

test(
  "fault 21: an announced body over the limit is a 413 in the dialect's shape, before it is read",
  limits,
  async () => {
    await using b = await bench({ server: "max_body_size = 1000" });
    const shapes: [string, RegExp][] = [
      ["/v1/messages", /^\{"type":"error","error":\{"type":"request_too_large"/],
      [
        "/v1/chat/completions",
        /^\{"error":\{"message":"[^"]+max_body_size[^"]+","type":"invalid_request_error"/,
      ],
    ];
    for (const [index, [target, shape]] of shapes.entries()) {
      const client = await rawClient(b.tokenman.proxy);
      await client.send(requestBytes({ target, headers: ["Content-Length: 1001"] }));
      await client.until((text) => text.includes("}"));
      assert.equal(statusOf(client.text), 413);
      assert.match(bodyText(client.text), shape);
      assert.equal(summary(await b.outcomes.settled(index + 1)), "refused 413 TM_BODY_TOO_LARGE");
      client.leave();
    }
    assert.equal(b.upstream.connections, 0);
  },
);

test("fault 21: a client that goes on sending its too large body still reads its 413", limits, async () => {
  await using b = await bench({ server: "max_body_size = 1000" });
  const big = Buffer.alloc(6 * 1024 * 1024, "x");
  const framings: [string[], Buffer][] = [
    [[`Content-Length: ${big.length}`], big],
    [
      ["Transfer-Encoding: chunked"],
      Buffer.concat([Buffer.from(`${big.length.toString(16)}\r\n`), big, Buffer.from("\r\n0\r\n\r\n")]),
    ],
    // It was told to wait, and does not.
    [["Expect: 100-continue", `Content-Length: ${big.length}`], big],
    [["Connection: close", `Content-Length: ${big.length}`], big],
  ];
  for (const [headers, body] of framings) {
    const client = await rawClient(b.tokenman.proxy);
    await client.send(requestBytes({ headers }));
    await client.send(body);
    const text = await client.until("request_too_large");
    assert.equal(statusOf(text), 413, headers.join());
    assert.ok(!client.socket.destroyed || (await client.ended) === "end", "no reset");
    client.leave();
  }
  assert.equal(b.upstream.connections, 0);
});

test(
  "fault 21: after a 413 that was read to its end, the connection serves the next request",
  limits,
  async () => {
    await using b = await bench({ server: "max_body_size = 1000" });
    b.upstream.script(OK);
    const client = await rawClient(b.tokenman.proxy);
    await client.send(
      Buffer.concat([requestBytes({ body: Buffer.alloc(2_000, "x") }), requestBytes({ body: MESSAGE })]),
    );
    await client.until('{"ok":1}');
    assert.match(client.text, /^HTTP\/1\.1 413 [\s\S]*HTTP\/1\.1 200 /);
    assert.equal(b.upstream.requests.length, 1);
    client.leave();
  },
);

test(
  "fault 21: a request that was refused at the door is read on, so that the client reads why",
  limits,
  async () => {
    await using b = await bench();
    const client = await rawClient(b.tokenman.proxy);
    const big = Buffer.alloc(6 * 1024 * 1024, "x");
    await client.send(
      requestBytes({ headers: ["Origin: https://evil.example", `Content-Length: ${big.length}`] }),
    );
    await client.send(big);
    await client.ended;
    assert.equal(statusOf(client.text), 403);
    assert.match(bodyText(client.text), /TM_ORIGIN_REFUSED/);
  },
);

test("fault 21: a head that is too large is a 431, and nothing goes upstream", limits, async () => {
  await using b = await bench();
  const client = await rawClient(b.tokenman.proxy);
  await client.send(requestBytes({ headers: [`X-Big: ${"x".repeat(200_000)}`], body: MESSAGE }));
  await client.ended;
  assert.equal(statusOf(client.text), 431);
  const many = await b.ask({ headers: Array.from({ length: 3_000 }, (_, index) => `X-${index}: y`) });
  b.upstream.next(OK);
  await many.until('{"ok":1}');
  assert.equal(b.upstream.last().header("x-2999"), "y", "many small ones are fine");
  many.leave();
});

test(
  "fault 23: Expect: 100-continue is honoured, and refused without a 100 where the body is not wanted",
  limits,
  async () => {
    await using b = await bench({ server: "max_body_size = 1000" });
    b.upstream.script(OK);
    for (const target of ["/v1/messages", UPLOAD]) {
      const client = await rawClient(b.tokenman.proxy);
      await client.send(
        requestBytes({ target, headers: ["Expect: 100-continue", `Content-Length: ${MESSAGE.length}`] }),
      );
      assert.equal(await client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
      await client.send(MESSAGE);
      await client.until('{"ok":1}');
      assert.equal(b.upstream.last().body.toString(), MESSAGE);
      assert.equal(b.upstream.last().header("expect"), undefined);
      client.leave();
    }
    const refused = await rawClient(b.tokenman.proxy);
    await refused.send(requestBytes({ headers: ["Expect: 100-continue", "Content-Length: 5000"] }));
    await refused.until("request_too_large");
    assert.equal(statusOf(refused.text), 413);
    assert.match(refused.text, /connection: close/i, "where its body would begin nobody could tell");
    refused.leave();
    const odd = await b.ask({ headers: ["Expect: the-unexpected"] });
    await odd.ended;
    assert.equal(statusOf(odd.text), 417);
    assert.equal(b.upstream.requests.length, 2);
  },
);

test(
  "fault 23: hop-by-hop headers and those that Connection names stay on their hop, both ways",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(
      wholeReply({
        status: 200,
        headers: [
          "x-One",
          "1",
          "Connection",
          "keep-alive, X-Hop",
          "X-Hop",
          "no",
          "Keep-Alive",
          "timeout=9",
          "x-One",
          "2",
          "Proxy-Authenticate",
          "no",
        ],
        body: '{"ok":1}',
      }),
    );
    const client = await b.ask({
      headers: [
        "X-First: 1",
        "Connection: keep-alive, X-Secret",
        "x-FIRST: 2",
        "X-Secret: no",
        "Keep-Alive: 9",
        "TE: trailers",
        "Proxy-Authorization: Basic no",
        "Proxy-Connection: keep-alive",
        "Upgrade: h2c",
        "X-Tokenman-Project: p",
        "X-Last: 3",
      ],
    });
    const reply = await client.until('{"ok":1}');
    const { headers } = await b.upstream.request(1);
    const names = headers.filter((_, index) => index % 2 === 0);
    assert.deepEqual(
      names.filter((name) => /^x-/i.test(name)),
      ["X-First", "x-FIRST", "X-Last"],
    );
    assert.ok(
      !headers.includes("no") && !headers.includes("Basic no") && !headers.includes("h2c"),
      headers.join(),
    );
    assert.match(reply, /x-One: 1\r\n/);
    assert.match(reply, /x-One: 2\r\n/);
    assert.doesNotMatch(reply, /: no\r\n|timeout=9/);
    client.leave();
    await b.outcomes.settled(1);
  },
);

test("fault 24: a WebSocket upgrade is a 426 at once, an offer of h2c is ignored", limits, async () => {
  await using b = await bench();
  b.upstream.script(OK);
  for (const method of ["GET", "POST"]) {
    const socket = await b.ask({
      method,
      target: "/v1/responses",
      body: "",
      headers: [
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Key: x",
        "Sec-WebSocket-Version: 13",
      ],
    });
    assert.equal(await socket.ended, "end");
    assert.equal(statusOf(socket.text), 426);
    assert.match(socket.text, /TM_UPGRADE_REQUIRED/);
  }
  assert.equal(b.upstream.connections, 0);
  const offer = await b.ask({
    headers: ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM"],
  });
  await offer.until('{"ok":1}');
  assert.equal(b.upstream.last().body.toString(), MESSAGE);
  offer.leave();
});
