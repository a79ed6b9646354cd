import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HookObserver } from "@tokenman/plugin-sdk";
import {
  attemptOf,
  candidate,
  exchangeOn,
  outcome,
  pipelineOf,
  read,
  replyOf,
  type TestPlugin,
} from "./support/exchanges.ts";

/** Notes each of its taps in `seen`. */
function noting(name: string, seen: string[], more: Partial<TestPlugin> = {}): TestPlugin {
  return {
    name,
    tap({ request, beforeUpstream, response, lifecycle }) {
      request.tap(() => void seen.push(`${name} request`));
      beforeUpstream.tap((_, attempt) => void seen.push(`${name} before ${attempt.number}`));
      response.tap(() => void seen.push(`${name} response`));
      lifecycle.for("start").tap(() => void seen.push(`${name} start`));
      lifecycle.for("attemptEnd").tap((_, attempt) => void seen.push(`${name} end ${attempt.number}`));
      lifecycle.for("settled").tap(() => void seen.push(`${name} settled`));
    },
    ...more,
  };
}

describe("the order of taps", () => {
  it("is the plugins' for the request, every attempt and the observers, and its reverse for the reply", () => {
    const seen: string[] = [];
    const hooks = pipelineOf([noting("a", seen), noting("b", seen)]);
    const { exchange } = exchangeOn(hooks);
    hooks.pipeline.started(exchange);
    assert.equal(hooks.pipeline.request(exchange), undefined);
    const first = attemptOf(exchange);
    const second = attemptOf(exchange);
    assert.equal(hooks.pipeline.beforeUpstream(exchange, first), undefined);
    assert.equal(hooks.pipeline.beforeUpstream(exchange, second), undefined);
    first.end({ kind: "cancelled" });
    first.end({ kind: "cancelled" });
    const reply = replyOf(exchange, second, "x");
    assert.equal(hooks.pipeline.response(reply, exchange), reply);
    hooks.pipeline.settled(exchange, outcome);
    assert.deepEqual(seen, [
      "a start",
      "b start",
      "a request",
      "b request",
      "a before 1",
      "b before 1",
      "a before 2",
      "b before 2",
      "a end 1",
      "b end 1",
      "b response",
      "a response",
      "a settled",
      "b settled",
    ]);
  });

  it("within a plugin is that in which it tapped, in each hook", () => {
    const seen: string[] = [];
    const hooks = pipelineOf([
      {
        name: "a",
        tap({ request, response }) {
          request.tap(() => void seen.push("request 1"));
          request.tap(() => void seen.push("request 2"));
          response.tap(() => void seen.push("response 1"));
          response.tap(() => void seen.push("response 2"));
        },
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    hooks.pipeline.request(exchange);
    hooks.pipeline.response(replyOf(exchange, attemptOf(exchange), ""), exchange);
    assert.deepEqual(seen, ["request 1", "request 2", "response 1", "response 2"]);
  });

  it("holds while taps are asynchronous", async () => {
    const seen: string[] = [];
    const gate = Promise.withResolvers<void>();
    const hooks = pipelineOf([
      {
        name: "slow",
        tap({ request }) {
          request.tap(async () => {
            await gate.promise;
            seen.push("slow");
          });
        },
      },
      noting("next", seen),
    ]);
    const { exchange } = exchangeOn(hooks);
    const running = hooks.pipeline.request(exchange);
    assert.ok(running instanceof Promise);
    assert.deepEqual(seen, []);
    gate.resolve();
    await running;
    assert.deepEqual(seen, ["slow", "next request"]);
  });
});

describe("a reply from the request hook", () => {
  const answering = (name: string, seen: string[], answer: () => unknown): TestPlugin => ({
    name,
    tap({ request, response }) {
      request.tap(() => answer() as undefined);
      response.tap(() => void seen.push(`${name} response`));
    },
  });

  it("ends the request's way; the reply passes only the plugins before, last to first", async () => {
    for (const asynchronous of [false, true]) {
      const seen: string[] = [];
      const answer = { status: 203, headers: ["x-a", "1"], body: "here" };
      const hooks = pipelineOf([
        noting("a", seen),
        noting("b", seen),
        answering("c", seen, () => (asynchronous ? Promise.resolve(answer) : answer)),
        noting("d", seen),
      ]);
      const { exchange } = exchangeOn(hooks);
      const reply = await hooks.pipeline.request(exchange);
      assert.ok(reply);
      assert.deepEqual([reply.status, reply.origin, reply.plugin], [203, "plugin", "c"]);
      const sent = await hooks.pipeline.response(reply, exchange);
      assert.equal((await read(sent)).text, "here");
      assert.deepEqual(seen, ["a request", "b request", "b response", "a response"]);
    }
  });

  it("made by ex.refuse is TokenMan's error with its code, from that plugin", () => {
    const hooks = pipelineOf([
      {
        name: "budget",
        tap: ({ request }) =>
          request.tap((ex) => ex.refuse({ code: "TM_UNAUTHORIZED", message: "spent", status: 429 })),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const reply = hooks.pipeline.request(exchange);
    assert.ok(reply !== undefined && !(reply instanceof Promise));
    assert.deepEqual(
      [reply.status, reply.plugin, reply.refusal],
      [429, "budget", { code: "TM_UNAUTHORIZED", message: "spent" }],
    );
  });
});

describe("a verdict before an attempt", () => {
  it("names its plugin, and the attempt after it is asked of all again", () => {
    const seen: string[] = [];
    const hooks = pipelineOf([
      noting("a", seen),
      {
        name: "breaker",
        tap: ({ beforeUpstream }) =>
          beforeUpstream.tap((_, attempt) =>
            attempt.provider.name === "bad" ? { skip: "open" } : undefined,
          ),
      },
      noting("z", seen),
    ]);
    const { exchange } = exchangeOn(hooks);
    const verdict = hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange, "bad"));
    assert.deepEqual(verdict, { by: hooks.handles["breaker"], skip: "open" });
    assert.equal(hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange, "good")), undefined);
    assert.deepEqual(seen, ["a before 1", "a before 2", "z before 2"]);
  });

  it("may be an answer, which its own plugin does not see", async () => {
    const seen: string[] = [];
    const hooks = pipelineOf([
      noting("a", seen),
      {
        name: "late-cache",
        tap({ beforeUpstream, response }) {
          beforeUpstream.tap(() => ({ answer: { status: 200, body: "kept" } }));
          response.tap(() => void seen.push("its own"));
        },
      },
      noting("z", seen),
    ]);
    const { exchange } = exchangeOn(hooks);
    const verdict = await hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange));
    assert.ok(verdict !== undefined && "answer" in verdict);
    exchange.answeredBy = verdict.by;
    await hooks.pipeline.response(verdict.answer, exchange);
    assert.deepEqual(seen, ["a before 1", "z response", "a response"]);
    assert.equal((await read(verdict.answer)).text, "kept");
  });
});

