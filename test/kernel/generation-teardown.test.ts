import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type RegistryView, TokenmanError } from "@tokenman/plugin-sdk";
import { KeepStore } from "../../kernel/generation/index.ts";
import { build, loaded, memoryLog, problemsOf } from "./support/generations.ts";
import { Ledger, resource, withSetup } from "./support/setups.ts";

describe("tear-down", () => {
  it("gives everything back in reverse, plugin by plugin, when the last lease ends", async () => {
    const events: string[] = [];
    const generation = await build(
      loaded(
        withSetup("user", async (ctx) => void (await resource(ctx, events, "u1")), { needs: { l: Ledger } }),
        withSetup(
          "ledger",
          async (ctx) => {
            await resource(ctx, events, "l1");
            await ctx.keep(
              "db",
              () => events.push("+db"),
              () => void events.push("-db"),
            );
            await resource(ctx, events, "l2");
            ctx.provide(Ledger, { name: "l" });
          },
          { provides: [Ledger] },
        ),
      ),
    );
    assert.deepEqual(events.splice(0), ["+l1", "+db", "+l2", "+u1"]);
    generation.lease();
    generation.lease();
    await generation.retire();
    generation.release();
    assert.deepEqual(events, []);
    generation.release();
    await generation.disposed;
    assert.deepEqual(events, ["-u1", "-l2", "-db", "-l1"]);
    assert.throws(() => generation.lease(), { code: "TM_INTERNAL" });
  });

  const steps = ["e1", "keep", "e2", "every", "provide", "contribute", "e3", "pipeline", "end"] as const;
  for (const [index, step] of steps.entries()) {
    for (const how of ["throws", "hangs"] as const) {
      it(`leaves nothing behind where a setup ${how} before step ${index + 1} (${step})`, async () => {
        const events: string[] = [];
        const keep = new KeepStore();
        let registry: RegistryView | undefined;
        const fail = async (at: (typeof steps)[number]) => {
          if (at !== step) return;
          if (how === "throws") throw new Error(`at ${at}`);
          await new Promise(() => {});
        };
        const broken = withSetup(
          "broken",
          async (ctx) => {
            registry = ctx.host.registry;
            await fail("e1");
            await resource(ctx, events, "e1");
            await fail("keep");
            await ctx.keep(
              "k",
              () => events.push("+k"),
              () => void events.push("-k"),
            );
            await fail("e2");
            await resource(ctx, events, "e2");
            await fail("every");
            ctx.every("tick", 1_000_000, () => {});
            await fail("provide");
            ctx.provide(Ledger, { name: "x" });
            await fail("contribute");
            ctx.contribute("metric", { name: "m", render: () => "" });
            await fail("e3");
            await resource(ctx, events, "e3");
            await fail("pipeline");
            ctx.pipeline(() => {});
            await fail("end");
          },
          { provides: [Ledger], timeouts: { setupMs: how === "hangs" ? 20 : 10_000 } },
        );
        const before = withSetup("before", async (ctx) => void (await resource(ctx, events, "before")));
        const said = how === "throws" ? `its setup failed: at ${step}` : /its setup did not end in 20 ms/;
        const [problem] = await problemsOf(build(loaded(before, broken), { keep }));
        assert.match(
          problem!,
          how === "throws" ? new RegExp(`TM_PLUGIN_SETUP plugin "broken": ${said}`) : (said as RegExp),
        );
        const acquired = events.filter((event) => event.startsWith("+"));
        const released = events.filter((event) => event.startsWith("-"));
        assert.deepEqual(
          released.map((event) => event.slice(1)),
          acquired.map((event) => event.slice(1)).reverse(),
        );
        assert.equal(events[0], "+before");
        assert.equal(events.at(-1), "-before");
        assert.equal(keep.size, 0);
        assert.deepEqual(registry?.all("metric"), []);
      });
    }
  }

  it("disposes of what an abandoned setup still acquires, at once, and lets it acquire nothing more", async () => {
    const events: string[] = [];
    const gate = Promise.withResolvers<void>();
    const refused = Promise.withResolvers<unknown>();
    const kept = Promise.withResolvers<void>();
    const keep = new KeepStore();
    const slow = withSetup(
      "slow",
      async (ctx) => {
        const late = ctx.effect(
          "late",
          () => gate.promise.then(() => events.push("+late")),
          () => void events.push("-late"),
        );
        const lateKeep = ctx.keep(
          "k",
          () => gate.promise.then(() => events.push("+k")),
          () => {
            events.push("-k");
            kept.resolve();
          },
        );
        await late.catch(() => {});
        await lateKeep.catch(() => {});
        await ctx.effect("more", () => assert.fail("acquired")).catch(refused.resolve);
      },
      { timeouts: { setupMs: 20 } },
    );
    await problemsOf(build(loaded(slow), { keep }));
    assert.deepEqual(events, []);
    gate.resolve();
    const error = await refused.promise;
    assert.ok(error instanceof TokenmanError);
    assert.match(error.message, /plugin "slow" asked for "more" after it was torn down/);
    await kept.promise;
    assert.deepEqual(events.sort(), ["+k", "+late", "-k", "-late"]);
  });

  it("goes on where a disposal fails, and says which", async () => {
    const events: string[] = [];
    const log = memoryLog();
    const generation = await build(
      loaded(
        withSetup("a", async (ctx) => {
          await resource(ctx, events, "first");
          await ctx.effect(
            "bad",
            () => 1,
            () => assert.fail("no"),
          );
        }),
      ),
      { log },
    );
    await generation.retire();
    await generation.disposed;
    assert.deepEqual(events, ["+first", "-first"]);
    const [line] = log.lines;
    assert.equal(line?.message, "a resource could not be disposed of");
    assert.deepEqual({ ...line.facts, err: 0 }, { plugin: "a", resource: "bad", err: 0 });
  });

  it("uses a value's own disposal where none is given, and waits for a repeated task's run", async () => {
    const events: string[] = [];
    const started = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const generation = await build(
      loaded(
        withSetup("a", async (ctx) => {
          await ctx.effect("own", () => ({ [Symbol.dispose]: () => void events.push("own") }));
          ctx.every("task", 1, async () => {
            started.resolve();
            await gate.promise;
            events.push("task");
          });
        }),
      ),
    );
    await started.promise;
    const retiring = generation.retire();
    gate.resolve();
    await retiring;
    await generation.disposed;
    assert.deepEqual(events, ["task", "own"]);
  });
});

describe("a repeated task", () => {
  it("does not overlap itself, and goes on after a failure", async () => {
    const log = memoryLog();
    const done = Promise.withResolvers<void>();
    let running = 0;
    let runs = 0;
    const generation = await build(
      loaded(
        withSetup("a", (ctx) =>
          ctx.every("task", 1, async () => {
            assert.equal(++running, 1);
            await new Promise((resolve) => setImmediate(resolve));
            running--;
            if (++runs === 3) done.resolve();
            if (runs === 1) throw new Error("once");
          }),
        ),
      ),
      { log },
    );
    await done.promise;
    await generation.dispose();
    assert.deepEqual(
      log.lines.map(({ message }) => message),
      ["a repeated task failed; it will run again"],
    );
  });
});
