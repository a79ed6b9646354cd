import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import type { AttemptPolicy, Provider } from "@tokenman/plugin-sdk";
import { chunkBytes, gate, headBytes, type Script, steps } from "../support/upstream.ts";
import { closed, requestsOf, reset, SSE, status, stream, world } from "./support/attempt-world.ts";
import { tapping, walking } from "./support/routing.ts";

/** Says nothing until the other side leaves. */
const silent: Script = async (call) => {
  await call.received;
  await call.closed;
};

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

  it("calls an error off whose body is still waited for", async () => {
    let isCalledOff = false;
    const stuck: AsyncIterableIterator<Buffer> = {
      [Symbol.asyncIterator]: () => stuck,
      next: () => new Promise(() => {}),
      async return() {
        isCalledOff = true;
        return { done: true, value: undefined };
      },
    };
    const failing: NonNullable<Provider["answer"]> = (_request, _exchange, _attempt) => ({
      status: 503,
      body: stuck,
    });
    await using it = await world([failing, stream("b")], { next: both });
    const { provider, text } = await it.ask();
    assert.deepEqual([provider, text], ["b", "data: b\n\n"]);
    assert.ok(isCalledOff, "and not when the time for an error's body is over");
    assert.deepEqual(it.events, ["1 a reply 503 aborted", "2 b reply 200 complete", "answered 200"]);
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
