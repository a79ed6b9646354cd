import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { definePlugin, renderMetric } from "@tokenman/plugin-sdk";
import { LabelValues, OTHER } from "../../plugins/metrics/series.ts";
import { startTokenman } from "../support/kernel.ts";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";

// $1 and $10 a million tokens: 1,000 and 10,000 nano-dollars each.
const PRICES = '[pricing."mock"]\ninput = 1\noutput = 10\n';

async function ask(tokenman: Pick<Ledgered, "proxy">, body: object, path = "/v1/messages"): Promise<string> {
  const reply = await fetch(tokenman.proxy + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ max_tokens: 50, messages: [{ role: "user", content: "hello" }], ...body }),
  });
  return reply.text();
}

async function page({ dashboard }: { readonly dashboard: string }): Promise<string> {
  const reply = await fetch(`${dashboard}/metrics`);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  return reply.text();
}

/** The samples of a page by name and labels as they are written. */
async function scrape(tokenman: Ledgered): Promise<Map<string, number>> {
  const lines = (await page(tokenman)).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  );
}

const NAMES = [
  "tokenman_requests_total counter",
  "tokenman_tokens_in_total counter",
  "tokenman_tokens_out_total counter",
  "tokenman_tokens_saved_total counter",
  "tokenman_cost_usd_total counter",
  "tokenman_savings_usd_total counter",
  "tokenman_losses_usd_total counter",
  "tokenman_savings_net_usd gauge",
  "tokenman_savings_percent gauge",
  "tokenman_cache_hits_total counter",
  "tokenman_cache_misses_total counter",
  "tokenman_cache_hit_rate gauge",
  "tokenman_active_requests gauge",
  "tokenman_uptime_seconds gauge",
  "tokenman_errors_total counter",
  "tokenman_request_duration_seconds histogram",
  "tokenman_provider_requests_total counter",
  "tokenman_middleware_duration_seconds histogram",
];

