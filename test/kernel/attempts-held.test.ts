import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import type { AttemptPolicy } from "@tokenman/plugin-sdk";
import { chunkBytes, FakeClock, gate, headBytes, type Script, steps } from "@tokenman/plugin-sdk/testkit";
import { closed, requestsOf, SSE, stream, world } from "./support/attempt-world.ts";
import { walking } from "./support/routing.ts";

describe("a stream's head whose first event is waited for", () => {
  const mute = (coding?: string): Script => {
    const coded = coding === undefined ? [] : ["Content-Encoding", coding];
    return steps(headBytes(200, [...SSE, ...coded]), (call) => call.closed);
  };
  /** How long a head waits by itself. */
  const HELD_MS = 1_000;
  /** A policy that lets heads wait, and when the first of them does. */
  function holding(next: AttemptPolicy["next"] = walking) {
    const held = gate();
    const holdFirstEvent = (): boolean => {
      held.open();
      return true;
    };
    return { held: held.opened, policy: { next, holdFirstEvent } };
  }

  for (const coding of [undefined, "gzip"]) {
    it(`goes out after a while where none comes${coding ? ", coded" : ""}, and is committed`, {
      timeout: 10_000,
    }, async () => {
      const { held, policy } = holding();
      await using it = await world([mute(coding), stream("other")], policy);
      using clock = new FakeClock();
      const asked = it.request();
      const responded = once(asked, "response");
      await held;
      await clock.advance(HELD_MS);
      const [reply] = (await responded) as [IncomingMessage];
      assert.deepEqual([reply.statusCode, reply.headers["x-tokenman-provider"]], [200, "a"]);
      assert.deepEqual(requestsOf(it), [1, 0]);
      asked.destroy();
      await it.settled();
      await closed(it.upstreams[0]!);
      assert.deepEqual(it.events, ["1 a reply 200 aborted", "aborted 200 TM_CLIENT_GONE"]);
    });
  }

  it("takes what comes later along, a failure too: it is the client's", { timeout: 10_000 }, async () => {
    const late = gate();
    const tardy: Script = steps(
      headBytes(200, SSE),
      late.opened,
      chunkBytes("data: error\n\n"),
      chunkBytes("data: end\n\n"),
      chunkBytes(""),
    );
    const { held, policy } = holding();
    await using it = await world([tardy, stream("other")], policy);
    using clock = new FakeClock();
    const responded = once(it.request(), "response");
    await held;
    await clock.advance(HELD_MS);
    const [reply] = (await responded) as [IncomingMessage];
    late.open();
    let text = "";
    for await (const chunk of reply) text += chunk;
    assert.equal(text, "data: error\n\ndata: end\n\n");
    await it.settled();
    assert.deepEqual(requestsOf(it), [1, 0]);
  });

  it("waits on for a second attempt that the policy is about to begin", { timeout: 10_000 }, async () => {
    let asked = 0;
    const hedging: AttemptPolicy["next"] = ({ attempts, live, untried }) => {
      if (attempts.length === 0) return { kind: "try", candidate: untried[0]! };
      if (attempts.length > 1) return live.length > 0 ? { kind: "wait" } : { kind: "stop" };
      return asked++ === 0 ? { kind: "wait", forMs: 2 * HELD_MS } : { kind: "try", candidate: untried[0]! };
    };
    const { held, policy } = holding(hedging);
    await using it = await world([mute(), stream("fine", "[DONE]")], policy);
    using clock = new FakeClock();
    const asking = it.ask();
    await held;
    await clock.advance(2 * HELD_MS);
    const { text, provider } = await asking;
    assert.deepEqual([provider, text], ["b", "data: fine\n\ndata: [DONE]\n\n"]);
    assert.deepEqual(it.events, ["1 a reply 200 aborted", "2 b reply 200 complete", "answered 200"]);
  });

  it("goes out when the second attempt has failed", { timeout: 10_000 }, async () => {
    const fails = gate();
    const failing: Script = async (call) => {
      await call.received;
      await fails.opened;
      call.reset();
    };
    const both: AttemptPolicy["next"] = ({ attempts, live, untried }) => {
      if (attempts.length < 2) return { kind: "try", candidate: untried[0]! };
      return live.length > 0 ? { kind: "wait" } : { kind: "stop" };
    };
    const { held, policy } = holding(both);
    await using it = await world([mute(), failing], policy);
    using clock = new FakeClock();
    const asked = it.request();
    const responded = once(asked, "response");
    await held;
    // From then on the first head waits for the second attempt alone.
    await clock.advance(HELD_MS);
    fails.open();
    const [reply] = (await responded) as [IncomingMessage];
    assert.equal(reply.headers["x-tokenman-provider"], "a");
    asked.destroy();
    await it.settled();
    assert.equal(it.events[0], "2 b error TM_UPSTREAM_RESET");
  });
});
