import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type AttemptResult, definePlugin, type Plugin } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { plannedSections } from "../../cli/planned.ts";
import { firstParty } from "../../cli/registry.ts";
import { createKernel } from "../../kernel/kernel.ts";
import { ChaosClient, type Ending } from "./chaos-client.ts";
import { BEGUN, ChaosProvider, type Doing, untrusted } from "./chaos-farm.ts";
import { QUIET, settledHeap } from "./heap.ts";

export interface ChaosOptions {
  readonly seconds: number;
  /** Requests a second, whether those before were answered or not. */
  readonly rate: number;
  readonly seed: number;
  readonly progress?: (line: string) => void;
}

export interface ChaosReport {
  readonly requests: number;
  readonly whole: number;
  /** Broke after their first byte, which nobody can mend. */
  readonly broken: number;
  readonly failed: number;
  /** Of the requests that did not break, those that were answered whole, 0 to 1. */
  readonly goodput: number;
  /** Attempts that were sent, and those that the breaker spared. */
  readonly sent: number;
  readonly skipped: number;
  readonly heapBytes: readonly number[];
  readonly longestMs: number;
  /** What was not as it should be, the first few. */
  readonly faults: readonly string[];
}

/** The three that can serve all, in the order in which they are asked. */
const NAMES = ["anthropic", "spare-1", "spare-2"] as const;
/** A run of five minutes has storms of ten seconds; a shorter one has as many. */
const stormSeconds = (seconds: number): number => seconds / 30;
/** How long the last ones are waited for. */
const DRAIN_MS = 60_000;
/** A request of each of these begins at a provider that cannot be reached: its name, or its certificate. */
const MODELS = [
  "claude-x",
  "claude-x",
  "claude-x",
  "claude-x",
  "claude-y",
  "claude-y",
  "no-name",
  "no-trust",
];

interface Followed {
  readonly doings: Doing[];
  attempts: readonly { readonly provider: string; readonly result: AttemptResult | undefined }[];
}

/** Sends requests at a steady rate to a TokenMan whose providers fail in every way, and tells what came of them. */
export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  const { seconds, rate, seed } = options;
  const random = new Random(seed);
  const followed = new Map<string, Followed>();
  const told = (id: string, doing: Doing) => void followed.get(id)?.doings.push(doing);
  const providers = NAMES.map((_, index) => new ChaosProvider(new Random(seed + index + 1), told));
  for (const provider of providers) await provider.start();
  const secure = await untrusted();
  const home = await mkdtemp(join(tmpdir(), "tokenman-chaos-"));
  const configFile = join(home, "tokenman.toml");
  await writeFile(configFile, configOf(home, seconds, providers, secure.url), { mode: 0o600 });
  const kernel = await createKernel({
    version: "0.0.0-soak",
    configFile,
    home,
    env: {},
    registry: withPlugin(follower(followed)),
    planned: plannedSections,
    log: QUIET,
  });
  const tally = new Tally();
  try {
    const { proxyAddress } = await kernel.start();
    const client = new ChaosClient(proxyAddress);
    const weather = new Weather(providers, random, seconds);
    const heapBytes: number[] = [];
    const began = performance.now();
    const underWay = new Set<Promise<void>>();
    let sent = 0;
    const ask = async (): Promise<void> => {
      const id = String(sent++);
      const one: Followed = { doings: [], attempts: [] };
      followed.set(id, one);
      const from = performance.now();
      const ending = await client.ask(id, random.pick(MODELS), random.chance(0.6));
      followed.delete(id);
      tally.count(id, ending, one, performance.now() - from);
    };
    const drained = async (): Promise<boolean> => {
      const all = Promise.all(underWay).then(() => true);
      return Promise.race([all, delay(DRAIN_MS, false, { ref: false })]);
    };
    // The first part fills caches and compiles code; the heap of the second is compared with it.
    for (const until of [seconds / 3, seconds]) {
      const base = sent;
      const from = performance.now();
      const lengthMs = until * 1_000 - (heapBytes.length === 0 ? 0 : (seconds / 3) * 1_000);
      for (let ms = 0; ms < lengthMs; ms = performance.now() - from) {
        await weather.change(sent / rate);
        for (const due = base + Math.floor((ms / 1_000) * rate); sent < due; ) {
          const asked = ask().finally(() => underWay.delete(asked));
          underWay.add(asked);
        }
        await delay(5);
      }
      if (!(await drained())) tally.fault(`${underWay.size} requests did not end`);
      // The settled hooks of the last ones may still be at work on the disk.
      await delay(300);
      heapBytes.push(await settledHeap());
      options.progress?.(
        `after ${((performance.now() - began) / 1_000).toFixed(0)} s: ${tally.line}, heap ${(heapBytes.at(-1)! / 2 ** 20).toFixed(1)} MiB`,
      );
    }
    client.close();
    await weather.clear();
    return tally.report(heapBytes);
  } finally {
    await kernel.shutdown({ drainMs: 1_000, reason: "the chaos is over" });
    for (const provider of providers) await provider.stop();
    secure.close();
    await rm(home, { recursive: true, force: true });
  }
}

/** Storms that come and go at one provider at a time, and a fifth of the time in which the first one is down. */
class Weather {
  readonly #providers: readonly ChaosProvider[];
  readonly #random: Random;
  readonly #seconds: number;
  #stormUntil = 0;
  #isDown = false;

