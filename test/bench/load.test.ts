import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { announcedPort, spawnChild, stopAll } from "../../scripts/bench/children.ts";
import type { LoopJob } from "../../scripts/bench/job.ts";
import { runJob } from "../../scripts/bench/load.ts";
import { BUFFERED, bufferedReply, type ReplySpec, streamedReply } from "../../scripts/bench/replies.ts";

const SCRIPTS = join(import.meta.dirname, "..", "..", "scripts", "bench");
let upstream = 0;
let floor = 0;

before(async () => {
  upstream = await announcedPort(spawnChild(process.execPath, [join(SCRIPTS, "upstream.ts")]));
  floor = await announcedPort(spawnChild(process.execPath, [join(SCRIPTS, "floor.ts"), String(upstream)]));
});
after(stopAll);

function job(port: number, changes: Partial<LoopJob> = {}): LoopJob {
  return {
    kind: "loop",
    port,
    headers: [],
    dialect: "openai",
    reply: BUFFERED,
    verify: "bytes",
    bodyBytes: 2_048,
    concurrency: 4,
    maxMs: 10_000,
    maxRequests: 40,
    ...changes,
  };
}

async function stats(): Promise<{ requests: number; bodyBytes: number }> {
  const response = await fetch(`http://127.0.0.1:${upstream}/bench/stats`);
  return (await response.json()) as { requests: number; bodyBytes: number };
}

const STREAM: ReplySpec = { events: 25, delayMs: 0 };

for (const dialect of ["openai", "anthropic"] as const) {
  for (const reply of [BUFFERED, STREAM, { events: 8, delayMs: 1 }]) {
    for (const bodyBytes of [2_048, 532_480]) {
      const name = `${dialect}, ${reply.events} events ${reply.delayMs} ms apart, ${bodyBytes} bytes`;
      test(`the floor moves every byte both ways: ${name}`, async () => {
        const from = await stats();
        const result = await runJob(job(floor, { dialect, reply, bodyBytes, maxRequests: 12 }));
        assert.deepEqual([result.completed, result.failed, result.reasons], [12, 0, []]);
        const to = await stats();
        assert.equal(to.requests - from.requests, 12);
        assert.equal(to.bodyBytes - from.bodyBytes, 12 * bodyBytes);
        assert.equal(result.sentBytes, 12 * bodyBytes);
        assert.ok(result.firstByte.p50 > 0 && result.firstByte.p50 <= result.latency.max);
      });
    }
  }
}

/** Answers every request, once its body is there, with raw bytes written in the given pieces. */
async function rawServer(
  pieces: readonly (Buffer | string)[],
  closeAfter = false,
): Promise<[Server, number]> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let received = 0;
    socket.on("error", () => socket.destroy());
    socket.on("data", async (chunk: Buffer) => {
      received += chunk.length;
      if (received < 2_048 || !chunk.toString("latin1").includes("]")) return;
      received = 0;
      for (const piece of pieces) {
        // Each piece leaves in its own write; the client has to put them together again.
        await new Promise((resolve) => socket.write(piece, resolve));
      }
      if (closeAfter) socket.end();
    });
  });
  server.on("close", () => {
    for (const socket of sockets) socket.destroy();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return [server, (server.address() as AddressInfo).port];
}

async function replyTo(
  pieces: readonly (Buffer | string)[],
  changes: Partial<LoopJob> = {},
  closeAfter = false,
): Promise<[completed: number, failed: number, reason: string | undefined]> {
  const [server, port] = await rawServer(pieces, closeAfter);
  try {
    const result = await runJob(job(port, { maxRequests: 2, concurrency: 1, ...changes }));
    return [result.completed, result.failed, result.reasons[0]];
  } finally {
    server.close();
  }
}

const BODY = bufferedReply("openai");
const HEAD = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n`;

test("a right reply counts, in whatever pieces it comes", async () => {
  assert.deepEqual(await replyTo([HEAD, BODY]), [2, 0, undefined]);
  assert.deepEqual(
    await replyTo([...Buffer.concat([Buffer.from(HEAD), BODY])].map((byte) => Buffer.of(byte))),
    [2, 0, undefined],
  );
  assert.deepEqual(await replyTo(["HTTP/1.1 100 Continue\r\n\r\n", HEAD, BODY]), [2, 0, undefined]);
});

test("a reply without a length ends with its connection, and the next one gets a new connection", async () => {
  assert.deepEqual(await replyTo(["HTTP/1.1 200 OK\r\n\r\n", BODY], {}, true), [2, 0, undefined]);
});

test("chunks may be cut anywhere and the trailer is read over", async () => {
  const events = Buffer.concat(streamedReply("openai", 25));
  const wire = Buffer.concat([
    Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Buffer.from(`${(1_000).toString(16)};ext=1\r\n`),
    events.subarray(0, 1_000),
    Buffer.from(`\r\n${(events.length - 1_000).toString(16)}\r\n`),
    events.subarray(1_000),
    Buffer.from("\r\n0\r\nX-End: yes\r\n\r\n"),
  ]);
  assert.deepEqual(
    await replyTo(
      [...wire].map((byte) => Buffer.of(byte)),
      { reply: STREAM },
    ),
    [2, 0, undefined],
  );
});

test("one wrong byte, a missing one, a foreign status or a cut connection is a failure with its reason", async () => {
  const wrong = Buffer.from(BODY);
  wrong[500]! ^= 1;
  assert.deepEqual(await replyTo([HEAD, wrong]), [0, 2, "2× bytes differ from the upstream's"]);
  const short = `HTTP/1.1 200 OK\r\nContent-Length: ${BODY.length - 1}\r\n\r\n`;
  const [completed, failed, reason] = await replyTo([short, BODY.subarray(1)]);
  assert.deepEqual([completed, failed], [0, 2]);
  assert.equal(reason, `2× ${BODY.length - 1} bytes instead of ${BODY.length}`);
  const refusal = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nnope";
  assert.deepEqual(await replyTo([refusal]), [0, 2, "2× status 502: nope"]);
  assert.deepEqual(await replyTo([HEAD, BODY.subarray(0, 100)], {}, true), [
    0,
    2,
    "2× the connection was ended",
  ]);
});

test("a stream that lacks its last event is a failure, by bytes and by content", async () => {
  const events = Buffer.concat(streamedReply("openai", 25).slice(0, -1));
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${events.length}\r\n\r\n`;
  const [, byBytes] = await replyTo([head, events], { reply: STREAM });
  assert.equal(byBytes, 2);
  assert.deepEqual(await replyTo([head, events], { reply: STREAM, verify: "content" }), [
    0,
    2,
    "2× 24 events instead of 25",
  ]);
});

test("nobody listening is a failure, and the job still ends", async () => {
  const [server, port] = await rawServer([]);
  await new Promise((resolve) => server.close(resolve));
  const result = await runJob(job(port, { maxRequests: 3, concurrency: 1 }));
  assert.deepEqual([result.completed, result.failed], [0, 3]);
  assert.match(result.reasons[0] ?? "", /ECONNREFUSED/);
});
