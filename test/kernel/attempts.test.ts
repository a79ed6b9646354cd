import assert from "node:assert/strict";
import { once } from "node:events";
import http, { type IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import zlib from "node:zlib";
import type { AttemptPolicy, Plugin, Provider } from "@tokenman/plugin-sdk";
import { runKernel } from "../support/running-kernel.ts";
import {
  chunkBytes,
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  type Script,
  steps,
  wholeReply,
} from "../support/upstream.ts";
import { policy, providerOf, router, tapping, walking, witness } from "./support/routing.ts";

const BODY = '{"texts":["hello"], "model": "m"}';
const SSE = ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"];
const stream = (...events: readonly string[]): Script =>
  steps(headBytes(200, SSE), ...events.map((data) => chunkBytes(`data: ${data}\n\n`)), chunkBytes(""));
const status = (code: number, body = `status ${code}`): Script =>
  wholeReply({ status: code, headers: ["X-Mark", String(code)], body });
const reset: Script = async (call) => {
  await call.received;
  call.reset();
};
/** Says nothing until the other side leaves. */
const silent: Script = async (call) => {
  await call.received;
  await call.closed;
};

interface World extends AsyncDisposable {
  readonly upstreams: readonly RecordingUpstream[];
  readonly events: readonly string[];
  readonly logged: Awaited<ReturnType<typeof runKernel>>["logged"];
  ask(): Promise<{
    status: number;
    text: string;
    provider: string | undefined;
    retryAfter: string | undefined;
    whole: boolean;
  }>;
  request(): http.ClientRequest;
  settled(): Promise<unknown>;
}

/** A kernel in front of one upstream per script, tried in that order as `decides` says. */
async function world(
  scripts: readonly (Script | NonNullable<Provider["answer"]>)[],
  decides?: Partial<AttemptPolicy> & Pick<AttemptPolicy, "next">,
  more: readonly Plugin[] = [],
): Promise<World> {
  const upstreams: RecordingUpstream[] = [];
  const providers: Provider[] = [];
  for (const [index, script] of scripts.entries()) {
    const name = "abcdef"[index]!;
    // An in-process provider takes the request and two more arguments.
    if (script.length === 3) providers.push(providerOf(name, script as NonNullable<Provider["answer"]>));
    else {
      const upstream = await recordingUpstream({ script: script as Script });
      upstreams.push(upstream);
      providers.push(providerOf(name, upstream.url));
    }
  }
  const seen = witness();
  const kernel = await runKernel([
    seen.plugin,
    ...more,
    ...(decides === undefined ? [] : [policy(decides)]),
    router(() => providers),
  ]);
  const request = () => {
    const asked = http.request(`${kernel.proxy}/v1/test`, { method: "POST", agent: false });
    asked.end(BODY);
    return asked;
  };
  return {
    upstreams,
    events: seen.events,
    logged: kernel.logged,
    request,
    settled: () => seen.settled(),
    async ask() {
      const [reply] = (await once(request(), "response")) as [IncomingMessage];
      let text = "";
      let whole = true;
      try {
        for await (const chunk of reply) text += chunk;
      } catch {
        whole = false;
      }
      await seen.settled();
      return {
        status: reply.statusCode!,
        text,
        provider: reply.headers["x-tokenman-provider"] as string | undefined,
        retryAfter: reply.headers["retry-after"],
        whole,
      };
    },
    async [Symbol.asyncDispose]() {
      await kernel[Symbol.asyncDispose]();
      for (const upstream of upstreams) await upstream.stop();
    },
  };
}

/** Resolves when no connection of it is open. */
async function closed(upstream: RecordingUpstream): Promise<void> {
  while (upstream.open > 0) await new Promise((resolve) => setImmediate(resolve));
}

const requestsOf = ({ upstreams }: World) => upstreams.map(({ requests }) => requests.length);

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

describe("a delayed attempt", () => {
  it("waits, and is tried against the same candidate where the policy says so", async () => {
    const answers: Script[] = [status(503), status(503), status(200)];
    const inTurn: Script = (call) => answers.shift()!(call);
    await using it = await world([inTurn], {
      next({ attempts, untried }) {
        const candidate = untried[0] ?? attempts[0]!.candidate;
        if (attempts.length === 3) return { kind: "stop" };
        return { kind: "try", candidate, delayMs: attempts.length };
      },
    });
    assert.equal((await it.ask()).status, 200);
    assert.deepEqual(requestsOf(it), [3]);
    assert.deepEqual(it.events.slice(0, 2), ["1 a reply 503 aborted", "2 a reply 503 aborted"]);
  });

  it("is not lost when something happens meanwhile: the policy decides anew", async () => {
    const dies = gate();
    const dying: Script = async (call) => {
      await call.received;
      await dies.opened;
      call.reset();
    };
    await using it = await world([dying, status(200)], {
      next({ live, untried }) {
        const candidate = untried[0];
        if (candidate === undefined) return live.length > 0 ? { kind: "wait" } : { kind: "stop" };
        // A hedge that would come long after the test, unless nothing is live any more.
        if (live.length > 0) {
          dies.open();
          return { kind: "try", candidate, delayMs: 3_600_000 };
        }
        return { kind: "try", candidate };
      },
    });
    assert.equal((await it.ask()).provider, "b");
  });

  it("is called off when the client leaves", async () => {
    await using it = await world([status(503), status(200)], {
      next({ attempts, untried, live }) {
        const candidate = untried[0]!;
        if (live.length > 0) return { kind: "wait" };
        if (attempts.length === 0) return { kind: "try", candidate };
        setImmediate(() => asked.destroy());
        return { kind: "try", candidate, delayMs: 3_600_000 };
      },
    });
    const asked = it.request();
    asked.on("error", () => {});
    await it.settled();
    assert.deepEqual(it.events, ["1 a reply 503 aborted", "aborted 499 TM_CLIENT_GONE"]);
  });
});

describe("hedging", () => {
  /** Two at once; the first reply that is accepted wins. */
  const both: AttemptPolicy["next"] = ({ untried, live }) => {
    const candidate = untried[0];
    if (candidate !== undefined) return { kind: "try", candidate };
    return live.length > 0 ? { kind: "wait" } : { kind: "stop" };
  };

  it("runs two attempts side by side; the first to stream wins, the other is called off at once, both are recorded", async () => {
    for (const [scripts, winner] of [
      [[silent, stream("b")], "b"],
      [[stream("a"), silent], "a"],
    ] as const) {
      await using it = await world(scripts, { next: both });
      const { text, provider } = await it.ask();
      assert.deepEqual([text, provider], [`data: ${winner}\n\n`, winner]);
      const loser = winner === "a" ? 1 : 0;
      const arrived = await it.upstreams[loser]!.arrival(1);
      assert.equal(arrived.method, "POST");
      await closed(it.upstreams[loser]!);
      assert.deepEqual(it.events, [
        `${loser + 1} ${winner === "a" ? "b" : "a"} cancelled`,
        `${2 - loser} ${winner} reply 200 complete`,
        "answered 200",
      ]);
    }
  });

  it("begins the second after a while, only if the first has not come", async () => {
    const asked: string[] = [];
    const later: AttemptPolicy["next"] = ({ attempts, untried, live, elapsedMs }) => {
      asked.push(`${attempts.length} ${live.length}`);
      assert.ok(elapsedMs >= 0);
      const candidate = untried[0];
      if (candidate === undefined) return { kind: live.length > 0 ? "wait" : "stop" };
      if (live.length === 0) return { kind: "try", candidate };
      return asked.length > 3 ? { kind: "try", candidate } : { kind: "wait", forMs: 1 };
    };
    await using it = await world([silent, status(200)], { next: later });
    assert.equal((await it.ask()).provider, "b");
    assert.deepEqual(asked.slice(0, 4), ["0 0", "1 1", "1 1", "1 1"]);
  });

  it("goes on with the other one when one fails", async () => {
    const failed = gate();
    const patient: Script = steps(
      failed.opened,
      headBytes(200, SSE),
      chunkBytes("data: b\n\n"),
      chunkBytes(""),
    );
    await using it = await world([reset, patient], {
      next(view) {
        if (view.attempts[0]?.result !== undefined) failed.open();
        return both(view);
      },
    });
    assert.equal((await it.ask()).provider, "b");
    assert.deepEqual(it.events, ["1 a error TM_UPSTREAM_RESET", "2 b reply 200 complete", "answered 200"]);
  });

  it("that is answered before an attempt calls the live ones off", async () => {
    const answers = tapping("answers", ({ beforeUpstream }) =>
      beforeUpstream.tap((_, { number }) =>
        number === 2 ? { answer: { status: 200, body: "kept" } } : undefined,
      ),
    );
    await using it = await world([silent, silent], { next: both }, [answers]);
    assert.equal((await it.ask()).text, "kept");
    assert.deepEqual(it.events, [
      "2 b skipped by answers: answered without the provider",
      "1 a cancelled",
      "answered 200",
    ]);
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

describe("a client that leaves", () => {
  it("while a request hook runs is followed by no attempt", async () => {
    const left = gate();
    const slow = tapping("slow", ({ request }) =>
      request.tap(async (ex) => {
        asked.destroy();
        await ex.wait(new Promise((resolve) => ex.signal.addEventListener("abort", resolve)));
        left.open();
      }),
    );
    await using it = await world([status(200)], undefined, [slow]);
    const asked = it.request();
    asked.on("error", () => {});
    await left.opened;
    await it.settled();
    assert.deepEqual(it.events, ["aborted 499 TM_CLIENT_GONE"]);
    assert.deepEqual(requestsOf(it), [0]);
  });

  it("while a beforeUpstream hook runs ends the attempt before it was sent, once", async () => {
    const slow = tapping("slow", ({ beforeUpstream }) =>
      beforeUpstream.tap(async (ex) => {
        asked.destroy();
        await ex.wait(new Promise((resolve) => ex.signal.addEventListener("abort", resolve)));
        return { skip: "too late" };
      }),
    );
    await using it = await world([status(200)], { next: walking }, [slow]);
    const asked = it.request();
    asked.on("error", () => {});
    await it.settled();
    assert.deepEqual(it.events, ["1 a cancelled", "aborted 499 TM_CLIENT_GONE"]);
    assert.deepEqual(requestsOf(it), [0]);
  });

  it("before the head calls the provider off at once, however many are live", async () => {
    const leaves: Script = async (call) => {
      await call.received;
      asked.destroy();
      await call.closed;
    };
    await using it = await world([silent, leaves], {
      next: ({ untried, live }) =>
        untried[0] === undefined
          ? { kind: live.length > 0 ? "wait" : "stop" }
          : { kind: "try", candidate: untried[0] },
    });
    const asked = it.request();
    asked.on("error", () => {});
    await it.settled();
    assert.deepEqual(it.events, ["1 a cancelled", "2 b cancelled", "aborted 499 TM_CLIENT_GONE"]);
    for (const upstream of it.upstreams) await closed(upstream);
  });

  it("in the middle of a stream likewise", async () => {
    const endless: Script = steps(headBytes(200, SSE), chunkBytes("data: x\n\n"), (call) => call.closed);
    await using it = await world([endless], { next: walking, holdFirstEvent: () => true });
    const asked = it.request();
    const [reply] = (await once(asked, "response")) as [IncomingMessage];
    reply.on("error", () => {});
    await once(reply, "data");
    asked.destroy();
    await it.settled();
    assert.deepEqual(it.events, ["1 a reply 200 aborted", "aborted 200 TM_CLIENT_GONE"]);
  });

  it("does not end what a plugin holds on to", async () => {
    const more = gate();
    const slow: Script = steps(headBytes(200, SSE), chunkBytes("data: x\n\n"), more.opened, chunkBytes(""));
    const copied: string[] = [];
    const ended = gate<string>();
    const keeps = tapping("keeps", ({ request, response }) => {
      request.tap((ex) => {
        release = ex.retain();
      });
      response.tap((reply) => {
        const shared = reply.share({ maxBytes: 1_000 }).join()!;
        void (async () => {
          for await (const chunk of shared.body as AsyncIterable<Buffer>) copied.push(String(chunk));
          ended.open("whole");
        })();
      });
    });
    let release = () => {};
    await using it = await world([slow], undefined, [keeps]);
    const asked = it.request();
    const [reply] = (await once(asked, "response")) as [IncomingMessage];
    reply.on("error", () => {});
    await once(reply, "data");
    asked.destroy();
    await once(asked, "close");
    more.open();
    assert.equal(await ended.opened, "whole");
    release();
    await it.settled();
    assert.deepEqual(copied, ["data: x\n\n"]);
    assert.deepEqual(it.events, ["1 a reply 200 complete", "aborted 200 TM_CLIENT_GONE"]);
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