describe("metrics", () => {
  test("has every name that is promised, with its type", async () => {
    await using tokenman = await startLedgered();
    const types = (await page(tokenman)).matchAll(/^# TYPE (.+)$/gm);
    const found = new Set([...types].map(([, type]) => type));
    for (const name of NAMES) assert.ok(found.has(name), name);
  });

  test("counts tokens and money as the ledger does, and what has no price apart", async () => {
    await using tokenman = await startLedgered({ config: PRICES });
    await ask(tokenman, { model: "mock" });
    await ask(tokenman, { model: "mock", stream: true });
    await ask(tokenman, { model: "mock-unheard-of" });
    const rows = await tokenman.ended(3);
    const usages = rows.flatMap(({ attempts }) => attempts.map(({ usage }) => usage!));
    const cost = rows.flatMap(({ attempts }) => attempts.map((attempt) => attempt.cost?.total ?? 0));
    const samples = await scrape(tokenman);
    const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);
    assert.equal(samples.get("tokenman_requests_total"), 3);
    assert.equal(samples.get("tokenman_tokens_in_total"), sum(usages.map(({ inputTokens }) => inputTokens)));
    assert.equal(
      samples.get("tokenman_tokens_out_total"),
      sum(usages.map(({ outputTokens }) => outputTokens)),
    );
    assert.ok(sum(cost) > 0);
    assert.equal(samples.get("tokenman_cost_usd_total"), sum(cost) / 1e9);
    assert.equal(samples.get("tokenman_unpriced_requests_total"), 1);
    assert.equal(
      samples.get('tokenman_request_duration_seconds_count{provider="mock",model="mock",streaming="true"}'),
      1,
    );
    assert.equal(samples.get('tokenman_time_to_first_token_seconds_count{provider="mock"}'), 1);
    assert.equal(samples.get('tokenman_provider_requests_total{provider="mock",status="200"}'), 3);
    assert.ok(
      samples.get('tokenman_middleware_duration_seconds_count{middleware="recorder",phase="request"}')! >= 3,
    );
    for (const bound of ["0.1", "120", "+Inf"])
      assert.ok(
        samples.has(
          `tokenman_request_duration_seconds_bucket{provider="mock",model="mock",streaming="false",le="${bound}"}`,
        ),
        bound,
      );
  });

  test("says nothing of money where nobody bills, and counts the tokens all the same", async () => {
    const settled = Promise.withResolvers<void>();
    const probe = definePlugin({
      name: "settled-probe",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        void ctx.pipeline((_config, hooks) =>
          hooks.lifecycle.for("settled").tap((exchange) => {
            if (exchange.request.method === "POST") settled.resolve();
          }),
        ),
    });
    const config = `[plugins]\norder = ["pricing", "metrics", "settled-probe"]\n${PRICES}`;
    await using tokenman = await startTokenman({ config, plugins: [probe] });
    await ask(tokenman, { model: "mock" });
    await settled.promise;
    const text = await page(tokenman);
    assert.doesNotMatch(text, /cost_usd_total|unpriced_requests_total|savings_percent/);
    assert.match(text, /^tokenman_requests_total 1$/m);
    for (const name of ["tokens_in_total", "tokens_out_total"])
      assert.ok(Number(new RegExp(`^tokenman_${name} (\\d+)$`, "m").exec(text)?.[1]) > 0, name);
  });

  test("only grows, over reloads too", async () => {
    await using tokenman = await startLedgered({ config: PRICES });
    await ask(tokenman, { model: "mock" });
    await tokenman.ended();
    const before = await scrape(tokenman);
    assert.equal((await tokenman.reload("a test")).ok, true);
    await writeFile(tokenman.configFile, "nonsense = [");
    assert.equal((await tokenman.reload("a test")).ok, false);
    await ask(tokenman, { model: "mock" });
    await tokenman.ended();
    const after = await scrape(tokenman);
    assert.equal(after.get("tokenman_requests_total"), 2);
    assert.equal(after.get('tokenman_reloads_total{result="ok"}'), 1);
    assert.equal(after.get('tokenman_reloads_total{result="failed"}'), 1);
    for (const [name, value] of before)
      if (/(_total|_bucket|_count)(\{|$)/.test(name)) assert.ok(after.get(name)! >= value, name);
  });

  test("adds up a plugin's failures over generations", async () => {
    const broken = definePlugin({
      name: "broken",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        ctx.pipeline((_config, hooks) =>
          hooks.request.tap(() => {
            throw new Error("it is broken");
          }),
        );
      },
    });
    await using tokenman = await startLedgered({ plugins: [broken] });
    await ask(tokenman, { model: "mock" });
    await tokenman.ended();
    await tokenman.reload("a test");
    await ask(tokenman, { model: "mock" });
    await tokenman.ended();
    assert.equal((await scrape(tokenman)).get('tokenman_plugin_failures_total{plugin="broken"}'), 2);
  });

  test("names errors by who failed and how", async () => {
    await using tokenman = await startLedgered();
    await ask(tokenman, { model: "nobody-serves-this" }, "/v1/nothing-here");
    await ask(tokenman, { model: "mock-fail-400" });
    await tokenman.ended(2);
    const samples = await scrape(tokenman);
    const errors = [...samples.keys()].filter((name) => name.startsWith("tokenman_errors_total"));
    assert.ok(
      errors.includes('tokenman_errors_total{type="provider_error",provider="mock",status_code="400"}'),
      errors.join("\n"),
    );
    assert.equal(errors.length, 2, errors.join("\n"));
  });

  test("gives names that no provider knows no series, and escapes those it gives one", async () => {
    const hostile = 'mock-a"b\\c\nd';
    await using tokenman = await startLedgered({ config: "[metrics]\nmax_models = 2\n" });
    for (const model of [hostile, "mock-fail-400", "mock-x", "mock-y", "mock-z"])
      await ask(tokenman, { model });
    await tokenman.ended(5);
    const text = await page(tokenman);
    const models = new Set(
      [...text.matchAll(/_duration_seconds_count\{provider="mock",model="([^,]*)",/g)].map(
        ([, name]) => name,
      ),
    );
    assert.deepEqual(models, new Set(['mock-a\\"b\\\\c\\nd', "other", "mock-x"]));
  });

  test("takes other plugins' metrics in, but none that would spoil the page", async () => {
    const extra = definePlugin({
      name: "extra",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        const state = {
          name: "tokenman_provider_circuit_state",
          type: "gauge",
          help: "0 closed, 1 open, 2 half-open.",
        } as const;
        ctx.contribute("metric", {
          name: "good",
          render: () => renderMetric({ ...state, samples: [{ labels: { provider: "a" }, value: 2 }] }),
        });
        ctx.contribute("metric", {
          name: "twice",
          render: () => renderMetric({ ...state, samples: [{ labels: { provider: "b" }, value: 1 }] }),
        });
        ctx.contribute("metric", { name: "nonsense", render: () => "this is {not a metric\n" });
        ctx.contribute("metric", {
          name: "throws",
          render: () => {
            throw new Error("no figures today");
          },
        });
      },
    });
    await using tokenman = await startLedgered({ plugins: [extra] });
    const text = await page(tokenman);
    await page(tokenman);
    assert.match(text, /^tokenman_provider_circuit_state\{provider="a"\} 2$/m);
    assert.doesNotMatch(text, /provider="b"|not a metric/);
    const told = tokenman.log.flatMap(({ facts }) => ("source" in facts ? [facts.source] : []));
    assert.deepEqual(told, ["twice", "nonsense", "throws"]);
  });

  test("wants the token where one is demanded, and refuses foreign pages", async () => {
    await using tokenman = await startLedgered({
      config: '[auth]\nenabled = true\ntoken = "canary-token"\n',
    });
    const status = async (headers: Record<string, string>) =>
      (await fetch(`${tokenman.dashboard}/metrics`, { headers })).status;
    assert.equal(await status({}), 401);
    assert.equal(await status({ authorization: "Bearer wrong" }), 401);
    assert.equal(await status({ authorization: "Bearer canary-token" }), 200);
    assert.equal(await status({ authorization: "Bearer canary-token", origin: "https://evil.example" }), 403);
  });
});

