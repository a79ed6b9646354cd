import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { parseSession, readSession } from "../../scripts/bench/session.ts";
import { billSession } from "../../scripts/bench/session-bill.ts";
import { pricing } from "../support/pricing.ts";

/** A recorded session outside the repository, named by TOKENMAN_BENCH_SESSION; see scripts/bench/README.md. */
const RECORDING = process.env["TOKENMAN_BENCH_SESSION"] ?? "";
const at = Date.parse("2025-12-09T00:00:00Z");
const price = await pricing();

const line = (usage: unknown, stopReason: string) =>
  JSON.stringify({
    type: "message",
    message: { role: "assistant", content: [], model: "claude-opus-4-5", stopReason, usage },
  });

describe("the bill of a recorded session", () => {
  it("is compared call by call, and calls without a usage stand apart", () => {
    const turns = parseSession(
      [
        // 1 × 5,000 + 27 × 25,000 + 49,030 × 500 + 135 × 6,250 = 26,038,750
        line(
          { input: 1, output: 27, cacheRead: 49030, cacheWrite: 135, cost: { total: 0.02603875 } },
          "stop",
        ),
        line({ input: 1, output: 27, cacheRead: 49030, cacheWrite: 135, cost: { total: 0.026 } }, "stop"),
        line({ input: 0, output: 0, cacheRead: 0, cacheWrite: 0, cost: { total: 0 } }, "aborted"),
      ].join("\n"),
      "inline",
    );
    const bill = billSession(turns, price, at);
    assert.deepEqual(
      bill.billed.map(({ price }) => price.priced && price.cost.total),
      [26_038_750, 26_038_750],
    );
    assert.deepEqual(
      bill.different.map(({ index }) => index),
      [1],
    );
    assert.deepEqual(
      bill.interrupted.map(({ index, stopReason }) => [index, stopReason]),
      [[2, "aborted"]],
    );
  });

  it("equals the recording to the nano-dollar", (context) => {
    if (!existsSync(RECORDING)) {
      context.skip(`TOKENMAN_BENCH_SESSION names no recording`);
      return;
    }
    const turns = readSession(RECORDING);
    const bill = billSession(turns, price, at);
    assert.deepEqual(bill.different, []);
    assert.equal(bill.totalNanoUsd, bill.recordedNanoUsd);
    assert.equal(bill.billed.length + bill.interrupted.length, turns.length);
    const completed = turns.filter(({ stopReason }) => stopReason === "stop" || stopReason === "toolUse");
    assert.ok(completed.every(({ index }) => bill.billed.some((one) => one.index === index)));
    context.diagnostic(`${bill.billed.length} billed calls equal, ${bill.interrupted.length} interrupted`);
  });
});
