import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Alert,
  type Attempt,
  type AttemptResult,
  type CircuitView,
  type CommandContext,
  definePlugin,
  type Provider,
  type ReplyInit,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { faults, providersAt, Random, recordingUpstream, runPlugin } from "@tokenman/plugin-sdk/testkit";
import { Circuit, type CircuitRules, type Ticket, type Verdict } from "../../plugins/breaker/circuit.ts";
import { ProviderCircuits } from "../../plugins/breaker/circuits.ts";
import breaker from "../../plugins/breaker/index.ts";
import { judge } from "../../plugins/breaker/judge.ts";
import { SlidingWindow } from "../../plugins/breaker/window.ts";
import { startTokenman } from "../support/kernel.ts";

const REQUEST = {
  path: "/v1/messages",
  body: { model: "m", max_tokens: 9, messages: [{ role: "user", content: "hi" }] },
};
const status = (code: number): ReplyInit => ({ status: code, body: "{}" });

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
        const out: { readonly ticket: Ticket; readonly period: number }[] = [];
        const failing = random.next();
        let now = random.below(10_000);
        for (let step = 0; step < 200; step++) {
          now += random.below(400);
          if (random.chance(0.6)) {
            const expected = model.admits(now);
            const admitted = circuit.admit(now, rules);
            const found = "why" in admitted ? "no" : admitted.isProbe ? "probe" : "free";
            assert.equal(found, expected, `run ${run}, step ${step}`);
            if ("why" in admitted) continue;
            if (admitted.isProbe) model.probing = admitted;
            out.push({ ticket: admitted, period: model.period });
          } else if (out.length > 0 && random.chance(0.2)) {
            const { ticket } = random.pick(out);
            if (model.probing === ticket) model.probing = undefined;
            circuit.answered(ticket);
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
    const probe = admitted(circuit, 1_010);
    assert.deepEqual(circuit.admit(1_020, rules), { why: "probing", forMs: undefined });
    // Once its reply has begun, the next may be tried, however long it takes to end.
    circuit.answered(probe);
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

  it("of a provider that moved to another server begins anew", () => {
    let now = 0;
    const circuits = new ProviderCircuits(() => now);
    const at = (apiBase: string) => ({ name: "p", apiBase }) as Provider;
    for (let failure = 0; failure < 2; failure++) {
      const ticket = circuits.admit(at("http://one"), 1_000, rules) as Ticket;
      circuits.settle(at("http://one"), ticket, "failure", rules);
    }
    assert.equal(circuits.state(at("http://one")), "open");
    assert.equal(circuits.state(at("http://two")), "closed");
    now = 400;
    const view = circuits.view(at("http://one"), rules);
    assert.equal(view.probeInMs, 600);
    assert.ok(Math.abs(view.openedAt! - (Date.now() - 400)) < 1_000);
  });
});

describe("an attempt's end", () => {
  const of = (result: AttemptResult, streamError?: Attempt["streamError"]) =>
    judge({ result, streamError }, false);
  const reply = (code: number, body: "complete" | "upstream-cut" | "aborted" | "failed" = "complete") =>
    of({ kind: "reply", status: code, body });
  const error = (code: string) => of({ kind: "error", code, message: "", bytesSent: true } as AttemptResult);
  const inStream = (code: number | undefined) =>
    of(
      { kind: "reply", status: 200, body: "complete" },
      { kind: "error", type: "t", status: code, retryable: true, message: "" },
    );

  it("is the provider's failure where it is", () => {
    for (const code of [500, 502, 503, 504, 529]) assert.equal(reply(code), "failure");
    // A reply that was kept back and thrown away has been seen all the same.
    assert.equal(reply(529, "aborted"), "failure");
    assert.equal(reply(200, "upstream-cut"), "failure");
    for (const code of ["TM_UPSTREAM_CONNECT", "TM_UPSTREAM_RESET", "TM_UPSTREAM_TIMEOUT", "TM_UPSTREAM_TLS"])
      assert.equal(error(code), "failure");
    assert.deepEqual([inStream(529), inStream(undefined), inStream(400)], ["failure", "failure", "success"]);
  });

  it("is not, where a limit, the client or TokenMan ended it", () => {
    assert.deepEqual(
      [reply(429), inStream(429), reply(200, "aborted"), reply(200, "failed")],
      Array(4).fill("neither"),
    );
    assert.equal(
      judge({ result: { kind: "reply", status: 429, body: "complete" }, streamError: undefined }, true),
      "failure",
    );
    assert.deepEqual([error("TM_KEY_UNAVAILABLE"), error("TM_INTERNAL")], ["neither", "neither"]);
    assert.equal(of({ kind: "cancelled" }), "neither");
    assert.equal(of({ kind: "skipped", by: "x", reason: "y" }), "neither");
    assert.deepEqual([reply(200), reply(404), reply(401)], ["success", "success", "success"]);
  });
});

