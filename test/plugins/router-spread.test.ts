import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import {
  type Attempt,
  type Candidate,
  type Exchange,
  headerValue,
  type Provider,
  type Reply,
} from "@tokenman/plugin-sdk";
import { faults, textScript } from "@tokenman/plugin-sdk/testkit";
import { Affinity } from "../../plugins/router/affinity.ts";
import { spread } from "../../plugins/router/spread.ts";
import { Ways } from "../../plugins/router/way.ts";
import { fakeExchange } from "../support/fake-setup.ts";
import { provider, type Routed, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };
const retries = "[resilience]\nretry_base_delay_ms = 1\nretry_max_delay_ms = 1\n";
const local = (name: string, url: string | undefined, more: object = {}) =>
  provider(name, { format: "openai", api_base: url, auth: "none", ...more });
const off = provider("openai", { enabled: false });

const ask = (it: Routed, session: string, model = "m") =>
  it.post("/v1/chat/completions", { model, messages: [{ role: "user", content: "hi" }] }, [
    "X-Session-Id",
    session,
  ]);
/** The provider that answers the session's next request. */
async function placeOf(it: Routed, session: string, model?: string): Promise<string | undefined> {
  const { status, headers } = await ask(it, session, model);
  assert.equal(status, 200);
  return headerValue(headers, "x-tokenman-provider");
}

describe("router: weights", () => {
  const shares = [
    { name: "a", weight: 5 },
    { name: "b", weight: 3 },
    { name: "c", weight: 2 },
  ];

  it("give each provider its part of the conversations", () => {
    const counts = new Map<string, number>();
    const rounds = 20_000;
    for (let round = 0; round < rounds; round++) {
      const [first] = spread(shares, `conversation ${round}`);
      counts.set(first!.name, (counts.get(first!.name) ?? 0) + 1);
    }
    for (const { name, weight } of shares)
      assert.ok(Math.abs(counts.get(name)! / rounds - weight / 10) < 0.015, `${name}: ${counts.get(name)}`);
  });

  it("give a conversation the same order always, and move only those that a new one takes", () => {
    const more = [...shares, { name: "d", weight: 2 }];
    for (let round = 0; round < 2_000; round++) {
      const order = spread(shares, `${round}`).map(({ name }) => name);
      assert.deepEqual(
        spread(shares.toReversed(), `${round}`).map(({ name }) => name),
        order,
      );
      assert.deepEqual(
        spread(more, `${round}`).flatMap(({ name }) => (name === "d" ? [] : [name])),
        order,
      );
    }
  });

  it("keep each conversation where it is, and those without a weight behind", limits, async () => {
    await using it = await startRouted(4, ([a, b, c, d]) =>
      [
        off,
        local("plain", a),
        local("light", b, { weight: 1 }),
        local("heavy", c, { weight: 3 }),
        local("later", d, { weight: 100, priority: 1 }),
      ].join(""),
    );
    const places = new Map<string, string | undefined>();
    for (let session = 0; session < 40; session++)
      places.set(`s${session}`, await placeOf(it, `s${session}`));
    for (const [session, place] of places) assert.equal(await placeOf(it, session), place);
    const [plain, light, heavy, later] = it.counts();
    assert.deepEqual([plain, later], [0, 0]);
    assert.ok(light! >= 4 && heavy! > light!, `${light} and ${heavy}`);
  });

  it("are kept to when one fails: the others of the group follow, then those behind", limits, async () => {
    await using it = await startRouted(3, ([a, b, c]) =>
      [off, retries, local("x", a, { weight: 1 }), local("y", b, { weight: 1 }), local("z", c)].join(""),
    );
    const first = await placeOf(it, "s");
    it.upstreams[first === "x" ? 0 : 1]!.script(faults.status(503));
    assert.equal(await placeOf(it, "s"), first === "x" ? "y" : "x");
    it.upstreams[first === "x" ? 1 : 0]!.script(faults.status(503));
    assert.equal(await placeOf(it, "s"), "z");
  });
});

