import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import type { CostByKind, Dialect, Usage } from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import openai from "../../plugins/openai/index.ts";
import { dataEvents, namedEvents } from "../support/events.ts";
import { setUp } from "../support/fake-setup.ts";
import { pricing } from "../support/pricing.ts";

interface Case {
  readonly about: string;
  readonly dialect: string;
  readonly provider: string;
  readonly at: string;
  readonly body?: unknown;
  readonly stream?: readonly (readonly [name: string | null, data: unknown])[];
  readonly complete?: boolean;
  readonly arithmetic: readonly string[];
  readonly cost?: CostByKind;
  readonly unpriced?: string;
}

const folder = new URL("../fixtures/bill/", import.meta.url);
const dialects = (await Promise.all([anthropic, openai].map((plugin) => setUp(plugin)))).flatMap((setup) =>
  setup.contributed("dialect"),
);
const price = await pricing();

/** What the dialect's own reader makes of the reply. */
function usageOf(dialect: Dialect, { body, stream }: Case): Usage | undefined {
  const reader = dialect.usageReader();
  if (body !== undefined) reader.body(Buffer.from(JSON.stringify(body)), 200);
  for (const [name, data] of stream ?? []) {
    const events = name === null ? dataEvents(data) : namedEvents([name, data]);
    for (const event of events) reader.event(event);
  }
  return reader.usage();
}

describe("the bill", () => {
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
    const fixture = JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Case;
    it(`${file}: ${fixture.about}`, () => {
      const dialect = dialects.find(({ name }) => name === fixture.dialect);
      assert.ok(dialect, `a dialect named ${fixture.dialect}`);
      const usage = usageOf(dialect, fixture);
      assert.ok(usage, "the reply has a usage");
      assert.equal(usage.complete, fixture.complete ?? true);
      const query = {
        model: "the-clients-own-name",
        provider: fixture.provider,
        format: dialect.format,
        at: Date.parse(fixture.at),
      };
      const priced = price.price(query, usage);
      if (fixture.unpriced !== undefined) {
        assert.ok(!priced.priced && priced.reason.includes(fixture.unpriced), JSON.stringify(priced));
        return;
      }
      assert.ok(priced.priced, JSON.stringify(priced));
      assert.deepEqual(priced.cost, fixture.cost);
      const { total, ...kinds } = priced.cost;
      assert.equal(
        total,
        Object.values(kinds).reduce((sum, kind) => sum + kind, 0),
      );
    });
  }
});