describe("the plugin", () => {
  it("skips a provider that keeps failing, and goes on with the next", async () => {
    await using run = await runPlugin(breaker, {
      config: { cb_failure_threshold: 3 },
      providers: ["a", "b"],
    });
    for (let failure = 0; failure < 3; failure++) await run.send(REQUEST, status(503));
    const { upstream, exchange, reply } = await run.send(REQUEST);
    assert.deepEqual([reply.status, upstream.map(({ provider }) => provider)], [200, ["b"]]);
    const [skipped] = exchange.attempts;
    assert.ok(skipped?.result?.kind === "skipped" && skipped.result.by === "breaker");
    assert.match(skipped.result.reason, /is open after failures; it is tried again in \d+ s/);
    const warned = run.log.filter(({ level }) => level === "warn").map(({ message }) => message);
    assert.deepEqual(warned, ["the circuit of a is open: 3 failures in a row"]);
  });

  it("closes again after a probe, and a limited or refused request opens nothing", async () => {
    await using run = await runPlugin(breaker, {
      config: { cb_failure_threshold: 2, cb_reset_timeout_seconds: 0 },
    });
    for (let limited = 0; limited < 5; limited++)
      await run.send(REQUEST, status(limited % 2 === 0 ? 429 : 400));
    for (let failure = 0; failure < 2; failure++) await run.send(REQUEST, status(500));
    await run.send(REQUEST);
    assert.deepEqual(
      run.log.map(({ message }) => message).filter((message) => message?.startsWith("the circuit")),
      ["the circuit of upstream is open: 2 failures in a row", "the circuit of upstream is closed"],
    );
  });

  it("does nothing where it is switched off", async () => {
    await using run = await runPlugin(breaker, { config: { circuit_breaker_enabled: false } });
    for (let failure = 0; failure < 9; failure++) {
      const { upstream } = await run.send(REQUEST, status(500));
      assert.equal(upstream.length, 1);
    }
  });

  it("keeps what it knows over a reload, shows it, and takes orders", { timeout: 30_000 }, async () => {
    await using upstream = await recordingUpstream();
    const alerts: Alert[] = [];
    const sink = definePlugin({
      name: "sink",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.contribute("alertSink", { name: "sink", alert: (alert) => void alerts.push(alert) }),
    });
    await using tokenman = await startTokenman({
      also: ["breaker"],
      plugins: [sink],
      config: `${providersAt(upstream.url)}\n[resilience]\ncb_failure_threshold = 2\n`,
    });
    const ask = async () => {
      const headers = { "content-type": "application/json", "x-api-key": "sk-ant-api03-x" };
      const init = { method: "POST", headers, body: JSON.stringify(REQUEST.body) };
      const response = await fetch(`${tokenman.proxy}/v1/messages`, init);
      return { status: response.status, text: await response.text() };
    };
    const command = async (...words: readonly string[]): Promise<string[]> => {
      const lines: string[] = [];
      await breaker.commands![0]!.run({
        args: { name: words[0], action: words[1] },
        options: {},
        fetch: (path: string, init: RequestInit) => fetch(tokenman.dashboard + path, init),
        print: (line: string) => void lines.push(line),
      } as unknown as CommandContext);
      return lines;
    };
    const gauge = async () =>
      /circuit_state\{provider="anthropic"\} (\d)/.exec(
        await (await fetch(`${tokenman.dashboard}/metrics`)).text(),
      )?.[1];

    upstream.next(faults.status(529), faults.status(529));
    assert.deepEqual([(await ask()).status, (await ask()).status, await gauge()], [529, 529, "1"]);
    const refused = await ask();
    assert.equal(refused.status, 503);
    assert.match(refused.text, /anthropic: its circuit is open after failures/);
    assert.equal((await tokenman.reload("a test")).ok, true);
    assert.equal((await ask()).status, 503, "the new generation knows it, too");
    assert.equal(upstream.requests.length, 2);
    assert.match(
      (await command("anthropic"))[0]!,
      /^anthropic {2}open +2 failures in a row; a probe in \d+ s$/,
    );

    assert.match((await command("anthropic", "close"))[0]!, /^anthropic {2}closed \(by hand\)$/);
    assert.deepEqual([(await ask()).status, await gauge()], [200, "0"]);
    await command("anthropic", "open");
    assert.match((await ask()).text, /its circuit was opened by hand/);
    await command("anthropic", "auto");
    assert.equal((await ask()).status, 200);

    const { circuits } = (await (await fetch(`${tokenman.dashboard}/api/circuits`)).json()) as {
      circuits: CircuitView[];
    };
    const found = circuits.find(({ provider }) => provider === "anthropic");
    assert.deepEqual([found?.state, found?.forced, found?.recentFailures], ["closed", false, 0]);
    assert.deepEqual(
      alerts.map(({ facts }) => facts["state"]),
      ["open", "closed", "open", "closed"],
    );
    const usage = (error: unknown) => error instanceof TokenmanError && error.code === "TM_USAGE";
    await assert.rejects(command("anthropic", "ajar"), usage);
    await assert.rejects(command("nobody"), usage);
    await assert.rejects(command("nobody", "open"), usage);
    const bad = await fetch(`${tokenman.dashboard}/api/providers/anthropic/circuit`, {
      method: "POST",
      body: "{}",
    });
    assert.equal(bad.status, 400);
  });
});
