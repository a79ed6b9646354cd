import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import type { Alert } from "@tokenman/plugin-sdk";
import { capturedLog, gate } from "@tokenman/plugin-sdk/testkit";
import { Alerts } from "../../plugins/budget/alerts.ts";
import { bill, running } from "../support/budget-world.ts";

test("alerts are raised once for each threshold, in the log, to sinks and to the webhook", async () => {
  const posted: Alert[] = [];
  const arrived = gate();
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      posted.push(JSON.parse(String(Buffer.concat(chunks))));
      response.end();
      if (posted.length === 3) arrived.open();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    await using plugin = await running({
      hourly_limit: 0.002,
      alert_thresholds: [40, 50, 75],
      reserve: "max",
      webhook: `http://127.0.0.1:${port}/alerts`,
    });
    await plugin.ask({}, bill(0, 85));
    for (let time = 0; time < 5; time++) await plugin.ask({}, bill(0, 15));
    await plugin.ask({ max_tokens: 90 });
    await plugin.ask({ max_tokens: 90 });
    await arrived.opened;
    const warned = plugin.run.log.filter(({ level }) => level === "warn");
    assert.deepEqual(
      warned.map(({ message }) => message?.replace(/until .*/, "until …")),
      [
        "40 % of the hourly budget (total) of $0.002 are spent: $0.00085",
        "50 % of the hourly budget (total) of $0.002 are spent: $0.001",
        "the hourly budget (total) of $0.002 has no room left: requests are refused, until …",
      ],
    );
    assert.deepEqual(
      posted.map(({ message }) => message).toSorted(),
      warned.map(({ message }) => message).toSorted(),
    );
    const half = posted.find(({ facts }) => facts["percent"] === 50)!;
    assert.equal(half.kind, "budget");
    assert.equal(half.facts["spent"], 0.001);
  } finally {
    server.close();
  }
});

test("alerts reach every sink, whatever another one or the webhook does", async () => {
  const seen: Alert[] = [];
  const log = capturedLog();
  const sinks = [
    {
      name: "broken",
      alert() {
        throw new Error("no");
      },
    },
    { name: "feed", alert: (alert: Alert) => void seen.push(alert) },
  ];
  // Nobody listens on a port that was just given back.
  const server = http.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const alerts = new Alerts({
    log,
    registry: { all: () => sinks as never },
    webhook: `http://127.0.0.1:${port}/secret-path`,
  });
  const window = { scope: "total", period: "daily", from: 0, to: 86_400_000, limitNanoUsd: 5e9 } as const;
  alerts.passed(window, 75, 4e9);
  assert.deepEqual(
    seen.map(({ kind, message, facts }) => ({ kind, message, facts })),
    [
      {
        kind: "budget",
        message: "75 % of the daily budget (total) of $5.00 are spent: $4.00",
        facts: {
          scope: "total",
          period: "daily",
          limit: 5,
          resets_at: "1970-01-02T00:00:00.000Z",
          percent: 75,
          spent: 4,
        },
      },
    ],
  );
  await alerts.close();
  assert.equal(log.lines.at(-1)!.message, "the budget's webhook was not reached");
  assert.ok(!JSON.stringify(log.lines).includes("secret-path"));
});
