import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import zlib from "node:zlib";
import retry from "../../plugins/retry/index.ts";
import {
  assertSameBytes,
  chunked,
  looking,
  type Relay,
  requestBytes,
  startRelay,
  WAYS,
  type Way,
} from "../support/relay.ts";
import { CASES, type Case, EVENTS, replay, SSE } from "../support/reply-cases.ts";
import { gate } from "../support/upstream.ts";
import type { WireClient, WireReply } from "../support/wire-client.ts";

const BODY = '{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hello"}]}';
/** Headers as lines, less those that TokenMan adds and those that are each hop's own. */
const OURS = /^(x-tokenman-|connection:|keep-alive:|transfer-encoding:)/i;
function linesOf(reply: WireReply): string[] {
  const lines: string[] = [];
  for (let index = 0; index < reply.headers.length; index += 2)
    lines.push(`${reply.headers[index]}: ${reply.headers[index + 1]}`);
  return lines.filter((line) => !OURS.test(line));
}

function assertIdentical(reply: WireReply, one: Case, way: Way): void {
  const where = `${one.name}, ${way}`;
  assert.equal(reply.broken, false, where);
  assert.equal(`${reply.status} ${reply.reason}`, one.status ?? "200 OK", where);
  const coded = one.head.some((line) => /^content-encoding:/i.test(line));
  const isMapped = way === "mapped" && one.head.includes(SSE);
  if (isMapped && coded && one.decoded !== undefined) assertSameBytes(reply.body, one.decoded, where);
  else assertSameBytes(reply.body, one.body, where);
  const sent = [...one.head, ...(one.framing === "length" ? [`Content-Length: ${one.body.length}`] : [])]
    .map((line) => line.replace(/^([^:]+):\s*/, "$1: "))
    .filter((line) => !OURS.test(line))
    // What a plugin may change, even if it does not, goes out decoded and of unknown length.
    .filter((line) => !isMapped || !/^content-(encoding|length):/i.test(line));
  assert.deepEqual(linesOf(reply), sent, where);
  const bodiless = one.method === "HEAD" || ["204 No Content", "304 Not Modified"].includes(one.status ?? "");
  const framing = bodiless ? "none" : one.framing === "length" && !isMapped ? "length" : "chunked";
  assert.equal(reply.framing, framing, where);
  const trailers: string[] = [];
  for (let index = 0; index < reply.trailers.length; index += 2)
    trailers.push(`${reply.trailers[index]}: ${reply.trailers[index + 1]}\r\n`);
  assert.equal(trailers.join(""), one.trailers ?? "", where);
}

