import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { type Dialect, requestBodies, type SegmentSpan } from "@tokenman/plugin-sdk";
import { conversation, Random } from "@tokenman/plugin-sdk/testkit";
import anthropic from "../../plugins/anthropic/index.ts";
import openai from "../../plugins/openai/index.ts";
import { setUp } from "../support/fake-setup.ts";

const NAMES = ["anthropic-messages", "openai-chat", "openai-responses"] as const;
const dialects = new Map<string, Dialect>();

before(async () => {
  for (const plugin of [anthropic, openai]) {
    const setup = await setUp(plugin);
    for (const dialect of setup.contributed("dialect")) dialects.set(dialect.name, dialect);
  }
});
after(() => requestBodies.forget());

type Plain = Omit<SegmentSpan, "hash">;

function plain(spans: readonly SegmentSpan[]): Plain[] {
  return spans.map(({ hash: _, ...span }) => span);
}

function listed(dialect: Dialect, body: Buffer): Plain[] {
  return plain(dialect.segments(body));
}

/** What is listed of a body that nothing is remembered of. */
function cold(dialect: Dialect, body: Buffer): Plain[] {
  requestBodies.forget();
  return listed(dialect, body);
}

for (const name of NAMES) {
  describe(`segments of ${name}, turn after turn`, () => {
    for (let seed = 1; seed <= 12; seed++) {
      it(`are those of each body alone, seed ${seed}`, () => {
        const dialect = dialects.get(name)!;
        const random = new Random(seed);
        const turns = [0, 100].flatMap((other) =>
          conversation({ dialect: name, seed: seed + other, turns: 12 }),
        );
        // Two conversations take turns, and some turns are edited, reordered or cut by their client.
        const bodies = turns
          .map(({ body }) => varied(varied(body, random), random))
          .sort(() => random.next() - 0.5);
        const expected = bodies.map((body) => cold(dialect, body));
        requestBodies.forget();
        for (const [index, body] of bodies.entries()) {
          // Some turns are only described, not listed.
          if (random.chance(0.5)) dialect.describe(varied(body, random));
          assert.deepEqual(listed(dialect, body), expected[index]);
        }
      });
    }

    it("are the same objects where nothing changed, with the hashes that were worked out for them", () => {
      const dialect = dialects.get(name)!;
      const turns = conversation({ dialect: name, seed: 5, turns: 14 }).filter(
        ({ body }) => body.length > 10_000,
      );
      assert.ok(turns.length >= 2);
      const [first, second] = turns.slice(-2);
      requestBodies.forget();
      const before = dialect.segments(first!.body);
      for (const [index, span] of before.entries()) span.hash = `hash ${index}`;
      const again = dialect.segments(second!.body);
      const kept = again.filter((span) => span.hash !== undefined);
      assert.ok(kept.length > before.length / 2, `${kept.length} of ${before.length}`);
      const key = (span: SegmentSpan, body: Buffer) =>
        `${span.pointer} ${body.toString("latin1", span.start, span.end)}`;
      for (const span of kept) {
        const index = Number(span.hash!.slice("hash ".length));
        assert.equal(key(span, second!.body), key(before[index]!, first!.body));
      }
    });
  });
}

describe("segments that stand behind the messages", () => {
  const dialect = () => dialects.get("anthropic-messages")!;
  const turn = (messages: number, tools: readonly string[]): Buffer =>
    Buffer.from(
      JSON.stringify({
        messages: Array.from({ length: messages }, (_, index) => ({
          role: "user",
          content: [{ type: "text", text: `${index} ${"long ".repeat(800)}` }],
        })),
        tools: tools.map((name) => ({ name, input_schema: { type: "object" } })),
        system: [{ type: "text", text: "Be brief." }],
      }),
    );
  const same = (bodies: readonly Buffer[], described: readonly Buffer[] = []) => {
    const expected = bodies.map((body) => cold(dialect(), body));
    requestBodies.forget();
    for (const [index, body] of bodies.entries()) {
      assert.deepEqual(listed(dialect(), body), expected[index]);
      if (described[index] !== undefined) dialect().describe(described[index]);
    }
  };

  it("move with them", () => {
    same([turn(3, ["read", "write"]), turn(4, ["read", "write"])]);
  });
  it("are listed anew where they changed, whatever their length", () => {
    same([turn(3, ["read", "write"]), turn(4, ["reed", "write"])]);
    same([turn(3, ["read", "write"]), turn(4, ["read", "write", "run"])]);
  });
  it("are listed anew where they changed in a turn that was not listed", () => {
    const turns = [turn(3, ["read", "write"]), turn(5, ["reed", "write"])];
    same(turns, [turn(4, ["reed", "write"])]);
  });
});

/** The body as it is, or with what clients do to one: a member in front, behind, or away; a message edited. */
function varied(body: Buffer, random: Random): Buffer {
  const value = JSON.parse(body.toString()) as Record<string, unknown>;
  switch (random.below(8)) {
    case 0:
      return Buffer.from(JSON.stringify({ temperature: 1, ...value }));
    case 1:
      return Buffer.from(JSON.stringify({ ...value, metadata: { user_id: "u".repeat(random.below(900)) } }));
    case 2:
      return Buffer.from(JSON.stringify(Object.fromEntries(Object.entries(value).reverse())));
    case 3: {
      const text = body.toString();
      return Buffer.from(text.replaceAll('"toolu_', '"tool_').replace('"name":"', '"name":"x'));
    }
    case 4: {
      const list = (value["messages"] ?? value["input"]) as unknown[];
      if (Array.isArray(list)) list.splice(random.below(list.length), 1);
      return Buffer.from(JSON.stringify(value));
    }
    case 5: {
      // What is listed changes, its length does not.
      const places = [...body.toString("latin1").matchAll(/"(?:user|text|type)"/g)];
      const changed = Buffer.from(body);
      if (places.length > 0) changed[random.pick(places).index + 2] = 0x5f;
      return changed;
    }
    default:
      return body;
  }
}