describe("the response hook", () => {
  it("may replace the reply: those after it see the new one, and the old one is called off", async () => {
    const seen: unknown[] = [];
    const hooks = pipelineOf([
      {
        name: "a",
        tap: ({ response }) => response.tap((reply) => void seen.push([reply.status, reply.plugin])),
      },
      { name: "b", tap: ({ response }) => response.tap(() => ({ status: 418, body: "tea" })) },
    ]);
    const { exchange } = exchangeOn(hooks);
    const attempt = attemptOf(exchange);
    attempt.headCame(200, []);
    const sent = await hooks.pipeline.response(replyOf(exchange, attempt, "coffee"), exchange);
    assert.deepEqual(seen, [[418, "b"]]);
    assert.equal((await read(sent)).text, "tea");
    assert.deepEqual(attempt.result, { kind: "reply", status: 200, body: "aborted" });
  });

  it("may change head and body", async () => {
    const hooks = pipelineOf([
      {
        name: "a",
        tap: ({ response }) =>
          response.tap(async (reply) => {
            const body = await reply.read();
            reply.replaceBody(`${body}!`);
            reply.status = 201;
            reply.headers = [...reply.headers, "X-A", "é"];
          }),
      },
    ]);
    const { exchange } = exchangeOn(hooks);
    const sent = await hooks.pipeline.response(replyOf(exchange, attemptOf(exchange), "hey"), exchange);
    assert.equal(sent.status, 201);
    assert.deepEqual(sent.finalHeaders(), ["content-type", "text/plain", "content-length", "4", "X-A", "é"]);
    assert.equal((await read(sent)).text, "hey!");
  });

  it("transforms events after what was attached before, and takes framing off that no longer holds", async () => {
    const shout = (mark: string): TestPlugin => ({
      name: mark,
      tap: ({ response }) =>
        response.tap((reply) =>
          reply.mapEvents({ event: (event) => Buffer.from(`data: ${event.data}${mark}\n\n`) }),
        ),
    });
    const hooks = pipelineOf([shout("1"), shout("2")]);
    const { exchange } = exchangeOn(hooks);
    const headers = ["Content-Type", "text/event-stream", "X-Other", "1"];
    const reply = replyOf(exchange, attemptOf(exchange), "data: a\n\ndata: b\n\n", headers);
    const sent = await hooks.pipeline.response(reply, exchange);
    assert.deepEqual(sent.finalHeaders(), headers);
    assert.equal((await read(sent)).text, "data: a21\n\ndata: b21\n\n");
  });
});

