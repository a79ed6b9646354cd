import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Attempt, Exchange, Provider } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { Circuit, type CircuitRules, type Ticket, type Verdict } from "../../plugins/breaker/circuit.ts";
import { ProviderCircuits, type Tell } from "../../plugins/breaker/circuits.ts";
import type { Judgement } from "../../plugins/breaker/judge.ts";
import { SlidingWindow } from "../../plugins/breaker/window.ts";

/** The same rules, told as plainly as can be: a list of what happened, read anew at each question. */
class Model {
  state: "closed" | "open" | "half-open" = "closed";
  openedAt = 0;
  period = 0;
  probing: Ticket | undefined;
  /** Since the circuit was last closed. */
  calls: { readonly at: number; readonly failed: boolean }[] = [];
  probed = 0;
  readonly rules: CircuitRules;
  readonly windowMs: number;

  constructor(rules: CircuitRules, windowMs: number) {
    this.rules = rules;
    this.windowMs = windowMs;
  }
  admits(now: number): "free" | "probe" | "no" {
    if (this.state === "closed") return "free";
    if (this.state === "open") {
      if (now < this.openedAt + this.rules.resetMs) return "no";
      this.become("half-open");
    }
    return this.probing === undefined ? "probe" : "no";
  }
  ends(ticket: Ticket, period: number, verdict: Verdict, now: number): void {
    if (this.probing === ticket) this.probing = undefined;
    if (period !== this.period || verdict === "neither") return;
    const failed = verdict === "failure";
    this.calls.push({ at: now, failed });
    if (this.state === "half-open") {
      if (failed) this.open(now);
      else if (++this.probed >= this.rules.probes) this.become("closed");
      return;
    }
    const row = this.calls.length - 1 - this.calls.findLastIndex((call) => !call.failed);
    const tenth = this.windowMs / 10;
    const recent = this.calls.filter(({ at }) => Math.floor(at / tenth) > Math.floor(now / tenth) - 10);
    const share = recent.filter((call) => call.failed).length / recent.length;
    const { threshold, errorRate, minCalls } = this.rules;
    if (!failed) return;
    if (row >= threshold || (errorRate > 0 && recent.length >= minCalls && share >= errorRate))
      this.open(now);
  }
  open(now: number): void {
    this.openedAt = now;
    this.become("open");
  }
  become(state: Model["state"]): void {
    this.state = state;
    this.period++;
    this.probing = undefined;
    this.probed = 0;
    if (state === "closed") this.calls = [];
  }
}

