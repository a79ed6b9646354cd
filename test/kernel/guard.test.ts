import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import type { ErrorCode, TokenmanError } from "@tokenman/plugin-sdk";
import { QUARANTINE_AFTER } from "../../kernel/hooks/plugin-handle.ts";
import {
  attemptOf,
  exchangeOn,
  outcome,
  pipelineOf,
  read,
  replyOf,
  type TestPipeline,
} from "./support/exchanges.ts";

const THEN = "then";
type Settle = (value: unknown) => void;

/** A promise of another make. */
function thenable(then: (resolve: Settle, reject: Settle) => unknown): object {
  return { [THEN]: then };
}

/** What a plugin may do wrong, and the code that it is told by. */
const FAILURES: Readonly<Record<string, readonly [act: () => unknown, code: ErrorCode]>> = {
  "throws an error": [
    () => {
      throw new Error("broken");
    },
    "TM_PLUGIN_FAILED",
  ],
  "throws nothing useful": [
    () => {
      throw undefined;
    },
    "TM_PLUGIN_FAILED",
  ],
  "throws what has no text": [
    () => {
      throw Object.create(null);
    },
    "TM_PLUGIN_FAILED",
  ],
  "throws an error that cannot be read": [
    () => {
      throw Object.defineProperty(new Error("x"), "message", {
        get() {
          throw new Error("unreadable");
        },
      });
    },
    "TM_PLUGIN_FAILED",
  ],
  rejects: [() => Promise.reject(new Error("broken")), "TM_PLUGIN_FAILED"],
  "rejects with nothing": [() => Promise.reject(undefined), "TM_PLUGIN_FAILED"],
  "returns null": [() => null, "TM_PLUGIN_RESULT"],
  "returns a number": [() => 42, "TM_PLUGIN_RESULT"],
  "returns a function": [() => () => {}, "TM_PLUGIN_RESULT"],
  "returns an empty object": [() => ({}), "TM_PLUGIN_RESULT"],
  "returns a reply with no such status": [() => ({ status: 99 }), "TM_PLUGIN_RESULT"],
  "returns a reply with headers as an object": [
    () => ({ status: 200, headers: { a: "b" } }),
    "TM_PLUGIN_RESULT",
  ],
  "returns a reply with a header that cannot be sent": [
    () => ({ status: 200, headers: ["x", "a\r\nb"] }),
    "TM_PLUGIN_RESULT",
  ],
  "returns a reply with a body of another kind": [() => ({ status: 200, body: 7 }), "TM_PLUGIN_RESULT"],
  "resolves with nonsense": [() => Promise.resolve("yes"), "TM_PLUGIN_RESULT"],
  "returns a thenable that throws": [
    () =>
      thenable(() => {
        throw new Error("in then");
      }),
    "TM_PLUGIN_FAILED",
  ],
  "returns an object whose then cannot be read": [
    () =>
      Object.defineProperty({}, THEN, {
        get() {
          throw new Error("no then");
        },
      }),
    "TM_PLUGIN_FAILED",
  ],
  "returns a thenable that rejects twice": [
    () =>
      thenable((_, reject) => {
        reject(new Error("one"));
        reject(new Error("two"));
      }),
    "TM_PLUGIN_FAILED",
  ],
  "returns a thenable of a promise that rejects": [
    () => thenable((resolve) => resolve(Promise.reject(new Error("within")))),
    "TM_PLUGIN_FAILED",
  ],
  "returns a promise with a then of its own": [
    () =>
      Object.assign(
        Promise.reject(new Error("own")),
        thenable(() => assert.fail("never asked")),
      ),
    "TM_PLUGIN_FAILED",
  ],
  "never settles": [() => new Promise(() => {}), "TM_PLUGIN_TIMEOUT"],
  "returns a thenable that never settles": [() => thenable(() => {}), "TM_PLUGIN_TIMEOUT"],
};

const HOOK_MS = 5;

/** A pipeline of `first`, then the failing plugin, then `last`, which note what they see. */
function failing(
  hook: "request" | "beforeUpstream" | "response",
  act: () => unknown,
  onError: "open" | "closed",
) {
  const seen: string[] = [];
  const note = (name: string) => ({
    name,
    tap: ({ [hook]: target }: { readonly [key: string]: { tap(fn: () => void): void } }) =>
      target!.tap(() => void seen.push(name)),
  });
  const hooks = pipelineOf([
    note("first") as never,
    { name: "bad", onError, hookMs: HOOK_MS, tap: (all) => all[hook].tap(act as never) },
    note("last") as never,
  ]);
  return { hooks, seen };
}

