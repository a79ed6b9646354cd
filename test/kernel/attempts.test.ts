import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import zlib from "node:zlib";
import type { AttemptPolicy } from "@tokenman/plugin-sdk";
import { chunkBytes, gate, headBytes, recordingUpstream, type Script, steps } from "../support/upstream.ts";
import { BODY, closed, requestsOf, reset, SSE, status, stream, world } from "./support/attempt-world.ts";
import { tapping, walking } from "./support/routing.ts";

describe("without a policy", () => {
  it("the first candidate is tried once, whatever it answers", async () => {
    await using it = await world([status(500), status(200)]);
    const { status: code, text, provider } = await it.ask();
    assert.deepEqual([code, text, provider], [500, "status 500", "a"]);
    assert.deepEqual(it.events, ["1 a reply 500 complete", "answered 500"]);
    assert.deepEqual(requestsOf(it), [1, 0]);
  });

  it("one that is skipped makes way for the next", async () => {
    const breaker = tapping("breaker", ({ beforeUpstream }) =>
      beforeUpstream.tap((_, { provider }) => (provider.name === "a" ? { skip: "open" } : undefined)),
    );
    await using it = await world([status(200), status(201)], undefined, [breaker]);
    assert.equal((await it.ask()).status, 201);
    assert.deepEqual(it.events, ["1 a skipped by breaker: open", "2 b reply 201 complete", "answered 201"]);
    assert.deepEqual(requestsOf(it), [0, 1]);
  });

  it("all skipped, none there, or none reachable is told in words, with what was wrong of each", async () => {
    const breaker = tapping("breaker", ({ beforeUpstream }) =>
      beforeUpstream.tap(async () => ({ skip: "resting" })),
    );
    await using skipped = await world([status(200), status(200)], undefined, [breaker]);
    const refused = await skipped.ask();
    assert.equal(refused.status, 503);
    assert.match(refused.text, /TM_ALL_SKIPPED.*a: resting \(.+\); b: resting \(.+\)/);
    assert.equal(skipped.events.at(-1), "refused 503 TM_ALL_SKIPPED");

    await using none = await world([]);
    assert.match((await none.ask()).text, /TM_NO_PROVIDER/);

    const soon = tapping("breaker", ({ beforeUpstream }) =>
      beforeUpstream.tap((_, { provider }) => ({
        skip: "resting",
        retryAfterMs: { a: 61_000, b: 2_100, c: Number.NaN }[provider.name]!,
      })),
    );
    await using waiting = await world([status(200), status(200), status(200)], undefined, [soon]);
    const later = await waiting.ask();
    assert.equal(later.retryAfter, "3", "when the first of them may be tried");
    assert.match(later.text, /"provider":"a","by":"breaker","reason":"resting","retry_after_ms":61000/);
    assert.match(later.text, /"provider":"c","by":"breaker","reason":"resting"\}/);

    await using dead = await world([reset]);
    const failed = await dead.ask();
    assert.equal(failed.status, 502);
    assert.match(failed.text, /TM_UPSTREAM_RESET.*provider a/);
    assert.deepEqual(dead.events, ["1 a error TM_UPSTREAM_RESET", "refused 502 TM_UPSTREAM_RESET"]);
  });
});

