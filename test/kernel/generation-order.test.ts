import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { optional, type PluginDefinition, service } from "@tokenman/plugin-sdk";
import { orderPlugins } from "../../kernel/generation/order.ts";
import { planGeneration } from "../../kernel/generation/plan.ts";
import type { LoadedPlugin, LoadResult } from "../../kernel/load/index.ts";
import { build, config, loaded, plugin, problemsOf } from "./support/generations.ts";

type Stage = PluginDefinition["stage"];
const Ledger = service<object>("Ledger");
const Pricing = service<object>("Pricing");
const Tokens = service<object>("Tokens");

function entry(name: string, stage: Stage, listed: boolean): LoadedPlugin {
  const from = listed ? "[plugins] order" : "plugins.dir";
  return {
    plugin: plugin(name, stage === undefined ? {} : { stage }),
    source: "built in",
    listed,
    from,
    inputs: [],
  };
}
function names(plugins: readonly LoadedPlugin[]): string[] {
  return plugins.map((each) => each.plugin.name);
}
async function plan(load: LoadResult, toml = "") {
  return planGeneration(load, await config(toml, load));
}
function problems(from: Awaited<ReturnType<typeof plan>>): string[] {
  return from.problems.map(({ code, message }) => `${code} ${message}`);
}

describe("the order", () => {
  it("is the list's, also where that inverts stages; a warning suggests another", () => {
    const { plugins, warnings, suggested } = orderPlugins([
      entry("rules", "shape", true),
      entry("extra", undefined, true),
      entry("cache", "lookup", true),
      entry("pii", "guard", true),
      entry("trace", "ingress", true),
    ]);
    assert.deepEqual(names(plugins), ["rules", "extra", "cache", "pii", "trace"]);
    assert.deepEqual(suggested, ["trace", "cache", "pii", "rules", "extra"]);
    assert.deepEqual(warnings, [
      '[plugins] order puts "rules" (stage shape) before "cache" (stage lookup)',
      '[plugins] order puts "pii" (stage guard) before "trace" (stage ingress)',
      'stages run ingress, lookup, guard, admit, shape, route; suggested order: ["trace","cache","pii","rules","extra"]',
    ]);
  });

  it("places what no list names before the first one of a later stage", () => {
    const { plugins, warnings } = orderPlugins([
      entry("cache", "lookup", true),
      entry("pii", "guard", true),
      entry("rules", "shape", true),
      entry("router", "route", false),
      entry("zeta", "guard", false),
      entry("alpha", "guard", false),
      entry("trace", "ingress", false),
      entry("mine", undefined, false),
    ]);
    assert.deepEqual(names(plugins), ["trace", "cache", "pii", "alpha", "zeta", "rules", "mine", "router"]);
    assert.deepEqual(warnings, []);
  });
});

it("places an unlisted guard before all that comes later, also where the list inverts stages", () => {
  const { plugins } = orderPlugins([
    entry("rules", "shape", true),
    entry("cache", "lookup", true),
    entry("pii", "guard", false),
    entry("router", "route", false),
  ]);
  assert.deepEqual(names(plugins), ["pii", "rules", "cache", "router"]);
});

