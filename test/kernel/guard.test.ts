import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ErrorCode, TokenmanError } from "@tokenman/plugin-sdk";
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
