import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type Socket } from "node:net";
import { PassThrough, type Readable } from "node:stream";
import { test } from "node:test";
import { FakeClock, gate, recordingUpstream, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { ask, connecting, listening, MINUTE, providerAt } from "./support/calls.ts";

const limits = { timeout: 20_000 };
const OK = wholeReply({ status: 200, body: "ok" });

/** Takes connections and reads nothing before `read` is called; then answers once all has come. */
async function slowReader(
  bytes: number,
): Promise<{ url: string; read(): void; close(): void; came: Promise<void> }> {
  const came = gate();
  let socket: Socket | undefined;
  const server = net.createServer({ pauseOnConnect: true }, (accepted) => {
    socket = accepted.on("error", () => {});
    came.open();
  });
  const port = await listening(server);
  return {
    url: `http://127.0.0.1:${port}`,
    came: came.opened,
    read() {
      let left = bytes;
      socket!.on("data", (chunk: Buffer) => {
        left -= chunk.length;
        if (left <= 0) socket!.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      });
      socket!.resume();
    },
    close() {
      socket?.destroy();
      server.close();
    },
  };
}
const LARGE = Buffer.alloc(32 * 1024 * 1024, "x");

test("the time to the head begins when the last byte of a slow upload has left", limits, async () => {
  const reader = await slowReader(LARGE.length);
  using connections = connecting();
  using clock = new FakeClock();
  const asked = ask(connections, providerAt(reader.url, { headMs: 30_000, idleMs: 600_000 }), LARGE);
  await reader.came;
  await clock.settle();
  for (let minute = 0; minute < 5; minute++) await clock.advance(MINUTE);
  reader.read();
  assert.equal(await asked.end, "200 ok");
  reader.close();
});

test(
  "a provider that stops taking a request is given up; a client that is slow to bring it is not its fault",
  limits,
  async () => {
    using connections = connecting();
    for (const body of [LARGE, streamOf(LARGE)]) {
      const reader = await slowReader(LARGE.length);
      const asked = ask(connections, providerAt(reader.url, { headMs: 50, idleMs: 150 }), body);
      assert.match(await asked.end, /^TM_UPSTREAM_IDLE/);
      reader.close();
    }
    await using upstream = await recordingUpstream({ script: steps((call) => call.received, OK) });
    const body = new PassThrough();
    const asked = ask(connections, providerAt(upstream.url, { idleMs: 50 }), body);
    body.write("begin");
    await upstream.arrival(1);
    // Node times sockets by itself, beyond a fake clock: those with one time-out in the order in which they fell silent.
    await once(new net.Socket().setTimeout(50), "timeout");
    body.end("end");
    assert.equal(await asked.end, "200 ok");
  },
);

function streamOf(bytes: Buffer): Readable {
  const stream = new PassThrough();
  stream.end(bytes);
  return stream.on("error", () => {});
}
