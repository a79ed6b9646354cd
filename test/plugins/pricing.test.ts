import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Price, PriceQuery, Pricing, Usage } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { Catalogue } from "../../plugins/pricing/catalogue.ts";
import { spellings } from "../../plugins/pricing/names.ts";
import { decimal, type Rational, ratio, rounded, times } from "../../plugins/pricing/rational.ts";
import { pricing } from "../support/pricing.ts";

const NOW = Date.parse("2026-11-20T12:00:00Z");
const catalogue = await pricing();

function query(model: string, provider = "anthropic", format = provider, at = NOW): PriceQuery {
  return { model, provider, format, at };
}

function usage(figures: Partial<Usage> = {}): Usage {
  return {
    source: "provider",
    inputTokens: 0,
    cacheReadTokens: 0,
    cacheWrite5mTokens: 0,
    cacheWrite1hTokens: 0,
    outputTokens: 0,
    reasoningTokens: 0,
    serverTools: {},
    serviceTier: undefined,
    model: undefined,
    complete: true,
    ...figures,
  };
}

/** The price of a million input tokens in USD, or why there is none. */
function inputUsd(pricing: Pricing, asked: PriceQuery, figures: Partial<Usage> = {}): number | string {
  const price = pricing.price(asked, usage({ inputTokens: 1000, ...figures }));
  return price.priced ? price.cost.input / 1_000_000 : price.reason;
}

function total(price: Price): number {
  assert.ok(price.priced, JSON.stringify(price));
  return price.cost.total;
}

describe("pricing: model names", () => {
  const cases: readonly (readonly [model: string, provider: string, format: string, usd: number])[] = [
    ["claude-opus-4-5", "anthropic", "anthropic", 5],
    ["claude-opus-4-5-20251101", "anthropic", "anthropic", 5],
    ["claude-opus-4-5-latest", "anthropic", "anthropic", 5],
    ["Claude-Opus-4-5", "anthropic", "anthropic", 5],
    ["claude-opus-5-5[1m]", "anthropic", "anthropic", 4],
    ["anthropic/claude-opus-4-5", "a-gateway", "openai", 5],
    ["anthropic/claude-opus-4.5", "openrouter", "openai", 5],
    ["claude-opus-4-5@20251101", "vertex", "anthropic", 5],
    ["publishers/anthropic/models/claude-opus-4-5@20251101", "vertex", "anthropic", 5],
    ["global.anthropic.claude-opus-4-5-20251101-v1:0", "my-bedrock", "anthropic", 5],
    // Bedrock's regional endpoints cost a tenth more.
    ["us.anthropic.claude-opus-4-5-20251101-v1:0", "my-bedrock", "anthropic", 5.5],
    ["claude-3-5-haiku-20241022", "anthropic", "anthropic", 0.8],
    ["gpt-5-mini-2025-08-07", "openai", "openai", 0.25],
    ["gpt-5-chat-latest", "openai", "openai", 1.25],
    ["openai/gpt-4o", "a-gateway", "openai", 2.5],
    // A snapshot without a price of its own costs what its family does; one with its own keeps it.
    ["gpt-5.4-2027-01-31", "openai", "openai", 2.5],
    ["gpt-4o-2024-05-13", "openai", "openai", 5],
    ["ft:gpt-4o-mini-2024-07-18:acme::abc", "openai", "openai", 0.3],
  ];
  for (const [model, provider, format, usd] of cases) {
    it(`prices ${model} of ${provider} at $${usd} per million`, () => {
      assert.equal(inputUsd(catalogue, query(model, provider, format)), usd);
    });
  }

  for (const [model, provider, format] of [
    ["mock", "mock", "openai"],
    ["mock-slow", "mock", "anthropic"],
    // A later version is not the one that its name begins with.
    ["claude-sonnet-5-5", "anthropic", "anthropic"],
    // Weights that anybody may run have no price without a known host.
    ["gpt-oss-120b", "localhost", "openai"],
    // Billed by the hour of audio.
    ["whisper-1", "openai", "openai"],
    ["", "openai", "openai"],
    ["x".repeat(5000), "openai", "openai"],
    ["__proto__", "constructor", "openai"],
  ] as const) {
    it(`knows no price of ${model.slice(0, 30) || "an empty name"}, and says so`, () => {
      const price = catalogue.price(query(model, provider, format), usage({ inputTokens: 1 }));
      assert.ok(!price.priced);
      assert.match(price.reason, /catalogue does not know the model/);
      assert.ok(price.reason.length < 200);
      assert.equal(catalogue.rates(query(model, provider, format)), undefined);
    });
  }

  it("prices the model that answered, not the one asked for", () => {
    assert.equal(inputUsd(catalogue, query("claude-opus-4-5"), { model: "claude-haiku-4-5" }), 1);
    assert.equal(typeof inputUsd(catalogue, query("claude-opus-4-5"), { model: "claude-nobody" }), "string");
  });

  it("takes frames off a name one by one", () => {
    assert.deepEqual(spellings("vendor/us.anthropic.claude-opus-4-5-20251101-v1:0"), [
      "vendor/us.anthropic.claude-opus-4-5-20251101-v1:0",
      "us.anthropic.claude-opus-4-5-20251101-v1:0",
      "claude-opus-4-5-20251101-v1:0",
      "claude-opus-4-5-20251101",
      "claude-opus-4-5",
    ]);
  });
});