describe("a hook without taps", () => {
  it("is compiled to nothing", () => {
    const empty = pipelineOf([{ name: "a", tap() {} }]).pipeline;
    const other = pipelineOf([]).pipeline;
    for (const hook of [
      "request",
      "beforeUpstream",
      "response",
      "started",
      "attemptEnded",
      "settled",
    ] as const)
      assert.equal(empty[hook], other[hook], hook);
    assert.equal(empty.request, empty.settled);
    const { exchange } = exchangeOn(pipelineOf([]));
    const reply = replyOf(exchange, attemptOf(exchange), "");
    assert.equal(empty.response(reply, exchange), reply);
  });

  it("of one kind leaves the others as they are", () => {
    const used = pipelineOf([{ name: "a", tap: ({ request }) => request.tap(() => {}) }]).pipeline;
    const empty = pipelineOf([]).pipeline;
    assert.notEqual(used.request, empty.request);
    assert.equal(used.response, empty.response);
    assert.ok(Object.isFrozen(used));
  });
});

describe("synchronous taps", () => {
  it("give their result in the same turn: no promise, no microtask", async () => {
    const hooks = pipelineOf([noting("a", []), noting("b", [])]);
    const { exchange } = exchangeOn(hooks);
    const attempt = attemptOf(exchange);
    const reply = replyOf(exchange, attempt, "");
    let microtasks = 0;
    void Promise.resolve().then(() => microtasks++);
    assert.equal(hooks.pipeline.request(exchange), undefined);
    assert.equal(hooks.pipeline.beforeUpstream(exchange, attempt), undefined);
    assert.equal(hooks.pipeline.response(reply, exchange), reply);
    assert.equal(hooks.pipeline.settled(exchange, outcome), undefined);
    assert.equal(microtasks, 0);
  });

  it("in a long row do not run out of stack", () => {
    const seen: string[] = [];
    const hooks = pipelineOf(Array.from({ length: 300 }, (_, index) => noting(`p${index}`, seen)));
    const { exchange } = exchangeOn(hooks);
    hooks.pipeline.request(exchange);
    assert.equal(seen.length, 300);
  });
});

describe("hook observers", () => {
  it("are told of each plugin's own taps, and of no tap that did not run", async () => {
    const told: string[] = [];
    const observer: HookObserver = {
      tapped(plugin, hook, exchange, durationMs) {
        assert.ok(durationMs >= 0 && exchange.id.length === 36);
        told.push(`${plugin} ${hook}`);
      },
    };
    const hooks = pipelineOf(
      [
        noting("a", []),
        {
          name: "b",
          tap({ request, response }) {
            request.tap(async () => ({ status: 200 }));
            response.tap(() => {});
          },
        },
        noting("c", []),
      ],
      [observer],
    );
    const { exchange } = exchangeOn(hooks);
    const reply = await hooks.pipeline.request(exchange);
    await hooks.pipeline.beforeUpstream(exchange, attemptOf(exchange));
    await hooks.pipeline.response(reply!, exchange);
    assert.deepEqual(told, ["a request", "b request", "a beforeUpstream", "c beforeUpstream", "a response"]);
  });
});

describe("candidates", () => {
  it("that a failed tap set are taken back", async () => {
    const before = [candidate("before")];
    for (const late of [false, true]) {
      const hooks = pipelineOf([
        {
          name: "router",
          tap: ({ request }) =>
            request.tap((ex) => {
              ex.candidates = [candidate("half")];
              ex.ruledOut = [{ provider: "x", reason: "y" }];
              if (late) return Promise.reject(new Error("later"));
              throw new Error("now");
            }),
        },
      ]);
      const { exchange } = exchangeOn(hooks);
      exchange.candidates = before;
      await hooks.pipeline.request(exchange);
      assert.equal(exchange.candidates, before);
      assert.deepEqual(exchange.ruledOut, []);
    }
  });
});
