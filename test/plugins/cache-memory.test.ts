import assert from "node:assert/strict";
import crypto from "node:crypto";
import { describe, it } from "node:test";
import { AnswerKey, type StoredReply } from "@tokenman/plugin-sdk";
import { MemoryTier } from "../../plugins/cache/memory.ts";

/** Few hashes, so that many keys share one. */
function keyOf(name: string, hashes = 2 ** 32): AnswerKey {
  const digest = crypto.createHash("sha256").update(name).digest();
  const words = new Int32Array(8);
  for (let index = 0; index < 8; index++) words[index] = digest.readInt32LE(4 * index);
  return new AnswerKey(words, true, Buffer.from(name), (digest.readUInt32BE(0) % hashes) | 0);
}
function stored(body: Buffer, more: Partial<StoredReply> = {}): StoredReply {
  return { headers: [], body, chunked: false, provider: "a", at: 0, tokens: 0, nanoUsd: undefined, ...more };
}
/** Numbers from a seed (mulberry32). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

describe("cache: memory", () => {
  it("gives what was put there, with all that belongs to it", () => {
    const tier = new MemoryTier(10_000_000);
    const whole = stored(Buffer.from("body"), {
      headers: ["X-One", "1", "x-empty", "", "x-latin", "caf\u00e9"],
      chunked: true,
      provider: "\u00fcber",
      at: 1_764_000_000_000.25,
      tokens: 160,
      nanoUsd: 123_456_789_012,
    });
    tier.put(keyOf("one"), "web", whole, false);
    assert.deepEqual(tier.get(keyOf("one")), whole);
    const none = stored(Buffer.alloc(0), { tokens: 2 ** 40 });
    tier.put(keyOf("two"), "web", none, false);
    assert.deepEqual(tier.get(keyOf("two")), { ...none, tokens: 2 ** 31 - 1 });
    assert.equal(tier.get(keyOf("three")), undefined);
    tier.put(keyOf("one"), "web", none, false);
    assert.deepEqual(tier.get(keyOf("one"))?.headers, [], "the new one is in the place of the old one");
    assert.equal(tier.count, 2);
  });

  it("does what a table of the same size does that forgets nothing, but for what it gives up", () => {
    for (const [seed, maxBytes, largest, hashes] of [
      [1, 100_000, 3_000, 2 ** 32],
      [2, 800_000, 90_000, 7],
      [3, 300_000, 200_000, 50],
      [4, 40_000_000, 5_000, 2 ** 32],
    ] as const) {
      const next = numbers(seed);
      const tier = new MemoryTier(maxBytes);
      const model = new Map<string, { body: Buffer; project: string; at: number }>();
      const given: { bytes: Buffer; copy: Buffer }[] = [];
      let evicted = 0;
      let recalled = 0;
      for (let turn = 0; turn < 6_000; turn++) {
        const name = `key${next(900)}`;
        const what = next(100);
        if (what < 55) {
          const body = Buffer.alloc(next(next(20) === 0 ? largest : 600), turn & 0xff);
          const project = `p${next(3)}`;
          tier.put(keyOf(name, hashes), project, stored(body, { at: turn, provider: name }), next(2) === 0);
          model.set(name, { body, project, at: turn });
        } else if (what < 90) {
          const key = keyOf(name, hashes);
          const found = tier.recall(key.words, key.needle) ?? tier.get(key, key.needle);
          const expected = model.get(name);
          if (found === undefined) {
            if (expected !== undefined) evicted++;
            model.delete(name);
          } else {
            assert.ok(found.body.equals(expected!.body), `seed ${seed}, turn ${turn}`);
            assert.deepEqual([found.provider, found.at], [name, expected!.at]);
            given.push({ bytes: found.body, copy: Buffer.from(found.body) });
            // One may have pushed another out of its place.
            const again = tier.recall(key.words, key.needle);
            if (again !== undefined) recalled++;
            assert.ok(
              again === undefined || again.body.equals(found.body),
              `seed ${seed}, turn ${turn} again`,
            );
          }
        } else if (what < 97) {
          tier.delete(keyOf(name, hashes));
          model.delete(name);
        } else if (what === 97) {
          const project = `p${next(3)}`;
          tier.purge(project);
          for (const [each, entry] of model) if (entry.project === project) model.delete(each);
        } else if (what === 98) {
          tier.deleteOlder(turn - 2_000);
          for (const [each, entry] of model) if (entry.at < turn - 2_000) model.delete(each);
        } else tier.resize(next(2) === 0 ? maxBytes : Math.floor(maxBytes / 2));
        assert.ok(tier.bytes <= maxBytes && tier.bytes >= 0);
      }
      assert.ok(tier.evicted >= evicted);
      assert.ok(recalled > 0, `seed ${seed} recalled none`);
      assert.ok(maxBytes > 10_000_000 === (evicted === 0), `seed ${seed} gave up ${evicted}`);
      const left = [...model.keys()].filter((name) => tier.get(keyOf(name, hashes)) !== undefined);
      assert.equal(tier.count, left.length);
      for (const { bytes, copy } of given) assert.ok(bytes.equals(copy), "what was given stays as it was");
      tier.purge(undefined);
      assert.deepEqual([tier.bytes, tier.count], [0, 0]);
    }
  });

  it("recalls what it gave to the same request, and nothing to another one", () => {
    const tier = new MemoryTier(1_000_000);
    const key = keyOf("one");
    const asked = Buffer.from(`{"text":"${"x".repeat(10_000)}"}`);
    tier.put(key, "p", stored(Buffer.from("first")), false);
    assert.equal(tier.recall(key.words, asked), undefined, "it was not given yet");
    assert.equal(String(tier.get(key, Buffer.from(asked))?.body), "first");
    assert.equal(String(tier.recall(key.words, asked)?.body), "first");
    assert.equal(String(tier.recall(Int32Array.from(key.words), asked)?.body), "first");
    assert.equal(tier.recall(keyOf("two").words, asked), undefined, "of another client");
    for (let at = 0; at < asked.length; at += 97) {
      const other = Buffer.from(asked);
      other[at]! ^= 1;
      assert.equal(tier.recall(key.words, other), undefined, `another byte ${at}`);
    }
    assert.equal(tier.recall(key.words, asked.subarray(1)), undefined);
    tier.put(key, "p", stored(Buffer.from("second")), false);
    assert.equal(tier.recall(key.words, asked), undefined, "what it gave is replaced");
    assert.equal(String(tier.get(key, asked)?.body), "second");
    tier.purge("p");
    assert.equal(tier.recall(key.words, asked), undefined, "and purged");
  });

  it("remembers no more bodies than a few megabytes of them", () => {
    const tier = new MemoryTier(1_000_000);
    const recalls = (asked: readonly [AnswerKey, Buffer][]): number =>
      asked.filter(([{ words }, body]) => tier.recall(words, body) !== undefined).length;
    const askAll = (count: number, bytes: number): [AnswerKey, Buffer][] =>
      Array.from({ length: count }, (_, index) => {
        const key = keyOf(`${bytes} ${index}`);
        const body = Buffer.alloc(bytes, index);
        tier.put(key, "p", stored(Buffer.from("reply")), false);
        tier.get(key, body);
        return [key, body];
      });
    assert.equal(recalls(askAll(1, 2 * 1024 * 1024)), 1);
    assert.equal(recalls(askAll(1, 2 * 1024 * 1024 + 1)), 0);
    const many = recalls(askAll(30, 1024 * 1024));
    assert.ok(many > 0 && many <= 8, `${many} of a megabyte each`);
  });

  it("what is asked for stays, and what is not makes room", () => {
    const tier = new MemoryTier(1_000_000);
    const body = Buffer.alloc(1_000, 1);
    tier.put(keyOf("small"), "p", stored(body), false);
    tier.put(keyOf("large"), "p", stored(Buffer.alloc(100_000, 2)), false);
    for (let turn = 0; turn < 20_000; turn++) {
      tier.put(keyOf(`other ${turn}`), "p", stored(body), false);
      assert.equal(tier.get(keyOf("small"))?.body[0], 1, `turn ${turn}`);
      assert.equal(tier.get(keyOf("large"))?.body[0], 2, `turn ${turn}`);
    }
    assert.equal(tier.get(keyOf("other 100")), undefined);
    assert.notEqual(tier.get(keyOf("other 19999")), undefined);
    assert.ok(tier.count > 600, "and what is held is mostly in use");
  });

  it("takes nothing larger than itself, and nothing at all where it has no room", () => {
    const tier = new MemoryTier(100_000);
    tier.put(keyOf("huge"), "p", stored(Buffer.alloc(200_000)), false);
    assert.equal(tier.get(keyOf("huge")), undefined);
    tier.put(keyOf("fits"), "p", stored(Buffer.alloc(90_000)), false);
    assert.equal(tier.get(keyOf("fits"))?.body.length, 90_000);
    tier.resize(0);
    assert.deepEqual([tier.bytes, tier.count, tier.get(keyOf("fits"))], [0, 0, undefined]);
    tier.put(keyOf("none"), "p", stored(Buffer.alloc(0)), false);
    assert.equal(tier.get(keyOf("none")), undefined);
  });

  it("holds many more small replies than a table of a few thousand", () => {
    const tier = new MemoryTier(64 * 1024 * 1024);
    for (let turn = 0; turn < 50_000; turn++)
      tier.put(keyOf(`key ${turn}`), "p", stored(Buffer.alloc(600)), false);
    assert.equal(tier.count, 50_000);
    assert.equal(tier.evicted, 0);
  });

  it("tells what is not on disk yet, the newest first, and each once", () => {
    const tier = new MemoryTier(10_000_000);
    for (let turn = 0; turn < 10; turn++)
      tier.put(keyOf(`key ${turn}`), "p", stored(Buffer.from(String(turn))), turn === 5);
    const bodies = (rows: number): string[] =>
      tier.unwritten(rows, 1_000, 1_000_000).map(({ stored: { body } }) => String(body));
    assert.deepEqual(bodies(3), ["9", "8", "7"]);
    const ids = tier.unwritten(1, 1_000, 1_000_000).map(({ id, hash }) => [id, hash]);
    const { id, hash } = keyOf("key 6");
    assert.deepEqual(ids, [[id, hash]]);
    assert.deepEqual(bodies(100), ["4", "3", "2", "1", "0"], "the one that came from there is there");
    assert.deepEqual(bodies(100), []);
    tier.notWritten([hash]);
    assert.deepEqual(bodies(100), ["6"]);
  });
});