function assertNamed(hooks: TestPipeline, hook: string, code: ErrorCode): void {
  const bad = hooks.handles["bad"]!;
  assert.equal(bad.failures, 1);
  const line = hooks.log.lines.find(({ level }) => level === "error");
  const facts = line?.facts as { plugin: string; hook: string; policy: string; err: unknown } | undefined;
  assert.equal(line?.message, "plugin failed");
  assert.deepEqual([facts?.plugin, facts?.hook, facts?.policy], ["bad", hook, bad.onError]);
  if (code !== "TM_PLUGIN_FAILED") assert.equal((facts?.err as TokenmanError | undefined)?.code, code);
}

for (const [what, [act, code]] of Object.entries(FAILURES)) {
  describe(`a plugin that ${what}`, () => {
    it("in request is passed over where it fails open, and refuses where it fails closed", async () => {
      const open = failing("request", act, "open");
      const passed = exchangeOn(open.hooks);
      assert.equal(await open.hooks.pipeline.request(passed.exchange), undefined);
      assert.deepEqual(open.seen, ["first", "last"]);
      assertNamed(open.hooks, "request", code);

      const closed = failing("request", act, "closed");
      const refused = exchangeOn(closed.hooks);
      const reply = await closed.hooks.pipeline.request(refused.exchange);
      assert.deepEqual(closed.seen, ["first"]);
      assert.deepEqual([reply?.status, reply?.origin, reply?.refusal?.code], [500, "kernel", code]);
      assert.equal(refused.exchange.answeredAt, 1);
      const { text } = await read(reply!);
      assert.doesNotMatch(text, /broken|bad|then/, "nothing of the inside goes to the client");
      assertNamed(closed.hooks, "request", code);
    });

    it("in beforeUpstream likewise", async () => {
      const open = failing("beforeUpstream", act, "open");
      const passed = exchangeOn(open.hooks);
      assert.equal(
        await open.hooks.pipeline.beforeUpstream(passed.exchange, attemptOf(passed.exchange)),
        undefined,
      );
      assert.deepEqual(open.seen, ["first", "last"]);
      assertNamed(open.hooks, "beforeUpstream", code);

      const closed = failing("beforeUpstream", act, "closed");
      const { exchange } = exchangeOn(closed.hooks);
      const verdict = await closed.hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange));
      assert.ok(verdict !== undefined && "answer" in verdict);
      assert.deepEqual([verdict.by.name, verdict.answer.refusal?.code], ["bad", code]);
      assert.deepEqual(closed.seen, ["first"]);
    });

    it("in response likewise, and the rest of the plugins see what the client gets", async () => {
      const open = failing("response", act, "open");
      const passed = exchangeOn(open.hooks);
      const whole = replyOf(passed.exchange, attemptOf(passed.exchange), "whole");
      const sent = await open.hooks.pipeline.response(whole, passed.exchange);
      assert.equal((await read(sent)).text, "whole");
      assert.deepEqual(open.seen, ["last", "first"]);
      assertNamed(open.hooks, "response", code);

      const closed = failing("response", act, "closed");
      const { exchange } = exchangeOn(closed.hooks);
      const attempt = attemptOf(exchange);
      const reply = await closed.hooks.pipeline.response(replyOf(exchange, attempt, "whole"), exchange);
      assert.deepEqual([reply.status, reply.origin, reply.refusal?.code], [500, "kernel", code]);
      assert.deepEqual(closed.seen, ["last", "first"]);
      assert.equal(attempt.result?.kind, "reply");
    });
  });
}

describe("a lifecycle tap", () => {
  it("that fails in any way is passed over, whatever the policy", async () => {
    for (const [act] of Object.values(FAILURES)) {
      for (const name of ["start", "attemptEnd", "settled"] as const) {
        const seen: string[] = [];
        const hooks = pipelineOf([
          {
            name: "bad",
            onError: "closed",
            hookMs: HOOK_MS,
            tap: ({ lifecycle }) => lifecycle.for(name).tap(act as never),
          },
          { name: "next", tap: ({ lifecycle }) => lifecycle.for(name).tap(() => void seen.push(name)) },
        ]);
        const { exchange, released } = exchangeOn(hooks);
        if (name === "start") hooks.pipeline.started(exchange);
        else if (name === "attemptEnd") attemptOf(exchange).end({ kind: "cancelled" });
        await exchange.settle(outcome);
        while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
        assert.deepEqual([seen, released()], [[name], 1]);
      }
    }
  });
});