describe("a circuit", () => {
  for (const seed of [1, 2, 3, 4, Math.floor(Math.random() * 2 ** 31)]) {
    it(`does what its model does: seed ${seed}`, () => {
      const random = new Random(seed);
      for (let run = 0; run < 60; run++) {
        const rules: CircuitRules = {
          threshold: 1 + random.below(6),
          errorRate: random.pick([0, 0.3, 0.5, 1]),
          minCalls: 1 + random.below(12),
          resetMs: random.below(3_000),
          probes: 1 + random.below(3),
        };
        const windowMs = 100 + random.below(5_000);
        const circuit = new Circuit(windowMs);
        const model = new Model(rules, windowMs);
        const out: {
          readonly ticket: Ticket;
          readonly period: number;
          readonly asking: { headMs: number | undefined; status: number | undefined };
        }[] = [];
        const failing = random.next();
        let now = random.below(10_000);
        for (let step = 0; step < 200; step++) {
          now += random.below(400);
          if (random.chance(0.6)) {
            const expected = model.admits(now);
            const asking: { headMs: number | undefined; status: number | undefined } = {
              headMs: undefined,
              status: undefined,
            };
            const admitted = circuit.admit(now, rules, asking);
            const found = "why" in admitted ? "no" : admitted.isProbe ? "probe" : "free";
            assert.equal(found, expected, `run ${run}, step ${step}`);
            if ("why" in admitted) continue;
            if (admitted.isProbe) model.probing = admitted;
            out.push({ ticket: admitted, period: model.period, asking });
          } else if (out.length > 0 && random.chance(0.2)) {
            const { ticket, asking } = random.pick(out);
            if (asking.headMs !== undefined) continue;
            asking.headMs = 1;
            asking.status = random.pick([200, 404, 500]);
            // A head that says that it failed is no sign of life.
            if (model.probing === ticket && asking.status < 500) model.probing = undefined;
          } else if (out.length > 0) {
            const [{ ticket, period } = out[0]!] = out.splice(random.below(out.length), 1);
            const verdict: Verdict = random.chance(0.1)
              ? "neither"
              : random.chance(failing)
                ? "failure"
                : "success";
            model.ends(ticket, period, verdict, now);
            circuit.settle(ticket, verdict, now, rules);
          }
          assert.equal(circuit.state, model.state, `run ${run}, step ${step}`);
        }
      }
    });
  }

  const rules: CircuitRules = { threshold: 2, errorRate: 0, minCalls: 1, resetMs: 1_000, probes: 2 };
  const admitted = (circuit: Circuit, now: number): Ticket => {
    const ticket = circuit.admit(now, rules);
    assert.ok(!("why" in ticket), "it is let through");
    return ticket;
  };

  it("opens, rests, is tried once at a time, and closes", () => {
    const circuit = new Circuit(1_000);
    const fail = (now: number) => circuit.settle(admitted(circuit, now), "failure", now, rules);
    assert.equal(fail(0), undefined);
    assert.equal(fail(10), "open");
    assert.equal(circuit.reason, "2 failures in a row");
    assert.deepEqual(circuit.admit(500, rules), { why: "open", forMs: 510 });
    const asking: { headMs: number | undefined; status: number | undefined } = {
      headMs: undefined,
      status: 529,
    };
    const probe = circuit.admit(1_010, rules, asking) as Ticket;
    assert.equal(probe.isProbe, true);
    assert.deepEqual(circuit.admit(1_020, rules), { why: "probing", forMs: undefined });
    // Once its reply has begun, the next may be tried, however long it takes to end.
    asking.headMs = 5;
    assert.deepEqual(circuit.admit(1_025, rules), { why: "probing", forMs: undefined }, "it failed");
    asking.status = 200;
    const second = admitted(circuit, 1_030);
    assert.equal(circuit.settle(second, "success", 1_040, rules), undefined);
    assert.equal(circuit.settle(probe, "success", 9_000, rules), "closed");
  });

  it("is not opened again by what began before", () => {
    const circuit = new Circuit(1_000);
    const old = Array.from({ length: 9 }, () => admitted(circuit, 0));
    assert.equal(circuit.settle(old[0]!, "failure", 1, rules), undefined);
    assert.equal(circuit.settle(old[1]!, "failure", 1, rules), "open");
    const probe = admitted(circuit, 2_000);
    assert.equal(circuit.settle(old[2]!, "success", 2_001, rules), undefined, "it was sent long ago");
    circuit.settle(probe, "success", 2_002, rules);
    assert.equal(circuit.settle(admitted(circuit, 2_003), "success", 2_004, rules), "closed");
    for (const ticket of old.slice(3)) circuit.settle(ticket, "failure", 2_005, rules);
    assert.equal(circuit.state, "closed");
  });

  it("stays as it was set by hand, until it is let go", () => {
    const circuit = new Circuit(1_000);
    circuit.force("open", 0);
    assert.deepEqual(circuit.admit(1e9, rules), { why: "forced", forMs: undefined });
    circuit.force("closed", 0);
    for (let failure = 0; failure < 9; failure++) circuit.settle(admitted(circuit, 1), "failure", 1, rules);
    assert.equal(circuit.state, "closed");
    circuit.force("auto", 2);
    for (let failure = 0; failure < 2; failure++) circuit.settle(admitted(circuit, 3), "failure", 3, rules);
    assert.equal(circuit.state, "open");
  });

  it("forgets what is older than its window", () => {
    const window = new SlidingWindow(1_000);
    window.add(50, true);
    window.add(950, false);
    assert.deepEqual(window.sum(999), { calls: 2, failures: 1 });
    assert.deepEqual(window.sum(1_100), { calls: 1, failures: 0 });
    assert.deepEqual(window.sum(1e9), { calls: 0, failures: 0 });
  });
});

