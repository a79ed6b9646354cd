import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import type { TokenmanError } from "@tokenman/plugin-sdk";
import { QUARANTINE_AFTER } from "../../kernel/hooks/plugin-handle.ts";
import { attemptOf, exchangeOn, outcome, pipelineOf, read, replyOf } from "./support/exchanges.ts";

describe("a hook's time-out", () => {
  const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

  it("counts running time: what a plugin spends in ex.wait is free, from the first turn on", async (t: TestContext) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const gate = Promise.withResolvers<void>();
    const waits = Promise.withResolvers<void>();
    const hooks = pipelineOf([
      {
        name: "patient",
        onError: "closed",
        hookMs: 30,
        tap: ({ request }) =>
          request.tap(async (ex) => {
            // In the very turn in which the hook was called.
            const waited = ex.wait(gate.promise);
            waits.resolve();
            await waited;
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const running = hooks.pipeline.request(exchange);
    await waits.promise;
    t.mock.timers.tick(600);
    gate.resolve();
    assert.equal(await running, undefined);
    assert.equal(hooks.handles["patient"]!.failures, 0);
  });

  it("goes on after ex.wait, with what was left", async () => {
    const hooks = pipelineOf([
      {
        name: "slow",
        onError: "closed",
        hookMs: 5,
        tap: ({ request }) =>
          request.tap(async (ex) => {
            await ex.wait(Promise.all([ex.wait(nextTurn()), nextTurn()]));
            await new Promise(() => {});
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const reply = await hooks.pipeline.request(exchange);
    assert.equal(reply?.refusal?.code, "TM_PLUGIN_TIMEOUT");
  });

  it("runs for one plugin while another waits: attempts side by side do not prolong each other", async () => {
    const hooks = pipelineOf([
      {
        name: "two",
        onError: "closed",
        hookMs: 5,
        tap: ({ beforeUpstream }) =>
          beforeUpstream.tap(async (ex, attempt) => {
            if (attempt.number === 1) await ex.wait(new Promise(() => {}));
            await new Promise(() => {});
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const first = hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange)) as Promise<unknown>;
    let firstEnded = false;
    void first.then(() => {
      firstEnded = true;
    });
    const verdict = await hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange));
    assert.ok(verdict !== undefined && "answer" in verdict);
    assert.equal(verdict.answer.refusal?.code, "TM_PLUGIN_TIMEOUT");
    assert.equal(firstEnded, false);
    // Nobody wants the answer any more: nor is the other one waited for, which is not its fault.
    exchange.clientLeft();
    assert.equal(await first, undefined);
    assert.equal(hooks.handles["two"]!.failures, 1);
  });

  it("of 0 never comes, and one beyond what a timer takes does not come at once", async (t: TestContext) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    for (const hookMs of [0, Number.POSITIVE_INFINITY]) {
      const gate = Promise.withResolvers<void>();
      const hooks = pipelineOf([
        { name: "a", onError: "closed", hookMs, tap: ({ request }) => request.tap(() => gate.promise) },
      ]);
      const { exchange } = exchangeOn(hooks);
      const running = hooks.pipeline.request(exchange);
      t.mock.timers.tick(1_000_000);
      gate.resolve();
      assert.equal(await running, undefined);
    }
  });

  it("leaves what comes later without effect, on request, attempt and reply", async () => {
    const inRequest = Promise.withResolvers<void>();
    const atTheEnd = Promise.withResolvers<void>();
    const tried: Record<string, string> = {};
    const trying = async (name: string, act: () => unknown) => {
      try {
        await act();
        tried[name] = "done";
      } catch (error) {
        tried[name] = (error as TokenmanError).code;
      }
    };
    let late = 0;
    const hooks = pipelineOf([
      {
        name: "late",
        hookMs: 5,
        tap({ request, beforeUpstream, response }) {
          request.tap(async (ex) => {
            await inRequest.promise;
            await trying("edit", () => ex.edit(ex.segments[0]!, "late"));
            await trying("patch", () => ex.patch([{ op: "remove", pointer: "/n" }]));
            late++;
          });
          beforeUpstream.tap(async (_, attempt) => {
            await atTheEnd.promise;
            await trying("attempt.patch", () => attempt.patch([{ op: "remove", pointer: "/n" }]));
            late++;
          });
          response.tap(async (reply) => {
            await atTheEnd.promise;
            await trying("mapEvents", () => reply.mapEvents({ event: () => undefined }));
            await trying("observe", () => reply.observe({}));
            await trying("replaceBody", () => reply.replaceBody("late"));
            await trying("share", () => reply.share({ maxBytes: 1 }));
            await trying("read", () => reply.read());
            late++;
          });
        },
      },
      {
        name: "busy",
        tap: ({ request }) =>
          request.tap(async (ex) => {
            // An edit that the other one makes now must not pass as this one's.
            inRequest.resolve();
            while (late === 0) await nextTurn();
            ex.patch([{ op: "replace", pointer: "/n", value: 2 }]);
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    await hooks.pipeline.request(exchange);
    const attempt = attemptOf(exchange);
    await hooks.pipeline.beforeUpstream(exchange, attempt);
    const sent = await hooks.pipeline.response(replyOf(exchange, attempt, "whole"), exchange);
    atTheEnd.resolve();
    while (late < 3) await nextTurn();
    assert.equal((await read(sent)).text, "whole");
    assert.equal(String(exchange.content.outgoingBody(attempt).body), '{"texts": ["one", "two"], "n": 2}');
    assert.deepEqual(tried, {
      edit: "TM_EDIT_IMPOSSIBLE",
      patch: "TM_EDIT_IMPOSSIBLE",
      "attempt.patch": "TM_EDIT_IMPOSSIBLE",
      mapEvents: "TM_PLUGIN_TIMEOUT",
      observe: "TM_PLUGIN_TIMEOUT",
      replaceBody: "TM_PLUGIN_TIMEOUT",
      share: "TM_PLUGIN_TIMEOUT",
      read: "TM_PLUGIN_TIMEOUT",
    });
  });
});

describe("a plugin that keeps failing", () => {
  const broken = (onError: "open" | "closed") =>
    pipelineOf([
      {
        name: "bad",
        onError,
        tap({ request, beforeUpstream, response, lifecycle }) {
          request.tap(() => {
            throw new Error("again");
          });
          beforeUpstream.tap(() => assert.fail("a quarantined plugin was asked"));
          response.tap(() => assert.fail("a quarantined plugin was asked"));
          lifecycle.for("settled").tap(() => {});
        },
      },
    ]);

  it("is left out after so many in a row of one hook, though its others work", async () => {
    const hooks = broken("open");
    for (let count = 1; count <= QUARANTINE_AFTER; count++) {
      assert.equal(hooks.handles["bad"]!.quarantined, undefined);
      const { exchange } = exchangeOn(hooks);
      await hooks.pipeline.request(exchange);
      await exchange.settle(outcome);
    }
    const { exchange } = exchangeOn(hooks);
    assert.match(hooks.handles["bad"]!.quarantined!, /^10 failures in a row, the last in request: again$/);
    assert.equal(await hooks.pipeline.request(exchange), undefined);
    assert.equal(await hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange)), undefined);
    const reply = replyOf(exchange, attemptOf(exchange), "x");
    assert.equal(await hooks.pipeline.response(reply, exchange), reply);
    assert.equal(hooks.handles["bad"]!.failures, QUARANTINE_AFTER);
  });

  it("refuses all where it fails closed, in every hook", async () => {
    const hooks = broken("closed");
    for (let count = 1; count <= QUARANTINE_AFTER; count++)
      await hooks.pipeline.request(exchangeOn(hooks).exchange);
    const { exchange } = exchangeOn(hooks);
    assert.equal((await hooks.pipeline.request(exchange))?.refusal?.code, "TM_PLUGIN_FAILED");
    assert.equal(exchange.answeredAt, 0);
    const other = exchangeOn(hooks).exchange;
    const verdict = await hooks.pipeline.beforeUpstream(other, attemptOf(other));
    assert.ok(verdict !== undefined && "answer" in verdict);
    const attempt = attemptOf(other);
    const reply = await hooks.pipeline.response(replyOf(other, attempt, "x"), other);
    assert.equal(reply.refusal?.code, "TM_PLUGIN_FAILED");
    assert.equal(attempt.result?.kind, "reply");
  });

  it("now and then is not left out", async () => {
    let calls = 0;
    const hooks = pipelineOf([
      {
        name: "moody",
        tap: ({ request }) =>
          request.tap(() => {
            if (++calls % 10 !== 0) throw new Error("moody");
          }),
      },
    ]);
    for (let count = 0; count < 50; count++) await hooks.pipeline.request(exchangeOn(hooks).exchange);
    assert.equal(hooks.handles["moody"]!.failures, 45);
    assert.equal(hooks.handles["moody"]!.quarantined, undefined);
  });
});
