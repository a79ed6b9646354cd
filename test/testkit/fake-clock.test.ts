import assert from "node:assert/strict";
import test from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { FakeClock, installHost, runPlugin } from "@tokenman/plugin-sdk/testkit";
import { testHost } from "../../cli/test-host.ts";

installHost(testHost);

test("timers fire in the order in which they are due, each at its time", async () => {
  using clock = new FakeClock({ now: 1_000 });
  const seen: [string, number][] = [];
  const note = (name: string) => () => void seen.push([name, Date.now()]);
  setTimeout(note("late"), 300);
  setInterval(note("every"), 100);
  const cleared = setTimeout(note("never"), 50);
  clearTimeout(cleared);
  setTimeout(() => setTimeout(note("nested"), 20), 10);
  const began = performance.now();
  await clock.advance(299);
  assert.deepEqual(seen, [
    ["nested", 1_030],
    ["every", 1_100],
    ["every", 1_200],
  ]);
  await clock.advance(1);
  assert.deepEqual(seen.slice(3).sort(), [
    ["every", 1_300],
    ["late", 1_300],
  ]);
  assert.equal(Math.round(performance.now() - began), 300);
  assert.equal(new Date().toISOString(), "1970-01-01T00:00:01.300Z");
  assert.equal(new Date(5).getTime(), 5);
  assert.equal(clock.pending, 1);
});

test("what a timer set off runs before the next one", async () => {
  using clock = new FakeClock();
  const seen: string[] = [];
  setTimeout(async () => {
    await Promise.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    seen.push("first's work");
  }, 1);
  setTimeout(() => seen.push("second"), 2);
  await clock.advance(2);
  assert.deepEqual(seen, ["first's work", "second"]);
});

test("a refreshed timer starts anew, a jump of the wall clock fires nothing, and the real clock comes back", async () => {
  const real = setTimeout;
  {
    using clock = new FakeClock({ now: 0 });
    let fired = 0;
    const timer = setTimeout(() => fired++, 100);
    await clock.advance(60);
    timer.unref().refresh();
    await clock.advance(60);
    clock.jump(-10_000);
    assert.equal(Date.now(), -9_880);
    assert.equal(fired, 0);
    await clock.advance(40);
    assert.equal(fired, 1);
    assert.throws(() => new FakeClock(), /already/);
  }
  assert.equal(setTimeout, real);
  assert.ok(new Date().getUTCFullYear() > 2000);
});

test("it drives a plugin's `every`, and the time-out of its hooks", async () => {
  using clock = new FakeClock();
  let runs = 0;
  const plugin = definePlugin({
    name: "sloth",
    version: "1.0.0",
    apiVersion: 1,
    timeouts: { hookMs: 1_000 },
    onError: "closed",
    setup(ctx) {
      ctx.every("count", 60_000, () => void runs++);
      ctx.pipeline((_config, hooks) => hooks.request.tap(() => new Promise(() => {})));
    },
  });
  await using run = await runPlugin(plugin);
  await clock.advance(180_000);
  assert.equal(runs, 3);
  const sent = run.send({ path: "/v1/messages", body: { model: "m", messages: [] } });
  await clock.advance(1_000);
  const { outcome } = await sent;
  assert.equal(outcome.code, "TM_PLUGIN_TIMEOUT");
});
