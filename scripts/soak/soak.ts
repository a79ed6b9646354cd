import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { plannedSections } from "../../cli/planned.ts";
import { firstParty } from "../../cli/registry.ts";
import { createKernel, type Kernel } from "../../kernel/kernel.ts";
import { QUIET, settledHeap } from "./heap.ts";
import { Traffic, type TrafficReport } from "./traffic.ts";
import { startUpstream } from "./upstream.ts";
import { broken, sound, type Version } from "./versions.ts";

export interface SoakOptions {
  /** How often a new generation is to be swapped in; broken versions come on top. */
  readonly generations: number;
  readonly concurrency: number;
  /** At which counts of generations the heap is measured, with the traffic standing still. */
  readonly measureAt: readonly number[];
  /** Told of each measurement. */
  readonly progress?: (line: string) => void;
}

export interface Measured {
  readonly generations: number;
  /** Old generations that the garbage collector has taken. */
  readonly collected: number;
  readonly heapBytes: number;
}

export interface SoakReport {
  readonly traffic: TrafficReport;
  /** Reloads that swapped, and that were refused. */
  readonly swapped: number;
  readonly refused: number;
  readonly measured: readonly Measured[];
  /** What else was not as it should be. */
  readonly problems: readonly string[];
}

/** A broken version comes before every n-th sound one. */
const BROKEN_EVERY = 3;

/** Reloads a TokenMan in this process under traffic, and tells what came of it. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const upstream = await startUpstream();
  const home = await mkdtemp(join(tmpdir(), "tokenman-soak-"));
  try {
    const site = new Site(home, upstream.url);
    await site.write(sound(0));
    const kernel = await createKernel({
      version: "0.0.0-soak",
      configFile: site.configFile,
      home,
      env: {},
      registry: firstParty,
      planned: plannedSections,
      log: QUIET,
    });
    const { proxyAddress } = await kernel.start();
    try {
      return await run(kernel, new Traffic(proxyAddress, options.concurrency), site, options);
    } finally {
      await kernel.shutdown({ drainMs: 1_000, reason: "the soak is over" });
    }
  } finally {
    upstream.close();
    await rm(home, { recursive: true, force: true });
  }
}

async function run(kernel: Kernel, traffic: Traffic, site: Site, options: SoakOptions): Promise<SoakReport> {
  const problems: string[] = [];
  const measured: Measured[] = [];
  const old = new Collection();
  let refused = 0;
  traffic.start();
  for (let count = 1; count <= options.generations; count++) {
    if (count % BROKEN_EVERY === 0) {
      const version = broken(count);
      await site.write(version);
      const before = kernel.generation.id;
      const event = await kernel.reload(version.what);
      if (event.ok || kernel.generation.id !== before) problems.push(`${version.what} was taken`);
      else if (!version.refused!.test(event.error ?? ""))
        problems.push(`${version.what} was refused with: ${event.error}`);
      else if (kernel.status().lastReload?.error !== event.error)
        problems.push(`${version.what}: the status does not say why`);
      else refused++;
      await site.mend();
    }
    const version = sound(count);
    await site.write(version);
    old.watch(kernel.generation);
    const event = await kernel.reload(version.what);
    if (!event.ok) problems.push(`${version.what} (${count}) was refused: ${event.error}`);
    if (options.measureAt.includes(count)) {
      await traffic.stop();
      const heapBytes = await settledHeap();
      measured.push({ generations: count, collected: old.collected, heapBytes });
      options.progress?.(
        `after ${count} generations: ${old.collected} old ones collected, heap ${(heapBytes / 2 ** 20).toFixed(1)} MiB, ` +
          `${traffic.report.requests} requests, ${traffic.report.failures.length} failed`,
      );
      traffic.start();
    }
  }
  await traffic.stop();
  return { traffic: traffic.report, swapped: kernel.generation.id - 1, refused, measured, problems };
}

/** The files that TokenMan is run from. */
class Site {
  readonly configFile: string;
  readonly #home: string;
  readonly #upstream: string;
  #label = "first";
  #source = "";

  constructor(home: string, upstream: string) {
    this.#home = home;
    this.#upstream = upstream;
    this.configFile = join(home, "tokenman.toml");
  }
  async write({ source, label, config, refused }: Version): Promise<void> {
    if (refused === undefined) {
      this.#source = source ?? this.#source;
      this.#label = label ?? this.#label;
    }
    await this.#put(source ?? this.#source, config ?? `[plugins.configs.stamp]\nlabel = "${this.#label}"\n`);
  }
  /** Puts the last sound version back. */
  async mend(): Promise<void> {
    await this.write({ what: "mended" });
  }
  async #put(source: string, config: string): Promise<void> {
    const plugins = join(this.#home, "plugins");
    await mkdir(plugins, { recursive: true, mode: 0o755 });
    await writeFile(join(plugins, "stamp.ts"), source, { mode: 0o644 });
    const quoted = (text: string) => JSON.stringify(text);
    await writeFile(
      this.configFile,
      `[server]
proxy_port = 0
dashboard_port = 0
data_dir = ${quoted(join(this.#home, "data"))}
[providers.openai]
api_base = ${quoted(this.#upstream)}
auth = "client"
[access_log]
enabled = false
[watch]
enabled = false
[cache]
# An answer that is kept has what the generation of its time made of it.
enabled = false
[plugins]
dir = ${quoted(plugins)}
[projects.quiet]
disable = ["stamp"]
${config}`,
      { mode: 0o600 },
    );
  }
}

/** Counts which of the watched objects were collected. */
class Collection {
  collected = 0;
  readonly #registry = new FinalizationRegistry(() => {
    this.collected++;
  });
  watch(value: object): void {
    this.#registry.register(value, undefined);
  }
}