describe("pricing: how a reply was served", () => {
  const opus = query("claude-opus-4-8");
  const gpt = (model: string) => query(model, "openai");
  const cases: readonly (readonly [string, PriceQuery, Partial<Usage>, number | RegExp])[] = [
    ["batch is half", opus, { serviceTier: "batch" }, 2.5],
    ["flex is half", gpt("gpt-5"), { serviceTier: "flex" }, 0.625],
    ["priority of GPT-5.5 is 2.5 times", gpt("gpt-5.5"), { serviceTier: "priority" }, 12.5],
    ["fast is priority's new name", gpt("gpt-5.4"), { serviceTier: "fast" }, 5],
    [
      "an old snapshot has its own priority price",
      gpt("gpt-4o-2024-05-13"),
      { serviceTier: "priority" },
      8.75,
    ],
    ["auto and default are ordinary", gpt("gpt-5"), { serviceTier: "default" }, 1.25],
    [
      "a model that is not offered there",
      gpt("gpt-5.4-nano"),
      { serviceTier: "priority" },
      /no public price/,
    ],
    ["scale is a contract", gpt("gpt-5"), { serviceTier: "scale" }, /no public price/],
    [
      "a long input is not served there",
      gpt("gpt-5.4"),
      { serviceTier: "priority", inputTokens: 300_000 },
      /no public/,
    ],
    ["Anthropic's priority is a commitment", opus, { serviceTier: "priority" }, /paid by commitment/],
    ["Claude has no flex", opus, { serviceTier: "flex" }, /no public price/],
    ["fast mode of Opus 4.8 is double", opus, { speed: "fast" }, 10],
    ["fast mode of Opus 4.6 is sixfold", query("claude-opus-4-6"), { speed: "fast" }, 30],
    ["fast mode elsewhere is unknown", query("claude-haiku-4-5"), { speed: "fast" }, /speed "fast"/],
    ["the US alone costs a tenth more", opus, { region: "us" }, 5.5],
    ["but not with older models", query("claude-opus-4-5"), { region: "us" }, 5],
    ["anywhere is ordinary", opus, { region: "global" }, 5],
    ["an unknown region is unknown", opus, { region: "mars" }, /region "mars"/],
  ];
  for (const [name, asked, figures, expected] of cases) {
    it(name, () => {
      const found = inputUsd(catalogue, asked, figures);
      if (typeof expected === "number") assert.equal(found, expected);
      else assert.match(String(found), expected);
    });
  }

  it("bills all of a request as long once its input, cached tokens included, is beyond the bound", () => {
    const asked = query("claude-sonnet-4-5");
    // 200,000 tokens are not beyond it.
    assert.equal(
      total(catalogue.price(asked, usage({ inputTokens: 1, cacheReadTokens: 199_999 }))),
      3_000 + 199_999 * 300,
    );
    assert.equal(
      total(catalogue.price(asked, usage({ inputTokens: 1, cacheReadTokens: 200_000 }))),
      6_000 + 200_000 * 600,
    );
  });

  it("prices at the time of use", () => {
    assert.equal(
      inputUsd(catalogue, query("o3", "openai", "openai", Date.parse("2025-06-09T23:59:59Z"))),
      10,
    );
    assert.equal(inputUsd(catalogue, query("o3", "openai", "openai", Date.parse("2025-06-10T00:00:00Z"))), 2);
  });

  it("refuses to leave a tool out of the bill", () => {
    const price = catalogue.price(query("claude-opus-4-5"), usage({ serverTools: { teleport_requests: 1 } }));
    assert.ok(!price.priced && price.reason.includes("teleport_requests"));
    assert.equal(
      total(catalogue.price(query("claude-opus-4-5"), usage({ serverTools: { teleport_requests: 0 } }))),
      0,
    );
  });

  for (const [name, count] of [
    ["a fraction", 0.5],
    ["a negative count", -1],
    ["infinity", Number.POSITIVE_INFINITY],
    ["a count beyond exact integers", 2 ** 53],
  ] as const) {
    it(`does not price ${name}`, () => {
      assert.equal(catalogue.price(query("claude-opus-4-5"), usage({ outputTokens: count })).priced, false);
    });
  }

  it("does not give a cost that a number cannot hold exactly", () => {
    const price = catalogue.price(query("claude-opus-4-5"), usage({ outputTokens: 2 ** 52 }));
    assert.ok(!price.priced && price.reason.includes("beyond"));
  });
});

