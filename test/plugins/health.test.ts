import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { describe, test } from "node:test";
import { definePlugin, type HealthCheck, type Route, type RouteContext } from "@tokenman/plugin-sdk";
import health from "../../plugins/health/index.ts";
import { runKernel } from "../support/running-kernel.ts";

/** A plugin that contributes these checks. */
function checks(...all: HealthCheck[]) {
  return definePlugin({
    name: "checks",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      for (const check of all) ctx.contribute("health", check);
    },
  });
}

async function ask(url: string, init?: RequestInit) {
  const reply = await fetch(url, init);
  const text = (await reply.text()).trimEnd();
  return { status: reply.status, text, json: text === "" ? undefined : JSON.parse(text) };
}

describe("health", () => {
  test("answers on both ports, to GET and HEAD, and without the token where one is demanded", async () => {
    await using running = await runKernel(
      [health],
      '[auth]\nenabled = true\nproxy = true\ntoken = "secret"\n',
    );
    for (const base of [running.proxy, running.dashboard]) {
      assert.deepEqual(await ask(`${base}/health`), {
        status: 200,
        text: '{"status":"ok"}',
        json: { status: "ok" },
      });
      assert.deepEqual(await ask(`${base}/health`, { method: "HEAD" }), {
        status: 200,
        text: "",
        json: undefined,
      });
      assert.equal((await ask(`${base}/health/ready`)).json.status, "ok");
      assert.equal((await ask(`${base}/health/ready`, { method: "HEAD" })).status, 200);
    }
    for (const path of ["/api/status", "/api/plugins"]) {
      assert.equal((await ask(running.dashboard + path)).status, 401);
      const headers = { authorization: "Bearer secret" };
      assert.equal((await ask(running.dashboard + path, { headers })).status, 200);
    }
    assert.equal((await ask(`${running.dashboard}/api/reload`, { method: "POST" })).status, 401);
  });

  test("is ready as long as every required check is; the others are only told", async () => {
    let required = true;
    await using running = await runKernel([
      health,
      checks(
        { name: "db", required: true, check: () => ({ ok: required, detail: "two readers" }) },
        { name: "extra", required: false, check: async () => ({ ok: false }) },
        {
          name: "broken",
          required: false,
          check: () => {
            throw new Error("no such table");
          },
        },
      ),
    ]);
    const good = await ask(`${running.proxy}/health/ready`);
    assert.equal(good.status, 200);
    assert.deepEqual(good.json, {
      status: "ok",
      version: "0.0.0-test",
      bootId: running.kernel.bootId,
      generation: 1,
      lastReload: null,
      checks: [
        { name: "db", required: true, ok: true, detail: "two readers" },
        { name: "extra", required: false, ok: false },
        { name: "broken", required: false, ok: false, detail: "no such table" },
      ],
    });
    required = false;
    const bad = await ask(`${running.dashboard}/health/ready`);
    assert.equal(bad.status, 503);
    assert.equal(bad.json.status, "failing");
    assert.equal((await ask(`${running.proxy}/health`)).status, 200, "it lives all the same");
  });

  test("a check that never ends has failed, and holds up nothing but the answer", async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const routes: Route[] = [];
    const stuck: HealthCheck = { name: "stuck", required: true, check: () => new Promise<never>(() => {}) };
    const fine: HealthCheck = { name: "fine", required: true, check: () => ({ ok: true }) };
    health.setup({
      host: {
        registry: { all: () => [stuck, fine] },
        status: () => ({ generation: 1, lastReload: undefined, draining: false }),
      },
      contribute: (_kind: string, route: Route) => void routes.push(route),
    } as unknown as Parameters<typeof health.setup>[0]);
    const ready = routes.find(({ path, method }) => path === "/health/ready" && method === "GET");
    const answers: [status: number, report: { readonly checks: unknown[] }][] = [];
    const answer = ready?.handle({
      json: (status: number, value: unknown) => void answers.push([status, value as never]),
    } as unknown as RouteContext);
    t.mock.timers.tick(1_999);
    assert.equal(answers.length, 0);
    t.mock.timers.tick(1);
    await answer;
    assert.equal(answers.length, 1);
    const [status, report] = answers[0]!;
    assert.equal(status, 503);
    assert.deepEqual(report.checks, [
      { name: "stuck", required: true, ok: false, detail: "no answer within 2000 ms" },
      { name: "fine", required: true, ok: true },
    ]);
  });

  test("reloads when asked; a refused reload leaves it ready and says why", async () => {
    await using running = await runKernel([health]);
    const reload = () => ask(`${running.dashboard}/api/reload`, { method: "POST" });
    const good = await reload();
    assert.equal(good.status, 200);
    assert.deepEqual([good.json.ok, good.json.generation], [true, 2]);

    writeFileSync(running.configFile, "[server]\nproxy_prot = 1\n");
    const bad = await reload();
    assert.equal(bad.status, 422);
    assert.equal(bad.json.ok, false);
    assert.match(bad.json.error, /tokenman\.toml:2:1: TM_CONFIG_UNKNOWN_KEY/);
    const ready = await ask(`${running.proxy}/health/ready`);
    assert.equal(ready.status, 200);
    assert.deepEqual([ready.json.status, ready.json.generation], ["ok", 2]);
    const { json } = await ask(`${running.dashboard}/api/status`);
    assert.equal(json.lastReload.ok, false);
    assert.deepEqual(
      json.plugins.map(({ name, state }: { name: string; state: string }) => [name, state]),
      [["health", "on"]],
    );
  });

  test("tells a reader without the token where a reload failed, and shows nothing of the file", async () => {
    const auth = '[auth]\nenabled = true\ntoken = "secret"\n';
    await using running = await runKernel([health], auth);
    writeFileSync(
      running.configFile,
      `${auth}[server]\nproxy_prot = 1\nallowed_hosts = ["internal.example"]\n`,
    );
    const headers = { authorization: "Bearer secret" };
    const whole = await ask(`${running.dashboard}/api/reload`, { method: "POST", headers });
    assert.match(whole.json.error, /internal\.example/, "who has the token sees the lines around");
    for (const base of [running.proxy, running.dashboard]) {
      const { text, json } = await ask(`${base}/health/ready`);
      const { at, ...lastReload } = json.lastReload;
      assert.deepEqual(lastReload, {
        ok: false,
        generation: 1,
        error: "tokenman.toml:5: TM_CONFIG_UNKNOWN_KEY",
      });
      assert.ok(!text.includes(dirname(running.configFile)), "nor the folder");
    }
    const status = await ask(`${running.dashboard}/api/status`, { headers });
    assert.equal(status.json.lastReload.error, whole.json.error);
  });

  test("does not let a web page of another origin reload", async () => {
    await using running = await runKernel([health]);
    for (const headers of [{ origin: "https://evil.example" }, { "sec-fetch-site": "cross-site" }]) {
      const { status } = await ask(`${running.dashboard}/api/reload`, { method: "POST", headers });
      assert.equal(status, 403);
    }
    assert.equal(running.kernel.status().generation, 1);
  });
});