  constructor(providers: readonly ChaosProvider[], random: Random, seconds: number) {
    this.#providers = providers;
    this.#random = random;
    this.#seconds = seconds;
  }
  /** `at`: seconds of traffic so far. */
  async change(at: number): Promise<void> {
    const shouldBeDown = at >= this.#seconds * 0.4 && at < this.#seconds * 0.6;
    if (shouldBeDown !== this.#isDown) {
      this.#isDown = shouldBeDown;
      await (shouldBeDown ? this.#providers[0]!.stop() : this.#providers[0]!.start());
    }
    if (at < this.#stormUntil) return;
    for (const provider of this.#providers) provider.storm = undefined;
    this.#stormUntil = at + stormSeconds(this.#seconds);
    const storm = this.#random.pick<Doing | undefined>([
      "limited",
      "overloaded",
      "reset",
      "slow",
      undefined,
      undefined,
    ]);
    this.#random.pick(this.#providers).storm = storm;
  }
  async clear(): Promise<void> {
    if (this.#isDown) await this.#providers[0]!.start();
    this.#isDown = false;
  }
}

/** Holds every request against what was done to it. */
class Tally {
  readonly #faults: string[] = [];
  readonly #counts = { whole: 0, broken: 0, failed: 0, wrong: 0 };
  #sent = 0;
  #skipped = 0;
  #longestMs = 0;

  get line(): string {
    const { whole, broken, failed } = this.#counts;
    return `${whole} whole, ${broken} broken, ${failed} failed`;
  }
  fault(what: string): void {
    if (this.#faults.length < 10) this.#faults.push(what);
  }
  count(id: string, ending: Ending, { doings, attempts }: Followed, ms: number): void {
    this.#counts[ending.kind]++;
    this.#longestMs = Math.max(this.#longestMs, ms);
    for (const { result } of attempts) result?.kind === "skipped" ? this.#skipped++ : this.#sent++;
    const ends = attempts.map(({ provider, result }) => `${provider} ${result?.kind}`).join(", ");
    const said = `request ${id} (${doings.join(", ")}; ${ends}) ${ending.kind}`;
    const last = doings.at(-1);
    // A provider that goes down resets what it had decided to answer: its client has not seen a byte of that.
    const unseen = attempts.filter(({ result }) => result?.kind === "error").length;
    if (doings.slice(0, -1).filter((doing) => BEGUN.has(doing)).length > unseen)
      this.fault(`${said}: sent again after an answer`);
    if (ending.kind === "wrong") this.fault(`${said}: ${ending.text.slice(0, 200)}`);
    if (ending.kind === "whole" && last !== "fine" && last !== "slow") this.fault(`${said}: by whom?`);
    if (ending.kind !== "failed") return;
    const tried = new Set(attempts.map(({ provider }) => provider));
    if (NAMES.some((name) => !tried.has(name)))
      this.fault(`${said}: ${ending.status}, and not all had been asked`);
    if (attempts.some(({ result }) => result?.kind === "cancelled")) this.fault(`${said}: called off`);
  }
  report(heapBytes: readonly number[]): ChaosReport {
    const { whole, broken, failed, wrong } = this.#counts;
    const requests = whole + broken + failed + wrong;
    return {
      requests,
      whole,
      broken,
      failed,
      goodput: whole / Math.max(1, requests - broken),
      sent: this.#sent,
      skipped: this.#skipped,
      heapBytes,
      longestMs: this.#longestMs,
      faults: this.#faults,
    };
  }
}

/** Notes the attempts of each exchange when it ends, which is before its client has read the end of the reply or soon after. */
function follower(followed: ReadonlyMap<string, Followed>): Plugin {
  return definePlugin({
    name: "chaos-follower",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.lifecycle.for("attemptEnd").tap((exchange) => {
          const one = followed.get(exchange.request.header("x-chaos-id") ?? "");
          if (one !== undefined)
            one.attempts = exchange.attempts.map(({ provider, result }) => ({
              provider: provider.name,
              result,
            }));
        });
      });
    },
  });
}

function withPlugin(plugin: Plugin): typeof firstParty {
  return {
    ...firstParty,
    names: () => [...firstParty.names(), plugin.name],
    load: async (name) => (name === plugin.name ? plugin : firstParty.load(name)),
    defaultOrder: [plugin.name, ...firstParty.defaultOrder],
  };
}

/** A provider is spared for a part of a storm: were it for longer, in a short run all three would be spared at once. */
function configOf(
  home: string,
  seconds: number,
  providers: readonly ChaosProvider[],
  secure: string,
): string {
  const table = (name: string, url: string, priority: number, models = "") =>
    `[providers.${name}]\nformat = "anthropic"\nauth = "none"\napi_base = "${url}"\npriority = ${priority}\n${models}`;
  return `[server]
proxy_port = 0
dashboard_port = 0
data_dir = ${JSON.stringify(join(home, "data"))}
[access_log]
enabled = false
[watch]
enabled = false
[cache]
enabled = false
[routing]
affinity_seconds = 0
[resilience]
retry_base_delay_ms = 100
retry_max_delay_ms = 2000
cb_reset_timeout_seconds = ${stormSeconds(seconds) / 5}
cb_window_seconds = ${stormSeconds(seconds) * 3}
${providers.map(({ url }, index) => table(NAMES[index]!, url, index)).join("")}
${table("no-name", "http://nowhere.invalid", 9, 'models = ["no-name"]\n')}
${table("no-trust", secure, 9, 'models = ["no-trust"]\n')}`;
}