describe("pricing: rates for estimates", () => {
  it("are nano-dollars a token", () => {
    assert.deepEqual(catalogue.rates(query("claude-opus-4-5")), {
      input: 5000,
      cacheRead: 500,
      cacheWrite5m: 6250,
      cacheWrite1h: 10000,
      output: 25000,
    });
  });

  it("follow the conditions", () => {
    assert.equal(catalogue.rates(query("claude-sonnet-4-5"), { inputTokens: 300_000 })?.output, 22_500);
    assert.equal(catalogue.rates(query("o4-mini", "openai"), { serviceTier: "flex" })?.cacheRead, 137.5);
    assert.equal(catalogue.rates(query("claude-opus-4-8"), { serviceTier: "priority" }), undefined);
  });
});

describe("pricing: the config's prices", () => {
  const section = {
    mock: { input: 0, output: 0 },
    "mock-*": { input: 1, output: 2 },
    "claude-opus-4-5": { input: 4, output: 20, tools: { web_search_requests: 7.5 } },
    "gateway/claude-opus-4-5": { input: 3, output: 15, cache_write_1h: 5 },
    "our-llama": {
      input: 0.1,
      output: 0.3,
      cache_read: 0.01,
      tiers: [{ above: 100_000, input: 0.2, output: 0.6 }],
      service_tiers: { priority: 3 },
    },
  };

  it("replace the catalogue's as a whole, dated names included", async () => {
    const own = await pricing(section);
    const price = own.price(
      query("claude-opus-4-5-20251101"),
      usage({
        inputTokens: 10,
        cacheReadTokens: 10,
        cacheWrite1hTokens: 10,
        serverTools: { web_search_requests: 2 },
      }),
    );
    assert.ok(price.priced);
    assert.equal(price.source, "config");
    assert.equal(price.model, "claude-opus-4-5");
    // Anthropic's factors fill in what is not set: reads 0.1 times, writes of an hour 2 times the input.
    assert.deepEqual(price.cost, {
      input: 40_000,
      cacheRead: 4_000,
      cacheWrite5m: 0,
      cacheWrite1h: 80_000,
      output: 0,
      serverTools: 15_000_000,
      total: 15_124_000,
    });
  });

  it("may be those of one provider", async () => {
    const own = await pricing(section);
    assert.equal(inputUsd(own, query("claude-opus-4-5", "gateway", "anthropic")), 3);
    assert.equal(inputUsd(own, query("claude-opus-4-5", "elsewhere", "anthropic")), 4);
  });

  it("may name a family; the longer pattern, and the exact name first, count", async () => {
    const own = await pricing({ ...section, "*": { input: 9, output: 9 } });
    assert.equal(inputUsd(own, query("mock-slow", "mock", "openai")), 1);
    assert.equal(inputUsd(own, query("mock", "mock", "openai")), 0);
    assert.equal(inputUsd(own, query("whatever", "mock", "openai")), 9);
  });

  it("may make a model free in so many words", async () => {
    const own = await pricing(section);
    const price = own.price(query("mock", "mock", "openai"), usage({ inputTokens: 5, outputTokens: 5 }));
    assert.ok(price.priced && price.cost.total === 0 && price.source === "config");
  });

  it("have long inputs and service tiers of their own", async () => {
    const own = await pricing(section);
    const asked = query("our-llama", "here", "openai");
    assert.equal(total(own.price(asked, usage({ inputTokens: 100_000 }))), 10_000_000);
    assert.equal(total(own.price(asked, usage({ inputTokens: 100_001 }))), 20_000_200);
    assert.equal(total(own.price(asked, usage({ outputTokens: 1, serviceTier: "priority" }))), 900);
  });

  it("are refused where they make no sense", async () => {
    await assert.rejects(pricing({ model: { input: -1, output: 1 } }));
    await assert.rejects(pricing({ model: { input: 1 } }));
    await assert.rejects(pricing({ model: { input: 1, output: 1, speed: 2 } }));
  });
});

