import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Alert,
  type Attempt,
  type AttemptResult,
  type CircuitView,
  type CommandContext,
  definePlugin,
  type ReplyInit,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { faults, providersAt, recordingUpstream, runPlugin } from "@tokenman/plugin-sdk/testkit";
import breaker from "../../plugins/breaker/index.ts";
import { judge } from "../../plugins/breaker/judge.ts";
import { startTokenman } from "../support/kernel.ts";

const REQUEST = {
  path: "/v1/messages",
  body: { model: "m", max_tokens: 9, messages: [{ role: "user", content: "hi" }] },
};
const status = (code: number): ReplyInit => ({ status: code, body: "{}" });

describe("an attempt's end", () => {
  const of = (result: AttemptResult, streamError?: Attempt["streamError"]) =>
    judge({ result, status: result.kind === "reply" ? result.status : undefined, streamError }, false);
  const reply = (code: number, body: "complete" | "upstream-cut" | "aborted" | "failed" = "complete") =>
    of({ kind: "reply", status: code, body });
  const error = (code: string) => of({ kind: "error", code, message: "", bytesSent: true } as AttemptResult);
  const inStream = (code: number | undefined) =>
    of(
      { kind: "reply", status: 200, body: "complete" },
      { kind: "error", type: "t", status: code, retryable: true, message: "" },
    );

  it("is a failure by the provider's own word, or a connection's", () => {
    for (const code of [500, 502, 503, 504, 529]) assert.equal(reply(code), "failed");
    // A reply that was kept back and thrown away has been seen all the same.
    assert.equal(reply(529, "aborted"), "failed");
    assert.equal(judge({ result: undefined, status: 529, streamError: undefined }, false), "failed");
    assert.equal(reply(200, "upstream-cut"), "broken");
    for (const code of ["TM_UPSTREAM_CONNECT", "TM_UPSTREAM_RESET", "TM_UPSTREAM_TIMEOUT", "TM_UPSTREAM_TLS"])
      assert.equal(error(code), "broken");
    const cut = { kind: "error", type: "cut", status: undefined, retryable: true, message: "" } as const;
    assert.equal(of({ kind: "reply", status: 200, body: "upstream-cut" }, cut), "broken");
    assert.equal(of({ kind: "reply", status: 200, body: "aborted" }, cut), "neither", "called off");
    assert.deepEqual([inStream(529), inStream(undefined), inStream(400)], ["failed", "failed", "answered"]);
  });

  it("is not, where a limit, the client or TokenMan ended it", () => {
    assert.deepEqual(
      [reply(429), inStream(429), reply(200, "aborted"), reply(200, "failed")],
      Array(4).fill("neither"),
    );
    assert.equal(
      judge(
        { result: { kind: "reply", status: 429, body: "complete" }, status: 429, streamError: undefined },
        true,
      ),
      "failed",
    );
    assert.deepEqual([error("TM_KEY_UNAVAILABLE"), error("TM_INTERNAL")], ["neither", "neither"]);
    assert.equal(of({ kind: "cancelled" }), "neither");
    assert.equal(of({ kind: "skipped", by: "x", reason: "y" }), "neither");
    assert.deepEqual([reply(200), reply(404), reply(401)], ["answered", "answered", "answered"]);
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
    assert.deepEqual(warned, ["the circuit of a's m is open: 3 failures in a row"]);
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
      [
        "the circuit of upstream's m is open: 2 failures in a row",
        "the circuit of upstream's m is half-open",
        "the circuit of upstream's m is closed",
      ],
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
      config: `${providersAt(upstream.url)}\n[cache]\nenabled = false\n[resilience]\ncb_failure_threshold = 2\n`,
    });
    const ask = async () => {
      const headers = { "content-type": "application/json", "x-api-key": "sk-ant-api03-x" };
      const init = { method: "POST", headers, body: JSON.stringify(REQUEST.body) };
      const response = await fetch(`${tokenman.proxy}/v1/messages`, init);
      const retryAfter = response.headers.get("retry-after");
      return { status: response.status, retryAfter, text: await response.text() };
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

    const feed = (await fetch(`${tokenman.dashboard}/api/events`)).body!.getReader();
    upstream.next(faults.status(529), faults.status(529));
    assert.deepEqual([(await ask()).status, (await ask()).status, await gauge()], [529, 529, "1"]);
    const refused = await ask();
    assert.equal(refused.status, 503);
    assert.ok(Number(refused.retryAfter) > 50 && Number(refused.retryAfter) <= 60, "Retry-After");
    assert.match(refused.text, /anthropic: its circuit for this model is open after failures/);
    const { configured } = (await (await fetch(`${tokenman.dashboard}/api/providers`)).json()) as {
      configured: { name: string; circuit: CircuitView }[];
    };
    const { circuit } = configured.find(({ name }) => name === "anthropic")!;
    assert.deepEqual([circuit.state, circuit.reason], ["open", "m: 2 failures in a row"]);
    assert.deepEqual(
      circuit.models.map(({ model, state }) => [model, state]),
      [["m", "open"]],
    );
    assert.equal((await tokenman.reload("a test")).ok, true);
    assert.equal((await ask()).status, 503, "the new generation knows it, too");
    assert.equal(upstream.requests.length, 2);
    const [shown, model] = await command("anthropic");
    assert.match(shown!, /^anthropic {2}open +m: 2 failures in a row; a probe in \d+ s$/);
    assert.match(model!, /^ {2}m {8}open +2 failures in a row; a probe in \d+ s$/);

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
    const foreign = await fetch(`${tokenman.dashboard}/api/providers/anthropic/circuit`, {
      method: "POST",
      headers: { origin: "https://elsewhere.example" },
      body: '{"state":"open"}',
    });
    assert.equal(foreign.status, 403);
    assert.equal((await ask()).status, 200, "a page of somebody else's opened nothing");
    let told = "";
    while (!/event: alert\n.*\n\n/.test(told)) told += Buffer.from((await feed.read()).value!).toString();
    await feed.cancel();
    assert.match(
      told,
      /event: alert\ndata: \{"kind":"circuit",.*"provider":"anthropic","model":"m","state":"open"/,
    );
  });
});