describe("a reply that no plugin changes arrives as it was sent:", () => {
  let relay: Relay;
  let client: WireClient;
  const looks = looking();
  before(async () => {
    relay = await startRelay({ plugins: [looks.plugin], config: looks.config });
    client = await relay.client();
  });
  after(async () => {
    client[Symbol.dispose]();
    await relay[Symbol.asyncDispose]();
  });

  for (const one of CASES) {
    it(one.name, async () => {
      const { method = "POST" } = one;
      for (const way of WAYS) {
        relay.upstream.next((call) => replay(call, one));
        const lines = ["x-api-key: k", `X-Tokenman-Project: ${way}`];
        const reply = await client.ask(
          requestBytes({ method, lines, ...(method === "POST" && { body: BODY }) }),
          method,
        );
        assertIdentical(reply, one, way);
        if (way === "plain") continue;
        const look = await looks.next();
        assert.equal(look.way, way);
        if (one.decoded === undefined) continue;
        assert.equal(look.end, "complete", way);
        assert.equal(look.truncated, false, way);
        assertSameBytes(look.bytes, one.decoded, `${one.name}, the copy, ${way}`);
      }
    });
  }

  for (const [name, head, body, method] of [
    ["of known length", "200 OK\r\nContent-Length: 2", "{}", "POST"],
    ["that is empty", "200 OK\r\nContent-Length: 0", "", "POST"],
    ["of a status without a body", "204 No Content", "", "POST"],
    ["to HEAD", "200 OK\r\nContent-Length: 2", "", "HEAD"],
  ] as const) {
    it(`a reply ${name} that announces trailers, which cannot follow, less that`, async () => {
      relay.upstream.next(async (call) => {
        await call.received;
        await call.write(`HTTP/1.1 ${head}\r\nTrailer: X-Sum\r\nX-A: b\r\n\r\n${body}`);
      });
      const reply = await client.ask(
        requestBytes({ method, lines: ["x-api-key: k"], ...(method === "POST" && { body: BODY }) }),
        method,
      );
      assert.equal(reply.broken, false);
      assert.deepEqual(reply.values("trailer"), []);
      assert.deepEqual(reply.values("x-a"), ["b"]);
      assert.equal(reply.body.toString(), body);
    });
  }

  it("less what only TokenMan itself says", async () => {
    relay.upstream.next(async (call) => {
      await call.received;
      const forged = "X-Tokenman-Cache: HIT\r\nx-tokenman-request-id: 1\r\nX-TokenMan-Provider: other";
      await call.write(`HTTP/1.1 200 OK\r\n${forged}\r\nContent-Length: 2\r\n\r\n{}`);
    });
    const reply = await client.ask(requestBytes({ lines: ["x-api-key: k"], body: BODY }));
    assert.deepEqual(reply.values("x-tokenman-cache"), []);
    assert.equal(reply.values("x-tokenman-request-id").length, 1);
    assert.notEqual(reply.values("x-tokenman-request-id")[0], "1");
    assert.equal(reply.values("x-tokenman-provider").length, 1);
    assert.notEqual(reply.values("x-tokenman-provider")[0], "other");
  });

  it("a head that comes byte by byte", async () => {
    const head = "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}";
    relay.upstream.next(async (call) => {
      await call.received;
      for (const character of head) await call.write(character);
    });
    const reply = await client.ask(requestBytes({ lines: ["x-api-key: k"], body: BODY }));
    assert.equal(`${reply.status} ${reply.reason}`, "200 OK");
    assert.deepEqual(linesOf(reply), ["X-A: b", "Content-Length: 2"]);
    assert.equal(reply.body.toString(), "{}");
  });
});

it("a head that comes long before its body arrives at once, and byte for byte", async () => {
  await using relay = await startRelay();
  using client = await relay.client();
  const headSeen = gate();
  relay.upstream.next(async (call) => {
    await call.received;
    await call.write(Buffer.from("HTTP/1.1 200 OK\r\nX-A: caf\xe9\r\nContent-Length: 2\r\n\r\n", "latin1"));
    await headSeen.opened;
    await call.write("{}");
  });
  await client.send(requestBytes({ lines: ["x-api-key: k"], body: BODY }));
  const early = await client.reply(() => true);
  assert.equal(early.bodyBytes, 0);
  assert.deepEqual(early.values("x-a"), ["caf\xe9"]);
  headSeen.open();
  assert.equal((await client.reply()).body.toString(), "{}");
});

it("the head and the beginning of an error do not wait for the rest of it", { timeout: 20_000 }, async () => {
  await using relay = await startRelay({ plugins: [retry] });
  using client = await relay.client();
  const seen = gate();
  relay.upstream.next(async (call) => {
    await call.received;
    await call.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nabc");
    await seen.opened;
    await call.write("def");
  });
  await client.send(requestBytes({ lines: ["x-api-key: k"], body: BODY }));
  const early = await client.reply((reply) => reply.bodyBytes === 3);
  assert.equal(early.status, 400);
  seen.open();
  assert.equal((await client.reply()).body.toString(), "abcdef");
});