describe("failover before the first byte", () => {
  it("follows an error status", async () => {
    await using it = await world([status(503), status(500), stream("x", "[DONE]")], { next: walking });
    const { text, provider } = await it.ask();
    assert.deepEqual([text, provider], ["data: x\n\ndata: [DONE]\n\n", "c"]);
    assert.deepEqual(it.events, [
      "1 a reply 503 aborted",
      "2 b reply 500 aborted",
      "3 c reply 200 complete",
      "answered 200",
    ]);
    for (const { requests } of it.upstreams) assert.equal(String(requests[0]!.body), BODY);
  });

  it("follows a connection that fails, before or after the request", async () => {
    const gone = await recordingUpstream();
    await gone.stop();
    await using it = await world([reset, status(200)], { next: walking }, [
      tapping("closed-port", ({ request }) =>
        request.tap((ex) => {
          ex.candidates = [];
        }),
      ),
    ]);
    assert.equal((await it.ask()).provider, "b");
    assert.deepEqual(it.events, ["1 a error TM_UPSTREAM_RESET", "2 b reply 200 complete", "answered 200"]);
  });

  it("follows a failure in the first event of a 200, where the policy holds it back", async () => {
    await using it = await world([stream("error: overloaded"), stream("fine", "[DONE]")], {
      next: walking,
      holdFirstEvent: () => true,
    });
    assert.equal((await it.ask()).text, "data: fine\n\ndata: [DONE]\n\n");
    assert.deepEqual(it.events, ["1 a reply 200 aborted", "2 b reply 200 complete", "answered 200"]);
  });

  const overloaded = Buffer.from("data: error: overloaded\n\n");
  const { Z_SYNC_FLUSH, BROTLI_OPERATION_FLUSH, ZSTD_e_flush } = zlib.constants;
  // Flushed, and not ended: more may follow.
  for (const [coding, first] of Object.entries({
    gzip: zlib.gzipSync(overloaded, { finishFlush: Z_SYNC_FLUSH }),
    deflate: zlib.deflateSync(overloaded, { finishFlush: Z_SYNC_FLUSH }),
    br: zlib.brotliCompressSync(overloaded, { finishFlush: BROTLI_OPERATION_FLUSH }),
    zstd: zlib.zstdCompressSync(overloaded, { finishFlush: ZSTD_e_flush }),
  })) {
    it(`follows it in a stream that is coded with ${coding}`, { timeout: 10_000 }, async () => {
      const head = headBytes(200, [...SSE, "Content-Encoding", coding]);
      const failing: Script = async (call) => {
        // Byte by byte, and it never ends: what has come must do.
        await steps(head, ...[...first].map((byte) => chunkBytes(Buffer.of(byte))))(call);
        await call.closed;
      };
      await using it = await world([failing, stream("fine", "[DONE]")], {
        next: walking,
        holdFirstEvent: () => true,
      });
      assert.equal((await it.ask()).text, "data: fine\n\ndata: [DONE]\n\n");
      assert.deepEqual(it.events, ["1 a reply 200 aborted", "2 b reply 200 complete", "answered 200"]);
    });
  }

  it("judges nothing that does not decode, or grows without end: it is the client's", {
    timeout: 10_000,
  }, async () => {
    const bomb = zlib.gzipSync(Buffer.alloc(8 * 1024 * 1024, ": a comment\n"));
    for (const [coding, bytes] of [
      ["gzip", Buffer.from("data: error: no gzip\n\n")],
      ["gzip", zlib.gzipSync("")],
      ["gzip", zlib.gzipSync("data: error: cut").subarray(0, -9)],
      ["gzip", bomb],
      ["gzip, br", zlib.gzipSync("data: error\n\n")],
    ] as const) {
      const head = headBytes(200, [...SSE, "Content-Encoding", coding]);
      await using it = await world([steps(head, chunkBytes(bytes), chunkBytes("")), stream("other")], {
        next: walking,
        holdFirstEvent: () => true,
      });
      const { text, provider } = await it.ask();
      assert.deepEqual([provider, text], ["a", bytes.toString()]);
    }
  });

  it("follows it in a provider of this process, too, and shows the policy its error body", async () => {
    const bodies: unknown[] = [];
    async function* failing() {
      yield Buffer.from("data: error\n\n");
      yield Buffer.from("data: never seen\n\n");
    }
    await using it = await world(
      [
        (_request, _exchange, _attempt) => ({
          status: 200,
          headers: ["content-type", "text/event-stream"],
          body: failing(),
        }),
        (_request, _exchange, _attempt) => ({ status: 529, body: "too busy" }),
        stream("fine"),
      ],
      {
        next: walking,
        holdFirstEvent: () => true,
        accept: (_, __, { status, firstEvent, errorBody }) => {
          bodies.push(errorBody?.toString());
          return status < 500 && firstEvent?.kind !== "error";
        },
      },
    );
    assert.equal((await it.ask()).text, "data: fine\n\n");
    assert.deepEqual(bodies, [undefined, "too busy", undefined]);
    assert.deepEqual(it.events.slice(0, 2), ["1 a reply 200 aborted", "2 b reply 529 aborted"]);
  });

  it("shows the policy an error's body, decoded and bounded, and leaves it to the client as it came", async () => {
    const big = "x".repeat(100_000);
    const shown: number[] = [];
    await using it = await world([status(400, big)], {
      next: walking,
      accept: (_, __, { errorBody }) => {
        shown.push(errorBody!.length);
        return true;
      },
    });
    assert.equal((await it.ask()).text, big);
    assert.deepEqual(shown, [65_536]);
  });

  it("ends with the last reply that was kept back, when the policy stops", async () => {
    await using it = await world([status(500, "first"), status(501, "second"), reset], { next: walking });
    const { status: code, text, provider } = await it.ask();
    assert.deepEqual([code, text, provider], [501, "second", "b"]);
    assert.deepEqual(it.events, [
      "1 a reply 500 aborted",
      "3 c error TM_UPSTREAM_RESET",
      "2 b reply 501 complete",
      "answered 501",
    ]);
  });

  it("frees the connection of a reply that nobody gets", async () => {
    const endless: Script = steps(headBytes(503, SSE), chunkBytes("x".repeat(70_000)), (call) => call.closed);
    await using it = await world([endless, status(200)], { next: walking });
    assert.equal((await it.ask()).status, 200);
    await closed(it.upstreams[0]!);
  });
});