describe("router: a conversation", () => {
  const two = (more = "") =>
    startRouted(2, ([a, b]) => [more, off, retries, local("first", a), local("second", b)].join(""));

  it("stays with the provider that took it over, and no other one moves", limits, async () => {
    await using it = await two();
    assert.equal(await placeOf(it, "one"), "first");
    it.upstreams[0]!.next(faults.status(529));
    assert.equal(await placeOf(it, "one"), "second");
    assert.equal(await placeOf(it, "one"), "second", "although the first is well again");
    assert.equal(await placeOf(it, "two"), "first");
    assert.equal(await placeOf(it, "one", "another-model"), "first", "a prompt cache is one model's");
  });

  it("moves on when that one fails in its turn, and stays there", limits, async () => {
    await using it = await two();
    it.upstreams[0]!.next(faults.reset());
    assert.equal(await placeOf(it, "one"), "second");
    it.upstreams[1]!.next(faults.status(503));
    assert.equal(await placeOf(it, "one"), "first");
    assert.equal(await placeOf(it, "one"), "first");
    it.upstreams[0]!.script(faults.status(503));
    assert.equal(await placeOf(it, "one"), "second");
  });

  it("stays over a reload, and is free where its provider went", limits, async () => {
    await using it = await two();
    it.upstreams[0]!.next(faults.status(529));
    await placeOf(it, "one");
    assert.equal((await it.tokenman.reload("the test")).error, undefined);
    assert.equal(await placeOf(it, "one"), "second");
    const { configFile } = it.tokenman;
    writeFileSync(
      configFile,
      readFileSync(configFile, "utf8").replace("[providers.second]", "$&\nenabled = false"),
    );
    assert.equal((await it.tokenman.reload("the test")).error, undefined);
    assert.equal(await placeOf(it, "one"), "first");
  });

  it("is told by its beginning where the client does not name it", limits, async () => {
    await using it = await two();
    const turn = async (texts: readonly string[]) => {
      const roles = ["user", "assistant"];
      const messages = texts.map((content, index) => ({ role: roles[index % 2], content }));
      const { headers } = await it.post("/v1/chat/completions", { model: "m", messages });
      return headerValue(headers, "x-tokenman-provider");
    };
    it.upstreams[0]!.next(faults.status(529));
    assert.equal(await turn(["hello"]), "second");
    assert.equal(await turn(["hello", "hi", "go on"]), "second");
    assert.equal(await turn(["something else"]), "first");
  });

  it("moves away from a provider that the breaker leaves alone, and stays away", limits, async () => {
    await using it = await startRouted(
      2,
      ([a, b]) =>
        [
          "[resilience]\ncb_failure_threshold = 1\nretry_base_delay_ms = 1\n",
          off,
          local("first", a),
          local("second", b),
        ].join(""),
      "retry,breaker",
    );
    it.upstreams[0]!.script(faults.status(500));
    assert.equal(await placeOf(it, "one"), "second");
    assert.equal(await placeOf(it, "two"), "second", "skipped");
    it.upstreams[0]!.script(textScript());
    assert.equal(await placeOf(it, "one"), "second");
    assert.equal(it.counts()[0], 1);
  });

  it("stays with the key that took it over", limits, async () => {
    process.env["ROUTER_SPREAD_ONE"] = "sk-one";
    process.env["ROUTER_SPREAD_TWO"] = "sk-two";
    await using it = await startRouted(1, ([url]) =>
      [
        off,
        retries,
        local("many", url, { auth: "key", key_ref: ["env:ROUTER_SPREAD_ONE", "env:ROUTER_SPREAD_TWO"] }),
      ].join(""),
    );
    const keyOf = async (session: string) => {
      await ask(it, session);
      return it.upstreams[0]!.last().header("authorization");
    };
    // 403 is about the model, say: the key does not cool down, and the conversation has moved all the same.
    it.upstreams[0]!.next(faults.status(403));
    assert.equal(await keyOf("one"), "Bearer sk-two");
    assert.equal(await keyOf("one"), "Bearer sk-two");
    assert.equal(await keyOf("two"), "Bearer sk-one");
  });

  it("does not stay where the config says so", limits, async () => {
    await using it = await two("[routing]\naffinity_seconds = 0\n");
    it.upstreams[0]!.next(faults.status(529));
    assert.equal(await placeOf(it, "one"), "second");
    assert.equal(await placeOf(it, "one"), "first");
  });

  it("is not moved by an error that is its own", limits, async () => {
    await using it = await two();
    it.upstreams[0]!.next(faults.status(400));
    assert.equal((await ask(it, "one")).status, 400);
    assert.deepEqual(it.counts(), [1, 0]);
    assert.equal(await placeOf(it, "one"), "first");
  });
});

