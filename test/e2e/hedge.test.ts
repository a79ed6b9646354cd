import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  FakeClock,
  faults,
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  steps,
} from "@tokenman/plugin-sdk/testkit";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";
import { SDKS, type Sdk } from "../support/sdks.ts";

const limits = { timeout: 20_000 };

interface World extends AsyncDisposable {
  readonly first: RecordingUpstream;
  readonly second: RecordingUpstream;
  readonly tokenman: Ledgered;
}

async function world(
  hedge = "enabled = true\ninitial_delay_ms = 1\nmin_delay_ms = 0\nmax_share = 1",
): Promise<World> {
  const first = await recordingUpstream();
  const second = await recordingUpstream();
  process.env["HEDGE_TEST_KEY"] = "spare-key";
  const providers = ["anthropic", "openai"].map(
    (format) => `[providers.${format}]
api_base = "${first.url}"
auth = "client"
[providers.${format}-spare]
format = "${format}"
api_base = "${second.url}"
key_ref = "env:HEDGE_TEST_KEY"
priority = 1
`,
  );
  const tokenman = await startLedgered({
    also: ["retry", "breaker"],
    config: `${providers.join("\n")}\n[resilience]\nretry_base_delay_ms = 1\n[resilience.hedge]\n${hedge}\n`,
  });
  return {
    first,
    second,
    tokenman,
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await first.stop();
      await second.stop();
      assert.deepEqual([...first.failures, ...second.failures], []);
    },
  };
}

async function attempts({ tokenman }: World) {
  const [row] = await tokenman.ended();
  return row!.attempts;
}
const summary = (all: Awaited<ReturnType<typeof attempts>>) =>
  all.map(({ provider, result }) => {
    if (result.kind === "reply") return `${provider} ${result.status}`;
    return `${provider} ${result.kind === "error" ? result.code : result.kind}`;
  });

for (const [name, sdk] of Object.entries(SDKS)) {
  const { provider } = sdk;
  const asking: Readonly<Record<string, (sdk: Sdk, at: Ledgered) => Promise<string>>> = {
    "a stream": (each, at) => each.stream(at.proxy),
    "a whole reply": (each, at) => each.ask(at.proxy),
  };
  describe(`${name} in front of a slow provider`, () => {
    for (const [what, ask] of Object.entries(asking)) {
      it(
        `gets ${what} of the second one, the first is called off at once, and both are in the ledger`,
        limits,
        async () => {
          await using it = await world();
          const left = gate();
          it.first.next(async (call) => {
            await call.closed;
            left.open();
          });
          assert.equal(await ask(sdk, it.tokenman), "Hello there.");
          await left.opened;
          const all = await attempts(it);
          assert.deepEqual(summary(all), [`${provider} cancelled`, `${provider}-spare 200`]);
          const [slow, fast] = all;
          assert.deepEqual(
            [slow!.estimated, slow!.usage?.source, slow!.usage?.outputTokens],
            [true, "estimate", 0],
          );
          assert.ok(slow!.usage!.inputTokens > 0);
          assert.deepEqual([fast!.estimated, fast!.usage?.source], [false, "provider"]);
          const { head } = it.second.last();
          assert.ok(head.includes("spare-key") && !head.includes("sk-"), "the client's key stays at home");
          const metrics = await (await fetch(`${it.tokenman.dashboard}/metrics`)).text();
          assert.match(
            metrics,
            /tokenman_hedges_total\{result="begun"\} 1\ntokenman_hedges_total\{result="won"\} 1/,
          );
        },
      );
    }

    it("gets the second one's stream where the first sends a head and no event", limits, async () => {
      await using it = await world();
      it.first.next(
        steps(
          headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]),
          (call) => call.closed,
        ),
      );
      assert.equal(await sdk.stream(it.tokenman.proxy), "Hello there.");
      const [slow, fast] = await attempts(it);
      assert.deepEqual(slow!.result, { kind: "reply", status: 200, body: "aborted" });
      assert.equal(slow!.estimated, true);
      assert.deepEqual(fast!.result, { kind: "reply", status: 200, body: "complete" });
    });

    it("gets the first one's answer although the second refuses", limits, async () => {
      await using it = await world();
      const refused = gate();
      it.first.next(faults.slowHead(refused.opened));
      it.second.next(async (call) => {
        await faults.status(404)(call);
        // The first one's answer is on its way once the refusal is.
        refused.open();
      });
      assert.equal(await sdk.ask(it.tokenman.proxy), "Hello there.");
      const ended = summary(await attempts(it));
      assert.equal(ended[0], `${provider} 200`);
      assert.match(ended[1]!, /-spare (404|cancelled)$/);
    });

    it("is answered after both failed, as after any failure", limits, async () => {
      await using it = await world();
      const asked = gate();
      it.first.next(async (call) => {
        await asked.opened;
        await faults.status(529)(call);
      });
      it.second.next(async (call) => {
        asked.open();
        await faults.reset()(call);
      });
      assert.equal(await sdk.ask(it.tokenman.proxy), "Hello there.");
      const ended = summary(await attempts(it));
      assert.deepEqual(ended.slice(0, 2), [`${provider} 529`, `${provider}-spare TM_UPSTREAM_RESET`]);
      assert.match(ended[2]!, / 200$/);
    });

    it(
      "is asked for once where the provider runs its tools, and where nobody asked for hedging",
      limits,
      async () => {
        for (const [hedge, tools] of [
          [undefined, true],
          ["enabled = false", false],
        ] as const) {
          await using it = await world(hedge);
          const answers = gate();
          it.first.next(faults.slowHead(answers.opened));
          using clock = new FakeClock();
          const asked = sdk.ask(it.tokenman.proxy, { serverTools: tools });
          await it.first.request(1);
          // Its second attempt would have begun after a millisecond.
          await clock.advance(1_000);
          clock.restore();
          answers.open();
          assert.equal(await asked, "Hello there.");
          assert.deepEqual(summary(await attempts(it)), [`${provider} 200`]);
          assert.equal(it.second.requests.length, 0);
        }
      },
    );
  });
}
