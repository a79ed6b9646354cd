import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import test from "node:test";
import tls from "node:tls";
import {
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  selfSigned,
  steps,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";

/** Sends bytes over a fresh connection, and gives what came back until it ended. */
async function send(upstream: RecordingUpstream, ...writes: readonly string[]): Promise<string> {
  const socket = net.connect(upstream.port, "127.0.0.1");
  socket.setNoDelay();
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk));
  for (const bytes of writes) await new Promise((resolve) => socket.write(bytes, "latin1", resolve));
  socket.end();
  await once(socket, "close");
  return Buffer.concat(received).toString("latin1");
}

test("records a request's head, headers and body as they came", async () => {
  await using upstream = await recordingUpstream();
  const head =
    "POST /v1/x?a=%20b HTTP/1.1\r\nhOST: a\r\nX-Two: 1\r\nx-two: 2\r\nX-\xe9: \xff\r\nContent-Length: 5\r\n\r\n";
  await send(upstream, head, "\x00\xff", "abc");
  const request = upstream.last();
  assert.equal(request.head.toString("latin1"), head);
  assert.equal(request.target, "/v1/x?a=%20b");
  assert.deepEqual(request.headers.slice(0, 6), ["hOST", "a", "X-Two", "1", "x-two", "2"]);
  assert.equal(request.body.toString("latin1"), "\x00\xffabc");
});

test("frees a body from chunked coding, however it was cut up", async () => {
  await using upstream = await recordingUpstream();
  const bytes =
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
  await send(upstream, ...bytes);
  assert.equal(upstream.last().body.toString(), "abc0123456789");
  assert.deepEqual(upstream.last().trailers, ["X-T", "1"]);
});

test("answers the requests of one connection in turn, by queued scripts and then by the standing one", async () => {
  await using upstream = await recordingUpstream({ script: wholeReply({ status: 404 }) });
  const held = gate();
  upstream.next(steps(held.opened, headBytes(204)), wholeReply({ status: 200, body: "two" }));
  const answer = send(upstream, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
  assert.equal((await upstream.request(3)).target, "/3");
  held.open();
  assert.equal(
    await answer,
    "HTTP/1.1 204 No Content\r\n\r\n" +
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo" +
      "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
  );
  assert.equal(upstream.connections, 1);
});

test("a script may answer before the body has come, and learns when the peer leaves", async () => {
  await using upstream = await recordingUpstream();
  const left = gate();
  upstream.next(async (call) => {
    await call.write(headBytes(413, ["Content-Length", "0"]));
    assert.equal(call.request.complete, false);
    await assert.rejects(call.received);
    await call.closed;
    left.open();
  });
  const socket = net.connect(upstream.port, "127.0.0.1");
  socket.write("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
  const [chunk] = await once(socket, "data");
  assert.match(String(chunk), /^HTTP\/1\.1 413 /);
  socket.destroy();
  await left.opened;
  assert.deepEqual(upstream.failures, []);
});

test("resets a connection", async () => {
  await using upstream = await recordingUpstream({ script: (call) => call.reset() });
  const socket = net.connect(upstream.port, "127.0.0.1");
  socket.write("GET / HTTP/1.1\r\n\r\n");
  const [error] = await once(socket, "error");
  assert.equal(error.code, "ECONNRESET");
});

test("keeps what a script threw, and ends its connection", async () => {
  await using upstream = await recordingUpstream({
    script: () => {
      throw new Error("a slip in a test");
    },
  });
  await send(upstream, "GET / HTTP/1.1\r\n\r\n");
  assert.equal((upstream.failures[0] as Error).message, "a slip in a test");
});

test("speaks TLS with a certificate made for the occasion", async () => {
  const certificate = selfSigned();
  await using upstream = await recordingUpstream({ tls: certificate });
  const connect = (ca: string | undefined) =>
    tls.connect({ port: upstream.port, host: "127.0.0.1", servername: "localhost", ...(ca && { ca }) });
  const socket = connect(certificate.cert);
  socket.end("GET /secret HTTP/1.1\r\n\r\n");
  socket.resume();
  await once(socket, "close");
  assert.equal(upstream.last().target, "/secret");
  const [refusal] = await once(connect(undefined), "error");
  assert.equal(refusal.code, "DEPTH_ZERO_SELF_SIGNED_CERT");
  const expired = selfSigned({ notAfter: new Date(0) });
  await using old = await recordingUpstream({ tls: expired });
  const [stale] = await once(
    tls.connect({ port: old.port, host: "127.0.0.1", servername: "localhost", ca: expired.cert }),
    "error",
  );
  assert.equal(stale.code, "CERT_HAS_EXPIRED");
});