describe("pricing: arithmetic", () => {
  it("reads decimals as they were written", () => {
    const fraction = (value: number): readonly bigint[] => [
      decimal(value).numerator,
      decimal(value).denominator,
    ];
    assert.deepEqual(fraction(0.1), [1n, 10n]);
    assert.deepEqual(fraction(1e-7), [1n, 10_000_000n]);
    assert.deepEqual(fraction(1.5e21), [1_500_000_000_000_000_000_000n, 1n]);
    assert.deepEqual(fraction(0), [0n, 1n]);
    for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY])
      assert.throws(() => decimal(bad), RangeError);
  });

  it("rounds halves away from zero, and only once", () => {
    assert.equal(rounded(1, decimal(0.5)), 1);
    assert.equal(rounded(3, decimal(0.5)), 2);
    assert.equal(rounded(1, decimal(0.49)), 0);
    assert.equal(rounded(3, ratio(1n, 3n)), 1);
    assert.equal(rounded(1_000_000_007, times(decimal(0.075), decimal(1000))), 75_000_000_525);
  });

  it("is the same in numbers as in big integers", () => {
    const random = new Random(7);
    const exactly = (count: number, rate: Rational): number =>
      Number((2n * BigInt(count) * rate.numerator + rate.denominator) / (2n * rate.denominator));
    for (let round = 0; round < 20_000; round++) {
      const count = Math.floor(2 ** (random.next() * 50));
      const size = 2 ** (1 + random.next() * 36);
      const rate = ratio(
        BigInt(Math.floor(random.next() * size)),
        BigInt(1 + Math.floor(random.next() * size)),
      );
      assert.equal(
        rounded(count, rate),
        exactly(count, rate),
        `${count} times ${rate.numerator}/${rate.denominator}`,
      );
    }
    // Just below, at and above a half, where a quotient's last bit decides.
    for (const count of [1, 3, 999_999_937, 2 ** 31 - 1]) {
      for (const denominator of [2n, 3n, 1_000_000n, (1n << 30n) - 1n]) {
        const half = (BigInt(count) * denominator) / 2n;
        for (const numerator of [half - 1n, half, half + 1n]) {
          const rate = ratio(numerator < 0n ? 0n : numerator, denominator * BigInt(count));
          assert.equal(rounded(count, rate), exactly(count, rate));
        }
      }
    }
  });
});

describe("pricing: the catalogue", () => {
  it("is loaded at the first question, and remembers the answers", async () => {
    let loads = 0;
    let questions = 0;
    const { calcPrice } = await import("@pydantic/genai-prices");
    const lazy = new Catalogue(() => {
      loads++;
      return {
        calcPrice(...args: Parameters<typeof calcPrice>) {
          questions++;
          return calcPrice(...args);
        },
      } as never;
    });
    assert.equal(loads, 0);
    const first = lazy.find("claude-opus-4-5", "anthropic", "anthropic", NOW);
    const asked = questions;
    assert.equal(lazy.find("claude-opus-4-5", "anthropic", "anthropic", NOW + 86_400_000), first);
    assert.deepEqual([loads, questions], [1, asked]);
  });

  it("stays small however many names it is asked for", () => {
    const bounded = new Catalogue(() => ({ calcPrice: () => null }) as never);
    const first = bounded.find("a-0", "x", "openai", NOW);
    for (let index = 1; index <= 2_000; index++) bounded.find(`a-${index}`, "x", "openai", NOW);
    assert.notEqual(bounded.find("a-0", "x", "openai", NOW), first);
  });

  it("treats an entry that does not hold together as unknown", () => {
    const broken = new Catalogue(
      () =>
        ({
          calcPrice() {
            throw new Error("Missing ancestor price key");
          },
        }) as never,
    );
    assert.ok("reason" in broken.find("claude-opus-4-5", "anthropic", "anthropic", NOW));
  });
});