describe("the circuits of a provider and of its models", () => {
  const rules: CircuitRules = { threshold: 2, errorRate: 0, minCalls: 1, resetMs: 1_000, probes: 1 };
  const WINDOW_MS = 1_000;
  const exchange = (model: string | undefined) => ({ description: { model } }) as Exchange;
  const PROVIDER = { name: "p", apiBase: "http://one" } as Provider;
  const attemptAt = (provider = PROVIDER) =>
    ({ provider, candidate: { provider }, headMs: undefined, status: undefined }) as unknown as Attempt;

  /** Circuits under a clock, asked for one request at a time. */
  const world = () => {
    const told: string[] = [];
    const it = { now: 0, told };
    const circuits = new ProviderCircuits(() => it.now);
    const tell: Tell = (provider, model) => {
      const view = circuits.view(provider, rules);
      const { state } = view.models.find((each) => each.model === model) ?? view;
      told.push(`${model ?? provider.name} ${state}`);
    };
    const admit = (model: string | undefined, provider = PROVIDER) => {
      const attempt = attemptAt(provider);
      const admission = circuits.admit(exchange(model), attempt, WINDOW_MS, rules, tell);
      if ("why" in admission) return admission;
      return {
        settle: (judgement: Judgement) =>
          circuits.settle(exchange(model), attempt, admission, judgement, rules, tell),
      };
    };
    const ask = (model: string | undefined, judgement: Judgement, provider = PROVIDER) => {
      const admitted = admit(model, provider);
      if ("why" in admitted) return `${admitted.why}${admitted.isModels ? " model" : ""}`;
      admitted.settle(judgement);
      return judgement;
    };
    return Object.assign(it, { circuits, admit, ask });
  };

  it("a model that is overloaded is left alone, and no other", () => {
    const it = world();
    assert.deepEqual(
      ["opus", "opus", "opus", "haiku", "haiku", undefined].map((model) =>
        it.ask(model, model === "opus" ? "failed" : "answered"),
      ),
      ["failed", "failed", "open model", "answered", "answered", "answered"],
    );
    assert.deepEqual(it.told, ["opus open"]);
    it.now = 1_000;
    assert.equal(it.ask("opus", "answered"), "answered", "the probe");
    assert.deepEqual(it.told.slice(1), ["opus half-open", "opus closed"]);
    assert.deepEqual(it.circuits.view(PROVIDER, rules).models, [], "what works is forgotten");
  });

  it("stands for its provider while nothing else of it is answered", () => {
    const it = world();
    const shown = () => {
      const { state, reason, models } = it.circuits.view(PROVIDER, rules);
      return [state, reason, models.length];
    };
    it.ask("opus", "failed");
    it.now = 1;
    it.ask("opus", "failed");
    assert.deepEqual(shown(), ["open", "opus: 2 failures in a row", 1]);
    it.now = 2;
    assert.equal(it.ask("haiku", "answered"), "answered", "it was let through all the same");
    assert.deepEqual(shown(), ["closed", undefined, 1]);
  });

  it("a provider that cannot be reached is left alone, whatever model is asked for", () => {
    const it = world();
    assert.deepEqual(
      ["opus", "haiku", "sonnet"].map((model) => it.ask(model, "broken")),
      ["broken", "broken", "open"],
    );
    assert.deepEqual(it.told, ["p open"]);
    assert.deepEqual(it.circuits.view(PROVIDER, rules).models, []);
    it.now = 1_000;
    // An error is an answer: the provider is back, the model is not.
    assert.deepEqual(
      ["opus", "opus", "opus", "haiku"].map((model) => it.ask(model, "failed")),
      ["failed", "failed", "open model", "failed"],
    );
    assert.deepEqual(it.told.slice(1), ["p half-open", "p closed", "opus open"]);
  });

  it("what names no model counts for the provider, and so do failures of too many models", () => {
    const it = world();
    assert.deepEqual(
      [undefined, undefined, undefined].map((model) => it.ask(model, "failed")),
      ["failed", "failed", "open"],
    );
    const other = world();
    for (let model = 0; model < 66; model++) assert.equal(other.ask(`m${model}`, "failed"), "failed");
    assert.equal(other.ask("m66", "failed"), "open");
  });

  it("a probe that its model's circuit turns down leaves its place to another", () => {
    const it = world();
    it.ask("opus", "failed");
    it.ask("opus", "failed");
    it.now = 500;
    it.ask("haiku", "broken");
    it.ask("haiku", "broken");
    assert.deepEqual(it.told, ["opus open", "p open"]);
    it.now = 999;
    assert.equal(it.ask("opus", "answered"), "open");
    it.now = 1_500;
    assert.equal(it.ask("opus", "failed"), "failed", "both circuits let it through");
    assert.equal(it.ask("opus", "answered"), "open model");
    assert.equal(it.ask("haiku", "answered"), "answered");
  });

  it("set by hand counts for all models, and letting go forgets what was known of them", () => {
    const it = world();
    it.ask("opus", "failed");
    it.ask("opus", "failed");
    it.circuits.force(PROVIDER, WINDOW_MS, "closed");
    for (let time = 0; time < 9; time++) assert.equal(it.ask("opus", "failed"), "failed");
    it.circuits.force(PROVIDER, WINDOW_MS, "open");
    assert.equal(it.ask("haiku", "answered"), "forced");
    it.circuits.force(PROVIDER, WINDOW_MS, "auto");
    assert.equal(it.ask("opus", "answered"), "answered");
  });

  it("begin anew where the provider moved to another server", () => {
    const it = world();
    it.ask("opus", "broken");
    it.ask("opus", "broken");
    const moved = { ...PROVIDER, apiBase: "http://two" };
    assert.equal(it.circuits.view(PROVIDER, rules).state, "open");
    assert.equal(it.circuits.view(moved, rules).state, "closed");
    it.now = 400;
    const view = it.circuits.view(PROVIDER, rules);
    assert.equal(view.probeInMs, 600);
    assert.ok(Math.abs(view.openedAt! - (Date.now() - 400)) < 1_000);
  });

  for (const seed of [1, 2, 3, Math.floor(Math.random() * 2 ** 31)]) {
    it(`do together what their models do: seed ${seed}`, () => {
      const random = new Random(seed);
      for (let run = 0; run < 40; run++) {
        const it = world();
        const own = new Model(rules, WINDOW_MS);
        const models = new Map<string, Model>();
        const out: {
          readonly name: string;
          settle(judgement: Judgement): void;
          expect(judgement: Judgement): void;
        }[] = [];
        const names = ["a", "b", "c"];
        const bad = new Map(names.map((name) => [name, random.next()]));
        for (let step = 0; step < 150; step++) {
          it.now += random.below(300);
          if (random.chance(0.5) || out.length === 0) {
            const name = random.pick(names);
            const said = own.admits(it.now);
            const ofModel = models.get(name);
            const saidOfModel = said === "no" ? "no" : (ofModel?.admits(it.now) ?? "free");
            const admitted = it.admit(name);
            const expected = said === "no" ? "own" : saidOfModel === "no" ? "model" : "yes";
            const found = !("why" in admitted) ? "yes" : admitted.isModels ? "model" : "own";
            assert.equal(found, expected, `run ${run}, step ${step}`);
            if ("why" in admitted) continue;
            const token = { isProbe: true, period: step };
            if (said === "probe") own.probing = token;
            if (saidOfModel === "probe") ofModel!.probing = token;
            const period = own.period;
            const modelsPeriod = ofModel?.period ?? 0;
            out.push({
              name,
              settle: admitted.settle,
              expect(judgement) {
                let model = models.get(name);
                if (model === undefined && judgement === "failed") {
                  model = new Model(rules, WINDOW_MS);
                  models.set(name, model);
                }
                const verdict = {
                  answered: "success",
                  failed: "failure",
                  broken: "failure",
                  neither: "neither",
                };
                const isAnswer = judgement === "failed";
                own.ends(token, period, isAnswer ? "success" : (verdict[judgement] as Verdict), it.now);
                if (model === undefined) return;
                const ofThis = judgement === "broken" ? "neither" : (verdict[judgement] as Verdict);
                model.ends(token, modelsPeriod, ofThis, it.now);
                const isBad = model.state !== "closed" || model.calls.at(-1)?.failed === true;
                const tenth = WINDOW_MS / 10;
                const recent = model.calls.filter(
                  ({ at, failed }) => failed && Math.floor(at / tenth) > Math.floor(it.now / tenth) - 10,
                );
                if (!isBad && recent.length === 0) models.delete(name);
              },
            });
          } else {
            const [each] = out.splice(random.below(out.length), 1);
            const odd = random.pick<Judgement>(["neither", "broken"]);
            const word = random.chance(bad.get(each!.name)!) ? "failed" : "answered";
            const judgement = random.chance(0.2) ? odd : word;
            each!.expect(judgement);
            each!.settle(judgement);
          }
          const { models: shown } = it.circuits.view(PROVIDER, rules);
          assert.deepEqual(
            Object.fromEntries(shown.map(({ model, state }) => [model, state])),
            Object.fromEntries([...models].map(([name, { state }]) => [name, state])),
            `run ${run}, step ${step}`,
          );
        }
      }
    });
  }
});
