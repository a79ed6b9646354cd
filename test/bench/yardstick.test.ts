import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it, type TestContext } from "node:test";
import type { LedgerAttempt } from "@tokenman/plugin-sdk";
import { type ProxiedCall, sendThrough } from "../../scripts/bench/proxied.ts";
import { bytesPerToken, inputTokens, recordedCalls } from "../../scripts/bench/recorded-calls.ts";
import { readSession, type SessionTurn } from "../../scripts/bench/session.ts";
import { MIN_TOKENS } from "../../scripts/bench/simulated.ts";
import { compareWithRecording, deviation, renderYardstick } from "../../scripts/bench/yardstick.ts";
import { syntheticSession } from "../support/synthetic-session.ts";

/** A recorded session outside the repository, named by TOKENMAN_BENCH_SESSION; see scripts/bench/README.md. */
const RECORDING = process.env["TOKENMAN_BENCH_SESSION"] ?? "";
const DIALECT = "anthropic-messages";
/** Nothing that could change a request: what is measured is the provider. */
const AS_IT_IS =
  "[compression.dedup]\nenabled = false\n[compression.rules]\nenabled = false\n[cache]\nenabled = false";

function recording(context: TestContext): SessionTurn[] | undefined {
  if (existsSync(RECORDING)) return readSession(RECORDING);
  context.skip("TOKENMAN_BENCH_SESSION names no recording");
  return undefined;
}

async function yardstick(turns: readonly SessionTurn[], perToken: number) {
  const found = await sendThrough(recordedCalls(turns, { dialect: DIALECT, hints: true }), {
    dialect: DIALECT,
    bytesPerToken: perToken,
    minTokens: MIN_TOKENS[DIALECT],
    config: AS_IT_IS,
  });
  return compareWithRecording(
    turns,
    found.map(({ turn, end }) => {
      const usage = end.attempts[0]?.usage;
      return {
        index: turn!.index,
        input: usage?.inputTokens ?? 0,
        read: usage?.cacheReadTokens ?? 0,
        write5m: usage?.cacheWrite5mTokens ?? 0,
        write1h: usage?.cacheWrite1hTokens ?? 0,
      };
    }),
  );
}

/** Replays with the usage of the recording; a client leaves where it left. */
function billed(turns: readonly SessionTurn[]): Promise<ProxiedCall[]> {
  return sendThrough(recordedCalls(turns, { dialect: DIALECT, hints: true }), {
    dialect: DIALECT,
    bytesPerToken: 4,
    minTokens: MIN_TOKENS[DIALECT],
    config: AS_IT_IS,
    direction(turn) {
      const { input, output, cacheRead, cacheWrite } = turn.usage;
      const usage = {
        inputTokens: input,
        readTokens: cacheRead,
        write5mTokens: cacheWrite,
        write1hTokens: 0,
        outputTokens: output,
      };
      if (isCompleted(turn)) return { usage };
      return { usage, hangsAfter: inputTokens(turn) > 0 ? 3 : 0 };
    },
  });
}

function isCompleted({ stopReason }: SessionTurn): boolean {
  return stopReason === "stop" || stopReason === "toolUse";
}

/** Every completed call costs what was recorded, exactly; every other one is an estimate, and said to be one. */
function assertBilled(
  turns: readonly SessionTurn[],
  calls: readonly ProxiedCall[],
): { exact: number; estimates: number } {
  let exact = 0;
  let estimates = 0;
  for (const { turn, end } of calls) {
    const { index, usage } = turn!;
    const [attempt] = end.attempts as [LedgerAttempt];
    if (isCompleted(turn!)) {
      assert.equal(attempt.cost?.total, Math.round(usage.costUsd! * 1e9), `call ${index}`);
      assert.equal(attempt.estimated, false, `call ${index}`);
      assert.equal(end.outcome.kind, "answered");
      exact++;
    } else {
      assert.equal(attempt.estimated, true, `call ${index}`);
      assert.ok((attempt.cost?.total ?? 0) > 0, `call ${index}: ${attempt.unpriced}`);
      assert.equal(end.outcome.kind, "aborted");
      estimates++;
    }
  }
  assert.equal(exact, turns.filter(isCompleted).length);
  return { exact, estimates };
}

describe("a recorded session through TokenMan to the embedded provider", { timeout: 100_000 }, () => {
  it("reads and writes the prompt cache as the plainest rules say", async () => {
    const turns = syntheticSession();
    const { simulated, recorded, different, restarts } = await yardstick(turns, 4);
    assert.deepEqual(restarts, []);
    assert.deepEqual(simulated, recorded);
    assert.deepEqual(different, []);
  });

  it("costs what was recorded, and shows the calls that were broken off as estimates", async () => {
    const turns = syntheticSession();
    assert.deepEqual(assertBilled(turns, await billed(turns)), { exact: turns.length - 2, estimates: 2 });
  });

  it("comes within 2 % of a real provider's reads and writes", async (context) => {
    const turns = recording(context);
    if (turns === undefined) return;
    const found = await yardstick(turns, bytesPerToken(turns));
    assert.ok(Math.abs(deviation(found.simulated.read, found.recorded.read)) < 0.02);
    assert.ok(Math.abs(deviation(found.simulated.write, found.recorded.write)) < 0.02);
    for (const line of renderYardstick(found).trim().split("\n")) context.diagnostic(line);
  });

  it("costs what a real provider billed, to the nano-dollar", async (context) => {
    const turns = recording(context);
    if (turns === undefined) return;
    const { exact, estimates } = assertBilled(turns, await billed(turns));
    context.diagnostic(`${exact} calls equal, ${estimates} broken off and estimated`);
  });
});
