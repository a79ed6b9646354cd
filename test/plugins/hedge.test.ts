import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type {
  Attempt,
  AttemptResult,
  AttemptView,
  Candidate,
  Exchange,
  RequestDescription,
  Slot,
} from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { Hedger, mayBeHedged, Rules } from "../../plugins/hedge/hedger.ts";
import { Latencies } from "../../plugins/hedge/latencies.ts";
import { hedgeSchema } from "../../plugins/hedge/schema.ts";
import { Share } from "../../plugins/hedge/share.ts";

const DESCRIPTION: RequestDescription = {
  model: "m",
  modelPointer: "/model",
  stream: true,
  maxOutputTokens: undefined,
  tools: "none",
};

function exchangeOf(parts: Partial<Exchange> = {}): Exchange {
  const values = new Map<symbol, unknown>();
  return {
    dialect: { generates: true },
    description: DESCRIPTION,
    request: { rawBody: Buffer.from("{}") },
    set: <T>(slot: Slot<T>, value: T) => void values.set(slot.key, value),
    get: <T>(slot: Slot<T>) => values.get(slot.key) as T | undefined,
    ...parts,
  } as unknown as Exchange;
}

/** A hedger under a clock, and one exchange's attempts. */
function world(config: Readonly<Record<string, number>> = {}, latencies = new Latencies()) {
  const counts = { begun: 0, won: 0 };
  const it = { now: 1_000, counts, latencies };
  const share = new Share();
  const hedger = new Hedger({ latencies, share, counts, now: () => it.now });
  const candidates = ["a", "b", "c"].map((name) => ({ provider: { name } }) as Candidate);
  const exchange = exchangeOf();
  exchange.set(Rules, hedgeSchema.parse({ enabled: true, ...config }));
  const attempts: { -readonly [K in keyof Attempt]?: Attempt[K] }[] = [];
  const begin = (index: number) => {
    const candidate = candidates[index]!;
    const attempt = { number: attempts.length + 1, candidate, provider: candidate.provider };
    attempts.push(attempt);
    return attempt;
  };
  const next = () => {
    const all = attempts as Attempt[];
    const decision = hedger.next({
      exchange,
      attempts: all,
      live: all.filter(({ result }) => result === undefined),
      untried: candidates.filter((candidate) => !all.some((each) => each.candidate === candidate)),
      elapsedMs: 0,
    } as AttemptView);
    if (decision?.kind === "try") return decision.candidate.provider.name;
    return decision?.kind === "wait" ? decision.forMs : decision;
  };
  const end = (attempt: object, result: AttemptResult, more: object = {}) => {
    Object.assign(attempt, { result, ...more });
    hedger.attemptEnd(exchange, attempt as Attempt);
  };
  return Object.assign(it, { share, exchange, begin, next, end });
}
const SKIPPED: AttemptResult = { kind: "skipped", by: "x", reason: "y" };
const FAILED: AttemptResult = { kind: "error", code: "TM_UPSTREAM_RESET", message: "", bytesSent: true };
const ANSWERED: AttemptResult = { kind: "reply", status: 200, body: "complete" };