describe("set-up order", () => {
  it("has providers before those who need them, and is the request's order otherwise", async () => {
    const load = loaded(
      plugin("budget", { needs: { ledger: Ledger, pricing: optional(Pricing) } }),
      plugin("trace"),
      plugin("prices", { provides: [Pricing], needs: { tokens: Tokens } }),
      plugin("ledger", { provides: [Ledger] }),
      plugin("tokens", { provides: [Tokens] }),
    );
    const { dependencies, order } = await plan(load);
    assert.deepEqual(names(dependencies.setupOrder), ["trace", "ledger", "tokens", "prices", "budget"]);
    assert.deepEqual(names(order), ["budget", "trace", "prices", "ledger", "tokens"]);
  });

  it("gives up an optional need in a circle, says so, and gives up none of one that only waits behind it", async () => {
    const load = loaded(
      plugin("x", { needs: { b: optional(Pricing) } }),
      plugin("a", { needs: { b: Pricing }, provides: [Ledger] }),
      plugin("b", { needs: { a: optional(Ledger) }, provides: [Pricing] }),
    );
    const { dependencies, problems } = await plan(load);
    assert.deepEqual(problems, []);
    assert.deepEqual(names(dependencies.setupOrder), ["b", "x", "a"]);
    assert.deepEqual(dependencies.warnings, [
      '"b" is set up without Ledger@1, which it can do without: "a", which provides it, needs "b" first',
    ]);
  });

  it("names every member of a circle of strict needs, and every circle", async () => {
    const load = loaded(
      plugin("a", { needs: { x: Pricing }, provides: [Ledger] }),
      plugin("b", { needs: { x: Tokens }, provides: [Pricing] }),
      plugin("c", { needs: { x: Ledger }, provides: [Tokens] }),
      plugin("d", { needs: { x: service("Self") }, provides: [service("Self")] }),
    );
    assert.deepEqual(problems(await plan(load)), [
      'TM_SERVICE_CYCLE "a" needs Pricing@1 of "b", "b" needs Tokens@1 of "c", "c" needs Ledger@1 of "a": none of them can be set up first',
      'TM_SERVICE_CYCLE "d" needs Self@1 of "d": none of them can be set up first',
    ]);
  });
});

describe("a service", () => {
  it("that is missing is told with who would provide it, or another version, or the nearest", async () => {
    const load = loaded(
      plugin("one", { needs: { ledger: Ledger } }),
      plugin("two", { needs: { pricing: service("Pricing", 2) } }),
      plugin("three", { needs: { tokens: service("Token") } }),
      plugin("four", { needs: { state: service("State"), maybe: optional(service("Other")) } }),
      plugin("ledger", { provides: [Ledger], section: "ledger" }),
      plugin("prices", { provides: [Pricing] }),
      plugin("tokens", { provides: [Tokens] }),
    );
    assert.deepEqual(problems(await plan(load, "[ledger]\nenabled = false")), [
      'TM_SERVICE_MISSING plugin "one" needs service Ledger@1: "ledger" provides it, and is off: [ledger] enabled is false',
      'TM_SERVICE_MISSING plugin "two" needs service Pricing@2: "prices" provides Pricing@1, another major version',
      'TM_SERVICE_MISSING plugin "three" needs service Token@1: no loaded plugin provides it; the nearest is Tokens@1 of "tokens"',
      'TM_SERVICE_MISSING plugin "four" needs service State@1: no loaded plugin provides it',
    ]);
  });

  it("that two provide is told with both, unless one of them is off", async () => {
    const load = loaded(
      plugin("one", { provides: [Ledger], section: "one" }),
      plugin("two", { provides: [service("Ledger")] }),
    );
    assert.deepEqual(problems(await plan(load)), [
      'TM_SERVICE_DUPLICATE service Ledger@1 is provided twice: by "one" and by "two"; turn one of them off',
    ]);
    assert.deepEqual(problems(await plan(load, "[one]\nenabled = false")), []);
  });
});

it("tells the problems of loading and of planning together, and sets nothing up", async () => {
  let setups = 0;
  const setup = () => {
    setups++;
  };
  const good = loaded(
    plugin("fine", { setup }),
    plugin("needy", { setup, needs: { x: Ledger } }),
    plugin("p1", { provides: [Pricing] }),
    plugin("p2", { provides: [Pricing] }),
  );
  const found = await problemsOf(build(good));
  assert.deepEqual(
    found.map((each) => each.split(" ")[0]),
    ["TM_SERVICE_DUPLICATE", "TM_SERVICE_MISSING"],
  );
  assert.equal(setups, 0);
});
