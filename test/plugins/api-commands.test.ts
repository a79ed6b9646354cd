import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { CommandContext } from "@tokenman/plugin-sdk";
import { capturedLog } from "@tokenman/plugin-sdk/testkit";
import { apiCommands } from "../../plugins/api/commands.ts";
import { harmless, table } from "../../plugins/api/table.ts";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";

// $1 and $10 a million tokens: 1,000 and 10,000 nano-dollars each.
const PRICES = '[pricing."mock"]\ninput = 1\noutput = 10\n';

async function send(tokenman: Ledgered, model: string, project = "default"): Promise<void> {
  const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-tokenman-project": project },
    body: JSON.stringify({ model, max_tokens: 50, messages: [{ role: "user", content: "hello" }] }),
  });
  await reply.arrayBuffer();
}

/** A command's lines; `print` sees each as it comes. */
async function run(
  { dashboard }: Ledgered,
  name: string,
  options: Readonly<Record<string, unknown>> = {},
  print: (line: string) => void = () => undefined,
): Promise<string[]> {
  const lines: string[] = [];
  const command = apiCommands.find(({ usage }) => usage === name)!;
  const context: CommandContext = {
    args: {},
    options: {
      since: name === "stats" ? "24h" : undefined,
      limit: name === "stats" ? undefined : "20",
      ...options,
    },
    config: {},
    host: { version: "0", dataDir: "/", configFile: undefined },
    dashboardUrl: dashboard,
    fetch: (path, init) => fetch(dashboard + path, init),
    print(line) {
      lines.push(line);
      print(line);
    },
    color: false,
    log: capturedLog([]),
  };
  await command.run(context);
  return lines;
}

async function filled(): Promise<Ledgered> {
  const tokenman = await startLedgered({ config: PRICES });
  await send(tokenman, "mock");
  await send(tokenman, "mock-unheard-of", "web");
  await send(tokenman, "mock-fail-400");
  await tokenman.ended(3);
  return tokenman;
}

describe("tokenman stats", () => {
  test("sums up, and says what is not in the sum", async () => {
    await using tokenman = await filled();
    const text = (await run(tokenman, "stats")).join("\n");
    assert.match(text, /^requests {2}3, 1 failed$/m);
    assert.match(text, /^cost {6}\$0\.0000\d+$/m);
    assert.match(text, /^ +1 call of unknown price is not in it$/m);
  });

  test("groups by each name, and never calls an unknown price $0", async () => {
    await using tokenman = await filled();
    const [title, ...rows] = await run(tokenman, "stats", { by: "model" });
    assert.match(title!, /^MODEL +REQUESTS +ERRORS +INPUT +CACHED +OUTPUT +SAVED +COST +UNPRICED$/);
    const unheard = rows.find((row) => row.startsWith("mock-unheard-of"))!;
    assert.match(unheard, /unpriced +1$/);
    assert.equal(rows[0]!.split(/ +/)[0], "mock");
    const projects = await run(tokenman, "stats", { by: "project" });
    assert.deepEqual(
      projects
        .slice(1)
        .map((row) => row.split(/ +/)[0])
        .sort(),
      ["default", "web"],
    );
    assert.match((await run(tokenman, "stats", { by: "provider" }))[1]!, /^mock +3 /);
  });

  test("adds hours up to days, whether they have a price or not", async () => {
    await using tokenman = await filled();
    for (const since of ["2d", "all"]) {
      const [line] = await run(tokenman, "stats", { by: "day", since, json: true });
      assert.ok(line !== undefined);
      const { days } = JSON.parse(line) as {
        days: { requests: number; cost: { usd: number; unpriced: number } }[];
      };
      const sum = (of: (day: (typeof days)[number]) => number): number =>
        days.reduce((total, day) => total + of(day), 0);
      assert.equal(
        sum(({ requests }) => requests),
        3,
        since,
      );
      assert.equal(
        sum(({ cost }) => cost.unpriced),
        1,
        since,
      );
      assert.ok(sum(({ cost }) => cost.usd) > 0, since);
    }
  });

  test("refuses what it cannot group by, and passes on what the API refuses", async () => {
    await using tokenman = await startLedgered();
    await assert.rejects(run(tokenman, "stats", { by: "colour" }), { code: "TM_USAGE" });
    await assert.rejects(run(tokenman, "stats", { since: "yesterday" }), {
      code: "TM_USAGE",
      message: /since/,
    });
    assert.deepEqual(await run(tokenman, "stats", { by: "model" }), ["no requests"]);
  });
});

describe("tokenman requests", () => {
  test("lists the newest last, filtered, as a table or as JSON lines", async () => {
    await using tokenman = await filled();
    const rows = await run(tokenman, "requests");
    assert.deepEqual(
      rows.slice(1).map((row) => row.split(/ {2,}/)[2]),
      ["mock", "mock-unheard-of", "mock-fail-400"],
    );
    assert.match(rows[2]!, / unpriced /);
    const failed = await run(tokenman, "requests", { status: "4xx", json: true });
    assert.deepEqual(
      failed.map((line) => (JSON.parse(line) as { model: string }).model),
      ["mock-fail-400"],
    );
    assert.equal((await run(tokenman, "requests", { limit: "1", json: true })).length, 1);
  });

  test("follows, over a reload too, until TokenMan is gone", async () => {
    await using tokenman = await filled();
    const seen: string[] = [];
    let wake = (): void => {};
    const shown = async (count: number): Promise<void> => {
      while (seen.length < count)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    };
    const following = run(tokenman, "requests", { follow: true, json: true, limit: "1" }, (line) => {
      seen.push((JSON.parse(line) as { model: string }).model);
      wake();
    });
    const ended = assert.rejects(following);
    await shown(1);
    await send(tokenman, "mock-a");
    await shown(2);
    assert.equal((await tokenman.reload("a test")).ok, true);
    await send(tokenman, "mock-b");
    await shown(3);
    assert.deepEqual(seen, ["mock-fail-400", "mock-a", "mock-b"]);
    await tokenman.stop();
    await ended;
  });
});

describe("a table for a terminal", () => {
  const columns = [
    { title: "NAME", align: "left", shrinks: true },
    { title: "NOTE", align: "left", dispensable: 1 },
    { title: "COST", align: "right" },
  ] as const;
  const rows = [
    ["a-rather-long-name-of-a-model", "something", "$1.00"],
    ["short", "", "$10.00"],
  ];

  test("aligns its columns", () => {
    assert.deepEqual(table(columns, rows), [
      "NAME                           NOTE         COST",
      "a-rather-long-name-of-a-model  something   $1.00",
      "short                                     $10.00",
    ]);
  });

  test("shortens, then leaves out, where it is narrow", () => {
    assert.deepEqual(table(columns, rows, 30), [
      "NAME         NOTE         COST",
      "a-rather-l…  something   $1.00",
      "short                   $10.00",
    ]);
    assert.deepEqual(table(columns, rows, 20), ["NAME        COST", "a-rathe…   $1.00", "short     $10.00"]);
  });

  test("lets nothing through that steers the terminal", () => {
    assert.equal(harmless("\u001b[2Jx\r\ny\u202e"), "·[2Jx··y·");
  });
});