describe("a bounded label", () => {
  test("has so many values and no more, each at most so long", () => {
    const values = new LabelValues(2);
    assert.equal(values.of("a", true), "a");
    assert.equal(values.of("refused", false), OTHER);
    assert.equal(values.of("b".repeat(500), true), "b".repeat(100));
    assert.equal(values.of("c", true), OTHER);
    assert.equal(values.of("a", false), "a");
    assert.equal(new LabelValues(1).of("m-sk-ant-api03-canary-canary", true), "m-[redacted]");
  });
});

const has = (program: string): boolean => spawnSync(program, ["--version"]).error === undefined;

describe("Prometheus itself", () => {
  test("promtool finds nothing to say", {
    skip: has("promtool") ? false : "promtool (Debian package prometheus) is not installed",
  }, async () => {
    await using tokenman = await startLedgered({ config: PRICES });
    await ask(tokenman, { model: "mock", stream: true });
    await ask(tokenman, { model: "mock-fail-400" });
    await tokenman.ended(2);
    const checked = spawnSync("promtool", ["check", "metrics"], {
      input: await page(tokenman),
      encoding: "utf8",
    });
    assert.deepEqual(
      { status: checked.status, said: checked.stdout + checked.stderr },
      { status: 0, said: "" },
    );
  });

  test("Prometheus scrapes it", {
    skip: has("prometheus") ? false : "prometheus (Debian package) is not installed",
    timeout: 60_000,
  }, async () => {
    const scrapes = Promise.withResolvers<void>();
    let count = 0;
    // Prometheus begins its second scrape when it has taken the first in.
    const scraped = definePlugin({
      name: "scraped",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        const render = (): string => {
          if (++count === 2) scrapes.resolve();
          return "";
        };
        ctx.contribute("metric", { name: "scraped", render });
      },
    });
    await using tokenman = await startLedgered({ config: PRICES, plugins: [scraped] });
    await ask(tokenman, { model: "mock" });
    await tokenman.ended();
    const folder = await mkdtemp(join(tmpdir(), "tokenman-prometheus-"));
    const address = `127.0.0.1:${await freePort()}`;
    await writeFile(
      join(folder, "prometheus.yml"),
      `global: { scrape_interval: 200ms, scrape_timeout: 200ms }
scrape_configs:
  - job_name: tokenman
    static_configs: [{ targets: ["${new URL(tokenman.dashboard).host}"] }]
`,
    );
    const prometheus = spawn(
      "prometheus",
      [
        `--config.file=${join(folder, "prometheus.yml")}`,
        `--storage.tsdb.path=${join(folder, "data")}`,
        `--web.listen-address=${address}`,
      ],
      { stdio: "ignore" },
    );
    const gone = new Promise<void>((resolve) => prometheus.once("exit", () => resolve()));
    try {
      await Promise.race([scrapes.promise, gone]);
      assert.equal(prometheus.exitCode, null, "prometheus has ended");
      const reply = await fetch(`http://${address}/api/v1/query?query=tokenman_requests_total`);
      const { data } = (await reply.json()) as { data: { result: { value: [number, string] }[] } };
      assert.deepEqual(
        data.result.map(({ value }) => value[1]),
        ["1"],
      );
    } finally {
      prometheus.kill("SIGKILL");
      await gone;
      await rm(folder, { recursive: true, force: true });
    }
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