describe("a second attempt", () => {
  it("is begun with another provider when the first has been silent for long enough", () => {
    const it = world({ initial_delay_ms: 300, min_delay_ms: 0 });
    it.begin(0);
    assert.equal(it.next(), 300);
    it.now += 299;
    assert.equal(it.next(), 1, "a timer that was early");
    it.now += 1;
    assert.equal(it.next(), "b");
    assert.equal(it.counts.begun, 1);
  });

  it("is the only one, whatever becomes of the two", () => {
    const it = world({ initial_delay_ms: 0, min_delay_ms: 0 });
    const first = it.begin(0);
    assert.equal(it.next(), "b");
    const second = it.begin(1);
    assert.equal(it.next(), undefined, "both are under way");
    it.end(second, FAILED);
    assert.equal(it.next(), undefined);
    it.end(first, FAILED);
    it.share.earn(9);
    it.begin(2);
    assert.equal(it.next(), undefined);
    assert.equal(it.counts.begun, 1);
  });

  it("goes to the next candidate where one is skipped, and is paid for once", () => {
    const it = world({ initial_delay_ms: 0, min_delay_ms: 0 });
    it.begin(0);
    assert.equal(it.next(), "b");
    it.end(it.begin(1), SKIPPED);
    assert.equal(it.next(), "c");
    it.end(it.begin(2), SKIPPED);
    assert.equal(it.next(), undefined);
    assert.equal(it.counts.begun, 1);
  });

  it("is not begun beyond its share of the traffic", () => {
    const share = new Share();
    assert.deepEqual([share.take(), share.take()], [true, false], "one to begin with");
    for (let request = 0; request < 1_000; request++) share.earn(0.05);
    let taken = 0;
    while (share.take()) taken++;
    assert.equal(taken, 10, "no more are saved up");
    const it = world({ initial_delay_ms: 0, min_delay_ms: 0 });
    it.share.take();
    it.begin(0);
    assert.equal(it.next(), undefined);
  });

  it("waits for the time that is learned, but never less than the least", () => {
    const latencies = new Latencies();
    const it = world({ min_delay_ms: 50 }, latencies);
    for (let sample = 1; sample <= 20; sample++) {
      const other = world({}, latencies);
      other.end(other.begin(0), ANSWERED, { status: 200, headMs: 1, firstByteMs: sample * 10 });
    }
    it.begin(0);
    assert.equal(it.next(), 190, "the 95th of 100, and not the head's time");
    const fast = world({ min_delay_ms: 500 }, latencies);
    fast.begin(0);
    assert.equal(fast.next(), 500);
    const other = world({}, latencies);
    other.begin(1);
    assert.equal(other.next(), 10_000, "nothing is known of that one");
  });

  it("counts what it overtook with the time that was waited", () => {
    const it = world({ initial_delay_ms: 70, min_delay_ms: 0 });
    const first = it.begin(0);
    it.next();
    it.now += 70;
    it.next();
    const second = it.begin(1);
    it.now += 30;
    it.end(first, { kind: "cancelled" });
    it.end(second, ANSWERED, { status: 200, headMs: 30 });
    assert.equal(it.counts.won, 1);
    for (let sample = 0; sample < 19; sample++) it.latencies.add("a\nm\ntrue", 1);
    assert.equal(it.latencies.p95("a\nm\ntrue"), 1);
    for (let sample = 0; sample < 1; sample++) it.latencies.add("a\nm\ntrue", 100);
    assert.equal(it.latencies.p95("a\nm\ntrue"), 100, "two of 21 took 100 ms or longer");
  });

  it("is not said to have won by a head alone", () => {
    const it = world({ initial_delay_ms: 0, min_delay_ms: 0 });
    const first = it.begin(0);
    it.next();
    const second = it.begin(1);
    it.end(second, { ...ANSWERED, body: "aborted" }, { status: 200, headMs: 5 });
    it.end(first, ANSWERED, { status: 200, headMs: 6, firstByteMs: 7 });
    assert.equal(it.counts.won, 0);
  });

  it("learns nothing of failures, and of what nobody hedges", () => {
    const it = world();
    const first = it.begin(0);
    it.end(first, { ...ANSWERED, status: 529 }, { status: 529, headMs: 1 });
    it.end(it.begin(1), FAILED);
    it.end(it.begin(2), { kind: "cancelled" });
    for (const name of ["a", "b", "c"]) {
      for (let sample = 0; sample < 19; sample++) it.latencies.add(`${name}\nm\ntrue`, 1);
      assert.equal(it.latencies.p95(`${name}\nm\ntrue`), undefined);
    }
  });

  it("is for what generates, is at hand, and has no tools that the provider runs", () => {
    const may = (description: RequestDescription | undefined, parts: object = {}) =>
      mayBeHedged(exchangeOf({ description, ...parts } as Partial<Exchange>));
    assert.equal(may(DESCRIPTION), true);
    assert.equal(may({ ...DESCRIPTION, tools: "client" }), true);
    assert.equal(may({ ...DESCRIPTION, tools: "server" }), false);
    assert.equal(may(undefined), false);
    assert.equal(may(DESCRIPTION, { dialect: undefined }), false);
    assert.equal(may(DESCRIPTION, { request: { rawBody: undefined } }), false);
  });
});

describe("the time that nearly all stay within", () => {
  it("is what its model says, of the last hundred", () => {
    const random = new Random(5);
    const latencies = new Latencies();
    const model: number[] = [];
    for (let sample = 0; sample < 400; sample++) {
      const ms = random.below(random.chance(0.1) ? 60_000 : 800);
      latencies.add("k", ms);
      model.push(ms);
      const recent = model.slice(-100).sort((left, right) => left - right);
      const expected = recent.length < 20 ? undefined : recent[Math.ceil(recent.length * 0.95) - 1];
      assert.equal(latencies.p95("k"), expected);
    }
  });

  it("is remembered of so many models only", () => {
    const latencies = new Latencies();
    for (let key = 0; key <= 500; key++)
      for (let sample = 0; sample < 20; sample++) latencies.add(`k${key}`, key);
    assert.deepEqual([latencies.p95("k0"), latencies.p95("k1")], [undefined, 1]);
  });
});
