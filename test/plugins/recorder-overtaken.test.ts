import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  chunkBytes,
  faults,
  gate,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  steps,
  streamReply,
  textEvents,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";
import { ask, leaveAfter } from "../support/recorded-world.ts";

/** $1 and $10 a million tokens, 1,000 and 10,000 nano-dollars each, times the vendor reply's 12 and 5 tokens. */
const BILL = 12 * 1_000 + 5 * 10_000;
const MESSAGES = "/v1/messages";
const limits = { timeout: 20_000 };

interface World extends AsyncDisposable {
  readonly first: RecordingUpstream;
  readonly second: RecordingUpstream;
  readonly tokenman: Ledgered;
  /** Each attempt of the exchange that ended: where, how, what it cost, and whether that is an estimate, or why there is none. */
  attempts(): Promise<readonly (readonly [string, string, number | undefined, string])[]>;
}

async function world(): Promise<World> {
  const first = await recordingUpstream();
  const second = await recordingUpstream();
  process.env["OVERTAKEN_TEST_KEY"] = "spare-key";
  const tokenman = await startLedgered({
    also: ["retry"],
    config: `[pricing."test-model"]
input = 1
output = 10
[providers.one]
format = "anthropic"
api_base = "${first.url}"
auth = "client"
[providers.two]
format = "anthropic"
api_base = "${second.url}"
key_ref = "env:OVERTAKEN_TEST_KEY"
priority = 1
[routing]
default_provider = "one"
[resilience]
retry_base_delay_ms = 1
[resilience.hedge]
enabled = true
initial_delay_ms = 1
min_delay_ms = 0
max_share = 1
`,
  });
  return {
    first,
    second,
    tokenman,
    async attempts() {
      const [row] = await tokenman.ended();
      return row!.attempts.map(({ provider, result, cost, estimated, unpriced }) => [
        provider,
        // How much of a refusal was read before the next attempt is nobody's business.
        result.kind !== "reply"
          ? result.kind
          : result.status < 300
            ? `200 ${result.body}`
            : `${result.status}`,
        cost?.total,
        unpriced ?? (estimated ? "estimated" : "exact"),
      ]);
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await first.stop();
      await second.stop();
    },
  };
}

/** What is called off is estimated: that it cost something is all that can be known beforehand. */
function estimated(attempt: readonly [string, string, number | undefined, string] | undefined): number {
  assert.equal(attempt?.[3], "estimated");
  assert.ok(attempt[2]! > 0);
  return attempt[2]!;
}

describe("attempts beside each other are billed each by what became of it", () => {
  test("one that is overloaded costs nothing, the one that answers its usage", limits, async () => {
    await using it = await world();
    const asked = gate();
    const refused = gate();
    it.first.next(async (call) => {
      await asked.opened;
      await faults.status(529)(call);
      refused.open();
    });
    it.second.next(async (call) => {
      asked.open();
      await refused.opened;
      await wholeReply(streamReply("anthropic-messages"))(call);
    });
    await ask(it.tokenman.proxy, MESSAGES, { stream: true });
    assert.deepEqual(await it.attempts(), [
      ["one", "529", undefined, "exact"],
      ["two", "200 complete", BILL, "exact"],
    ]);
  });

  test(
    "a client that leaves after an overloaded one: nobody won, and nobody was overtaken",
    limits,
    async () => {
      await using it = await world();
      const asked = gate();
      const refused = gate();
      const left = gate();
      it.first.next(async (call) => {
        await asked.opened;
        await faults.status(529)(call);
        refused.open();
      });
      const silent = async ({ closed }: { readonly closed: Promise<unknown> }) => {
        asked.open();
        await closed;
        left.open();
      };
      it.second.next(silent);
      // Whether the first one is asked again meanwhile is the policy's to say.
      it.first.next(async ({ closed }) => void (await closed));
      const abort = new AbortController();
      const reply = ask(it.tokenman.proxy, MESSAGES, { stream: true }, [], abort.signal);
      await refused.opened;
      abort.abort();
      await assert.rejects(reply);
      await left.opened;
      const [overloaded, ...others] = await it.attempts();
      assert.deepEqual(overloaded, ["one", "529", undefined, "exact"]);
      assert.ok(others.length > 0);
      for (const [, how, cost, why] of others) {
        assert.equal(how, "cancelled");
        assert.deepEqual([cost, why], [undefined, "the request was called off before its reply came"]);
      }
    },
  );

  test(
    "the winner's client leaves in its midst: the other one was overtaken all the same",
    limits,
    async () => {
      await using it = await world();
      it.first.next(async ({ closed }) => void (await closed));
      const [start, ...more] = textEvents("anthropic-messages", ["one two three four five six seven"]);
      it.second.next(
        steps(
          headBytes(200, ["content-type", "text/event-stream", "transfer-encoding", "chunked"]),
          chunkBytes(Buffer.concat([start!, ...more.slice(0, 2)])),
          ({ closed }) => closed,
        ),
      );
      await leaveAfter("seven", it.tokenman.proxy, MESSAGES);
      const [overtaken, winner] = await it.attempts();
      assert.equal(overtaken![1], "cancelled");
      estimated(overtaken);
      assert.equal(winner![1], "200 aborted");
      // The twelve tokens of input were told, seven words came.
      assert.ok(estimated(winner) >= 12 * 1_000 + 7 * 10_000);
    },
  );

  test("one that was overtaken costs what it was sent, beside the winner's bill", limits, async () => {
    await using it = await world();
    it.first.next(async ({ closed }) => void (await closed));
    await ask(it.tokenman.proxy, MESSAGES, { stream: true });
    const [overtaken, winner] = await it.attempts();
    assert.equal(overtaken![1], "cancelled");
    estimated(overtaken);
    assert.deepEqual(winner, ["two", "200 complete", BILL, "exact"]);
  });
});
