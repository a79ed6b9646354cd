import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { KeepStore } from "../../kernel/generation/index.ts";

const never = new AbortController().signal;

describe("a kept resource", () => {
  it("is made once for all holders, and dropped by the last of them with its own drop", async () => {
    const store = new KeepStore();
    const dropped: string[] = [];
    let made = 0;
    const hold = (drop: string) =>
      store.hold(
        "db",
        () => ({ number: ++made }),
        () => void dropped.push(drop),
        never,
      );
    const [first, second] = await Promise.all([hold("first"), hold("second")]);
    const third = await hold("third");
    assert.equal(first.value, third.value);
    assert.equal(second.value, third.value);
    await first.release();
    await third.release();
    await third.release();
    assert.deepEqual(dropped, []);
    await second.release();
    assert.deepEqual(dropped, ["second"]);
    assert.equal(store.size, 0);
    const fourth = await hold("fourth");
    assert.equal(fourth.value.number, 2);
  });

  it("is made anew after it could not be made", async () => {
    const store = new KeepStore();
    await assert.rejects(
      store.hold("k", () => Promise.reject(new Error("busy")), undefined, never),
      /busy/,
    );
    assert.equal(store.size, 0);
    assert.equal((await store.hold("k", () => 1, undefined, never)).value, 1);
  });

  it("is made only after the one before it is dropped", async () => {
    const store = new KeepStore();
    const gate = Promise.withResolvers<void>();
    const events: string[] = [];
    const first = await store.hold(
      "k",
      () => "first",
      () => gate.promise.then(() => void events.push("dropped")),
      never,
    );
    const releasing = first.release();
    const second = store.hold("k", () => events.push("made"), undefined, never);
    gate.resolve();
    await Promise.all([releasing, second]);
    assert.deepEqual(events, ["dropped", "made"]);
  });

  it("whose making hangs does not hang those who come after it was abandoned, and is dropped when it comes", async () => {
    const store = new KeepStore();
    const gate = Promise.withResolvers<string>();
    const dropped: string[] = [];
    const abandoned = new AbortController();
    const hanging = store.hold(
      "k",
      () => gate.promise,
      (value) => void dropped.push(value),
      abandoned.signal,
    );
    abandoned.abort();
    const next = await store.hold("k", () => "new", undefined, never);
    assert.equal(next.value, "new");
    gate.resolve("late");
    // What the effect stack does with a value that comes after it was disposed of.
    await (await hanging).release();
    assert.deepEqual(dropped, ["late"]);
    assert.equal(store.size, 1);
  });
});
