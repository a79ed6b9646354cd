import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import {
  AttemptPolicy,
  type Hooks,
  optional,
  type PluginDefinition,
  type SetupContext,
  service,
} from "@tokenman/plugin-sdk";
import {
  type Explanation,
  explain,
  explainPlan,
  explanationText,
  planGeneration,
} from "../../kernel/generation/index.ts";
import { golden } from "../support/golden.ts";
import { build, config, folder, loadFrom, plugin, registryOf, source } from "./support/generations.ts";

const Ledger = service<object>("Ledger");

/** A plugin that taps these hooks and provides what it declares. */
function tapping(name: string, more: Partial<PluginDefinition>, ...hooks: (keyof Hooks | "settled")[]) {
  const setup = ({ pipeline, provide, contribute }: SetupContext<unknown, never>) => {
    for (const token of more.provides ?? []) provide(token, {});
    if (name === "health") {
      contribute("route", { port: "both", method: "GET", path: "/health", handle() {} });
      contribute("health", { name: "database", required: true, check: () => ({ ok: true }) });
    }
    pipeline((_, { request, beforeUpstream, response, lifecycle }) => {
      if (hooks.includes("request")) request.tap(() => {});
      if (hooks.includes("beforeUpstream")) beforeUpstream.tap(() => {});
      if (hooks.includes("response")) response.tap(() => {});
      if (hooks.includes("settled")) lifecycle.for("settled").tap(() => {});
    });
  };
  return plugin(name, { ...more, setup: setup as never });
}

const registry = registryOf(
  [
    tapping(
      "access-log",
      { stage: "ingress", section: "access_log", needs: { ledger: optional(Ledger) } },
      "settled",
    ),
    tapping("ledger", { stage: "ingress", section: "ledger", provides: [Ledger] }, "settled"),
    tapping("cache", { stage: "lookup", section: "cache" }, "request", "response"),
    tapping("pii", { stage: "guard", section: "security.pii", onError: "closed" }, "request", "response"),
    tapping(
      "budget",
      { stage: "admit", section: "security.budget", onError: "closed", needs: { ledger: Ledger } },
      "request",
      "beforeUpstream",
      "settled",
    ),
    tapping("rules", { stage: "shape", section: "compression.rules" }, "request"),
    tapping("retry", { stage: "route", section: "resilience", provides: [AttemptPolicy] }),
    tapping("router", { stage: "route", section: "routing" }, "request"),
    tapping("health", { stage: "ingress" }),
  ],
  ["router", "health"],
);

const HEADER = source(
  "add-header",
  `stage: "shape", setup(ctx) { ctx.pipeline((config, hooks) => hooks.beforeUpstream.tap(() => {})); }`,
).replace("setup() {}, ", "");

async function load(t: TestContext, order?: readonly string[]) {
  const root = await folder(t, { "plugins/add-header.ts": HEADER, "plugins/shared/util.ts": "" });
  const result = await loadFrom(join(root, "cache"), { registry, order, dir: join(root, "plugins") });
  return { root, result };
}

/** Compares with the golden files, the text and the JSON that it was made of. */
async function compare(name: string, explanation: Explanation, root: string): Promise<void> {
  const json = JSON.stringify(explanation, null, 2).replaceAll(root, "/home/me/.tokenman");
  await golden(`explain/${name}.txt`, explanationText(JSON.parse(json)));
  await golden(`explain/${name}.json`, json);
}

describe("plugins --explain", () => {
  it("shows the default pipeline", async (t) => {
    const { root, result } = await load(t);
    const generation = await build(result, { toml: "[security.budget]\nenabled = false\n" });
    await compare("made-up-default", explain(generation), root);
  });

  it("shows a project's pipeline, with why plugins are off for it, and a quarantined one", async (t) => {
    const { root, result } = await load(t, ["access-log", "ledger", "cache", "pii", "budget", "rules"]);
    const toml = '[projects.work]\ndisable = ["cache"]\n[projects.work.compression.rules]\nenabled = false\n';
    const generation = await build(result, { id: 3, toml });
    const pii = generation.pipelineFor("work").plugins.find(({ name }) => name === "pii");
    assert.ok(pii);
    pii.failures = 12;
    pii.quarantined = "10 failures in a row, the last in request: no such pattern";
    await compare("made-up-project", explain(generation, "work"), root);
    const unknown = explain(generation, "play");
    assert.equal(unknown.known, false);
    assert.deepEqual(unknown.hooks, explain(generation).hooks);
    assert.match(
      explanationText(unknown),
      /^Project play \(not in the config: it is served like the default project\), generation 3/,
    );
  });

  it("shows a broken order with its problems and a suggestion, without setting anything up", async (t) => {
    const { root, result } = await load(t, ["access-log", "rules", "cache", "budget", "pii", "ledgr"]);
    const plan = planGeneration(result, await config("", result));
    await compare("made-up-problems", explainPlan(plan, await config("", result)), root);
  });
});
