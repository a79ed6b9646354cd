import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Format, slot } from "@tokenman/plugin-sdk";
import { ExchangeState } from "../../kernel/exchange.ts";
import { exchangeOn, outcome, pipelineOf } from "./support/exchanges.ts";

const formatOf = (more: Partial<Format>): Format => ({
  name: "test",
  defaultBase: "http://127.0.0.1",
  hosts: [],
  credentialHeaders: ["authorization"],
  credential: () => undefined,
  sessionId: () => undefined,
  isSubscription: () => false,
  authorize: () => [],
  claims: () => false,
  errorReply: ({ status, message }) => ({ status, body: message }),
  ...more,
});
function withFormat(base: ExchangeState, format: Format): ExchangeState {
  const { project, request, dialect, home } = base;
  return new ExchangeState({ project, request, dialect, format, home });
}

describe("an exchange", () => {
  it("is settled once, and gives its generation back once, after the observers are done", async () => {
    const gate = Promise.withResolvers<void>();
    const settled: string[] = [];
    const hooks = pipelineOf([
      {
        name: "slow",
        tap: ({ lifecycle }) =>
          lifecycle.for("settled").tap(async (_, { kind }) => {
            await gate.promise;
            settled.push(kind);
          }),
      },
      {
        name: "broken",
        tap: ({ lifecycle }) =>
          lifecycle.for("settled").tap((_, told) => {
            // What plugins are given is not theirs to change.
            (told as { kind: string }).kind = "changed";
          }),
      },
      {
        name: "last",
        tap: ({ lifecycle }) => lifecycle.for("settled").tap((_, { kind }) => void settled.push(kind)),
      },
    ]);
    const { exchange, released } = exchangeOn(hooks);
    const first = exchange.settle({ ...outcome });
    await exchange.settle({ ...outcome, kind: "failed" });
    assert.equal(released(), 0);
    assert.equal(exchange.signal.aborted, true);
    gate.resolve();
    await first;
    assert.deepEqual([settled, released()], [["answered", "answered"], 1]);
    assert.equal(hooks.handles["broken"]!.failures, 1);
  });

  it("is wanted as long as the client is there, or a plugin holds on to it", () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    const release = exchange.retain();
    const other = exchange.retain();
    exchange.clientLeft();
    assert.equal(exchange.signal.aborted, false);
    release();
    release();
    assert.equal(exchange.signal.aborted, false, "a hold that is let go twice is one hold");
    other();
    assert.equal(exchange.signal.aborted, true);

    const alone = exchangeOn(pipelineOf([])).exchange;
    alone.retain()();
    assert.equal(alone.signal.aborted, false);
    alone.clientLeft();
    assert.equal(alone.signal.aborted, true);
  });

  it("passes on what is waited for, well or badly", async () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    assert.equal(await exchange.wait(Promise.resolve(7)), 7);
    await assert.rejects(exchange.wait(Promise.reject(new Error("bad"))), /bad/);
  });

  it("keeps each plugin's notes apart", () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    const [mine, yours] = [slot<number>("n"), slot<number>("n")];
    exchange.set(mine, 1);
    assert.deepEqual([exchange.get(mine), exchange.get(yours)], [1, undefined]);
  });

  it("reads its body without changing it, and finds nothing where there is nothing", () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    assert.deepEqual(exchange.read("/texts/1"), "two");
    assert.equal(exchange.read("/none"), undefined);
    assert.equal(exchange.read("no pointer"), undefined);
    assert.equal(exchange.edited, false);
    const broken = exchangeOn(pipelineOf([]), "{").exchange;
    assert.equal(broken.read("/a"), undefined);
  });

  it("tells credentials apart by a hash that is none of theirs", () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    const hashOf = (secret: string) =>
      withFormat(exchange, formatOf({ credential: () => ({ kind: "key", header: "authorization", secret }) }))
        .credentialHash;
    assert.equal(hashOf("sk-1"), hashOf("sk-1"));
    assert.notEqual(hashOf("sk-1"), hashOf("sk-2"));
    assert.doesNotMatch(hashOf("sk-1"), /sk/);
    assert.equal(exchange.credentialHash, "");
  });

  it("of a client without session ids has a session all the same: the same for the same beginning", () => {
    const session = (body: string) => exchangeOn(pipelineOf([]), body).exchange.session;
    assert.equal(session('{"texts": ["a", "b"]}'), session('{"texts": ["a", "c"]}'));
    assert.notEqual(session('{"texts": ["a"]}'), session('{"texts": ["b"]}'));
    const own = withFormat(exchangeOn(pipelineOf([])).exchange, formatOf({ sessionId: () => "mine" }));
    assert.equal(own.session, "mine");
  });

  it("refuses in its format's shape, and in a plain one where the format fails", () => {
    const { exchange } = exchangeOn(pipelineOf([]));
    const error = { code: "TM_UNAUTHORIZED", message: "no" } as const;
    assert.deepEqual({ ...withFormat(exchange, formatOf({})).refuse(error) }.body, "no");
    const failing = formatOf({
      errorReply() {
        throw new Error("a bug of the format");
      },
    });
    const { status, body } = withFormat(exchange, failing).refuse({ ...error, details: { limit: 1 } });
    assert.deepEqual([status, JSON.parse(String(body))], [401, { error: { ...error, limit: 1 } }]);
  });
});