describe("a reply whose body cannot be iterated", () => {
  it("is the failure of the plugin that gave it", async () => {
    const body = {
      [Symbol.asyncIterator]() {
        throw new Error("no iterator");
      },
    };
    const request = failing("request", async () => ({ status: 200, body }), "closed");
    const reply = await request.hooks.pipeline.request(exchangeOn(request.hooks).exchange);
    assert.equal(reply?.refusal?.code, "TM_PLUGIN_FAILED");
    const before = failing("beforeUpstream", async () => ({ answer: { status: 200, body } }), "open");
    const { exchange } = exchangeOn(before.hooks);
    assert.equal(await before.hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange)), undefined);
    assertNamed(before.hooks, "beforeUpstream", "TM_PLUGIN_FAILED");
  });
});

describe("a reply of another exchange", () => {
  it("is no answer: its body goes to somebody else", async () => {
    const hooks = pipelineOf([]);
    const { exchange } = exchangeOn(hooks);
    const foreign = replyOf(exchange, attemptOf(exchange), "theirs");
    for (const hook of ["request", "response"] as const) {
      const { hooks } = failing(hook, () => foreign, "closed");
      const { exchange } = exchangeOn(hooks);
      const own = replyOf(exchange, attemptOf(exchange), "own");
      const reply = await (hook === "request"
        ? hooks.pipeline.request(exchange)
        : hooks.pipeline.response(own, exchange));
      assert.equal(reply?.refusal?.code, "TM_PLUGIN_RESULT");
    }
    assert.equal((await read(foreign)).text, "theirs");
  });
});

describe("what a hook sets", () => {
  it("must be usable, or it is the hook's failure and is taken back", async () => {
    const nonsense: readonly [set: (reply: { status: unknown; headers: unknown }) => void][] = [
      [(reply) => Object.assign(reply, { status: "200" })],
      [(reply) => Object.assign(reply, { status: 1000 })],
      [(reply) => Object.assign(reply, { headers: { a: "b" } })],
      [(reply) => Object.assign(reply, { headers: ["content-type", "text/plain", "x"] })],
      [(reply) => Object.assign(reply, { headers: ["content-type", "text/plain", "x", "a\nb"] })],
      [(reply) => Object.assign(reply, { headers: ["content-type", "text/plain", "x y", "1"] })],
      [(reply) => Object.assign(reply, { headers: ["content-type", "text/plain", "x", "\u20ac"] })],
      [(reply) => Object.assign(reply, { headers: ["content-type", 1] })],
    ];
    for (const [set] of nonsense) {
      const hooks = pipelineOf([
        {
          name: "bad",
          tap({ request, beforeUpstream, response }) {
            request.tap((ex) => void Object.assign(ex, { candidates: [{ provider: "by name" }] }));
            beforeUpstream.tap((_, attempt) => {
              Object.assign(attempt, { headers: ["a", "1", "b", "\r\n"] });
            });
            response.tap((reply) => set(reply));
          },
        },
      ]);
      const { exchange } = exchangeOn(hooks);
      const attempt = attemptOf(exchange);
      await hooks.pipeline.request(exchange);
      await hooks.pipeline.beforeUpstream(exchange, attempt);
      const reply = replyOf(exchange, attempt, "x");
      await hooks.pipeline.response(reply, exchange);
      assert.equal(hooks.handles["bad"]!.failures, 3);
      assert.deepEqual(exchange.candidates, []);
      assert.deepEqual(attempt.headers, ["a", "1"]);
      assert.deepEqual([reply.status, reply.headers.slice(0, 2)], [200, ["content-type", "text/plain"]]);
    }
  });
});

describe("a foreign thenable", () => {
  it("is taken like a promise; what it does after it settled is ignored", async () => {
    let resolveLater: Settle | undefined;
    const hooks = pipelineOf([
      {
        name: "a",
        tap: ({ request }) =>
          request.tap(
            () =>
              thenable((resolve, reject) => {
                resolveLater = resolve;
                resolve({ status: 200, body: "one" });
                reject(new Error("two"));
                resolve({ status: 500, body: "three" });
                throw new Error("four");
              }) as never,
          ),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const reply = await hooks.pipeline.request(exchange);
    resolveLater!({ status: 500 });
    assert.equal((await read(reply!)).text, "one");
    assert.equal(hooks.handles["a"]!.failures, 0);
  });
});

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
    assert.equal(String(exchange.outgoingBody(attempt).body), '{"texts": ["one", "two"], "n": 2}');
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