describe("router: whether a conversation moves", () => {
  const candidate = (name: string) => ({ provider: { name } as Provider }) as Candidate;
  const [a, b] = [candidate("a"), candidate("b")];
  /** Where the next request goes, after the first of the two ended like that and the second one served. */
  const after = (first: Partial<Attempt>, status = 200): string => {
    const affinity = new Affinity(() => 0);
    const ways = new Ways(affinity, 1_000);
    const next = () => {
      const slots = new Map<unknown, unknown>();
      const exchange = fakeExchange({
        project: "p",
        session: "s",
        get: (slot) => slots.get(slot) as never,
        set: (slot, value) => void slots.set(slot, value),
      }) as Exchange & { attempts: readonly Attempt[] };
      exchange.candidates = ways.order(exchange, [a, b]);
      return exchange;
    };
    const exchange = next();
    const attempt = { candidate: b } as Attempt;
    exchange.attempts = [{ candidate: a, ...first } as Attempt, attempt];
    ways.served({ attempt, status } as Reply, exchange);
    return next().candidates[0]!.provider.name;
  };

  it("depends on whether the first one failed it, or was only overtaken by a second one beside it", () => {
    assert.equal(after({ result: { kind: "skipped", by: "breaker", reason: "open" } }), "b");
    assert.equal(after({ status: 529, result: { kind: "reply", status: 529, body: "aborted" } }), "b");
    assert.equal(after({ status: 429 }), "b");
    const error = { kind: "error", code: "TM_UPSTREAM_RESET", message: "", bytesSent: true } as const;
    assert.equal(after({ result: error }), "b");
    const streamError = {
      kind: "error",
      type: "overloaded_error",
      status: 529,
      retryable: true,
      message: "",
    } as const;
    assert.equal(after({ status: 200, streamError }), "b");
    assert.equal(after({ result: { kind: "cancelled" } }), "a");
    assert.equal(after({ status: 200, result: { kind: "reply", status: 200, body: "aborted" } }), "a");
    assert.equal(after({ result: error }, 400), "a", "nobody has served it");
  });
});

describe("router: what is remembered of conversations", () => {
  const place = (name: string, account?: string) =>
    ({
      provider: { name } as Provider,
      reason: "",
      credential: { kind: "none" },
      ...(account && { account }),
    }) as Candidate;

  it("ends a while after the last request", () => {
    let now = 0;
    const affinity = new Affinity(() => now);
    affinity.stay("c", place("a"), 1_000);
    now = 999;
    assert.equal(affinity.find("c", [place("b"), place("a")]), 1);
    affinity.stay("c", place("a"), 1_000);
    now = 1_998;
    assert.equal(affinity.find("c", [place("a")]), 0);
    now = 1_999;
    assert.equal(affinity.find("c", [place("a")]), -1);
    assert.ok(affinity.isEmpty);
  });

  it("is one key's, and nothing where that one is gone", () => {
    const affinity = new Affinity(() => 0);
    affinity.stay("c", place("a", "a#2"), 1);
    assert.equal(affinity.find("c", [place("a", "a#1"), place("a", "a#2")]), 1);
    assert.equal(affinity.find("c", [place("a"), place("b")]), -1);
    assert.equal(affinity.find("other", [place("a", "a#2")]), -1);
    affinity.forget("c");
    assert.ok(affinity.isEmpty);
  });

  it("is bounded: the ones that rested longest go, and long names take no more room", () => {
    const affinity = new Affinity(() => 0);
    const long = "x".repeat(100_000);
    affinity.stay(long, place("a"), 1);
    affinity.stay("early", place("a"), 1);
    for (let index = 0; index < 9_998; index++) affinity.stay(`${index}`, place("a"), 1);
    affinity.stay(long, place("a"), 1);
    affinity.stay("one more", place("a"), 1);
    assert.equal(affinity.find(long, [place("a")]), 0);
    assert.equal(affinity.find("early", [place("a")]), -1);
    assert.equal(affinity.find("0", [place("a")]), 0);
  });
});