describe("an event", () => {
  for (const way of WAYS) {
    for (const coding of ["identity", "gzip"]) {
      // A ping that waited for the next event would wait for ever: the upstream sends that one only when the client has the ping.
      it(`passes at once, pings too: ${way}, ${coding}`, async () => {
        const { plugin, config } = looking();
        await using relay = await startRelay({ plugins: [plugin], config });
        using client = await relay.client();
        const receipts = EVENTS.slice(0, 5).map(() => gate());
        const sent: Buffer[] = [];
        relay.upstream.next(async (call) => {
          await call.received;
          const lines = [
            SSE,
            "Transfer-Encoding: chunked",
            ...(coding === "gzip" ? ["Content-Encoding: gzip"] : []),
          ];
          await call.write(`HTTP/1.1 200 OK\r\n${lines.join("\r\n")}\r\n\r\n`);
          const gzip = zlib.createGzip();
          const parts: Buffer[] = [];
          gzip.on("data", (part) => parts.push(part));
          for (const [index, receipt] of receipts.entries()) {
            let bytes: Buffer = Buffer.from(EVENTS[index]!);
            if (coding === "gzip") {
              gzip.write(bytes);
              await new Promise<void>((resolve) => gzip.flush(zlib.constants.Z_SYNC_FLUSH, resolve));
              bytes = Buffer.concat(parts.splice(0));
            }
            sent.push(bytes);
            await call.write(chunked(bytes, [bytes.length]).subarray(0, -5));
            await receipt.opened;
          }
          if (coding === "gzip") {
            await new Promise<void>((resolve) => gzip.once("end", resolve).end());
            const last = Buffer.concat(parts);
            sent.push(last);
            await call.write(chunked(last, [last.length]).subarray(0, -5));
          }
          await call.write("0\r\n\r\n");
        });
        await client.send(
          requestBytes({ lines: ["x-api-key: k", `X-Tokenman-Project: ${way}`], body: BODY }),
        );
        const isDecoded = way === "mapped";
        let bytes = 0;
        for (const [index, receipt] of receipts.entries()) {
          await client.reply((reply) => {
            const upTo = isDecoded ? Buffer.from(EVENTS.slice(0, index + 1).join("")) : Buffer.concat(sent);
            bytes = upTo.length;
            return reply.bodyBytes >= bytes;
          });
          receipt.open();
        }
        const reply = await client.reply();
        assert.equal(reply.whole, true);
        const all = isDecoded ? Buffer.from(EVENTS.slice(0, 5).join("")) : Buffer.concat(sent);
        assertSameBytes(reply.body, all, way);
      });
    }
  }
});

describe("a reply larger than server.max_response_size", () => {
  it("passes whole; the copies stop, and are told so", async () => {
    const looks = looking();
    await using relay = await startRelay({
      plugins: [looks.plugin],
      config: `[server]\nmax_response_size = 1000000\n${looks.config}`,
    });
    using client = await relay.client();
    const body = Buffer.alloc(3_000_000, "data: 0123456789\n\n");
    for (const way of WAYS) {
      for (const [type, coding] of [
        [SSE, undefined],
        ["Content-Type: application/json", undefined],
        ["Content-Type: application/json", "Content-Encoding: gzip"],
      ] as const) {
        const sent = coding === undefined ? body : zlib.gzipSync(body);
        const one: Case = {
          name: "large",
          head: [type, ...(coding ? [coding] : [])],
          body: sent,
          framing: "length",
        };
        relay.upstream.next((call) => replay(call, one));
        const reply = await client.ask(
          requestBytes({ lines: ["x-api-key: k", `X-Tokenman-Project: ${way}`], body: BODY }),
        );
        assert.equal(reply.status, 200);
        assertSameBytes(reply.body, sent, `${way} ${type}`);
        if (way === "plain") continue;
        const look = await looks.next();
        // Where events are rewritten the observer is in the client's own way, and sees all of it.
        assert.equal(look.truncated, way !== "mapped" || type !== SSE, `${way} ${type}`);
      }
    }
  });
});