describe("a byte sent", () => {
  for (const first of ["ping", "content"]) {
    it(`commits the exchange, also a ${first}: the failure behind it is the client's`, async () => {
      await using it = await world([stream(first, "error"), stream("other")], {
        next: walking,
        holdFirstEvent: () => true,
      });
      const { text, whole } = await it.ask();
      assert.deepEqual([text, whole], [`data: ${first}\n\ndata: error\n\n`, true]);
      assert.deepEqual(requestsOf(it), [1, 0]);
    });
  }

  it("is followed by no other attempt when the stream is cut", async () => {
    const cut: Script = steps(headBytes(200, SSE), chunkBytes("data: half\n\n"), (call) => call.reset());
    await using it = await world([cut, status(200)], { next: walking });
    const { text, whole } = await it.ask();
    assert.deepEqual([text, whole], ["data: half\n\n", false]);
    assert.deepEqual(it.events, ["1 a reply 200 upstream-cut", "partial 200 TM_UPSTREAM_CUT"]);
    assert.deepEqual(requestsOf(it), [1, 0]);
  });

  it("goes out at once, though nothing follows", async () => {
    const more = gate();
    const slow: Script = steps(
      headBytes(200, SSE),
      chunkBytes("data: ping\n\n"),
      more.opened,
      chunkBytes("data: x\n\n"),
      chunkBytes(""),
    );
    await using it = await world([slow], { next: walking, holdFirstEvent: () => true });
    const [reply] = (await once(it.request(), "response")) as [IncomingMessage];
    const [ping] = (await once(reply, "data")) as [Buffer];
    assert.equal(String(ping), "data: ping\n\n");
    more.open();
    assert.equal(String((await once(reply, "data"))[0]), "data: x\n\n");
    await it.settled();
  });
});

describe("an attempt's own edits", () => {
  it("go over those of the exchange, each attempt with its own", async () => {
    const alias = tapping("alias", ({ request, beforeUpstream }) => {
      request.tap((ex) => ex.edit(ex.segments[0]!, "bye"));
      beforeUpstream.tap((_, attempt) => {
        attempt.patch([{ op: "replace", pointer: "/model", value: `m-${attempt.provider.name}` }]);
        attempt.headers = [...attempt.headers, "X-Attempt", String(attempt.number)];
      });
    });
    await using it = await world([status(500), status(200)], { next: walking }, [alias]);
    await it.ask();
    const sent = it.upstreams.map(({ requests }) => [
      String(requests[0]!.body),
      requests[0]!.header("x-attempt"),
    ]);
    assert.deepEqual(sent, [
      ['{"texts":["bye"], "model": "m-a"}', "1"],
      ['{"texts":["bye"], "model": "m-b"}', "2"],
    ]);
  });
});

describe("a policy", () => {
  const broken: Readonly<Record<string, Partial<AttemptPolicy> & Pick<AttemptPolicy, "next">>> = {
    "that throws in next": {
      next() {
        throw new Error("no idea");
      },
    },
    "that decides nothing": { next: () => undefined as never },
    "that tries what is no candidate": { next: () => ({ kind: "try", candidate: {} }) as never },
    "that throws in accept": {
      next: walking,
      accept() {
        throw new Error("no idea");
      },
    },
    "that throws in holdFirstEvent": {
      next: walking,
      holdFirstEvent() {
        throw new Error("no idea");
      },
    },
  };
  for (const [what, decides] of Object.entries(broken)) {
    it(`${what} fails the exchange, and nothing else`, async () => {
      await using it = await world([stream("x")], decides);
      const { status: code, text } = await it.ask();
      assert.equal(code, 500);
      assert.doesNotMatch(text, /no idea/);
      assert.match(it.events.at(-1)!, /^refused 500 TM_/);
      assert.ok(it.logged.some(({ level, message }) => level === "error" && /driven/.test(message ?? "")));
    });
  }

  it("that never stops comes to an end", async () => {
    const skips = tapping("skips", ({ beforeUpstream }) => beforeUpstream.tap(() => ({ skip: "no" })));
    await using it = await world(
      [status(200)],
      { next: ({ exchange }) => ({ kind: "try", candidate: exchange.candidates[0]! }) },
      [skips],
    );
    assert.equal((await it.ask()).status, 503);
    assert.equal(it.events.length, 101);
  });
});
