import crypto from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import {
  type HostStatus,
  type Logger,
  type ReloadEvent,
  TokenmanError,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import {
  type Config,
  coreFromRaw,
  itemPlaces,
  type RawConfig,
  readConfig,
  type SectionSpec,
  type Validation,
  validateConfig,
} from "./config/index.ts";
import { handleDashboard } from "./dashboard.ts";
import {
  buildGeneration,
  type Explanation,
  explain,
  explanationText,
  type Generation,
  GenerationManager,
  KeepStore,
  planGeneration,
} from "./generation/index.ts";
import { Intake } from "./intake.ts";
import { KeyedHash } from "./keyed-hash.ts";
import { type HandedSocket, Listener } from "./listener.ts";
import {
  configChecks,
  type FirstPartyRegistry,
  type LoadResult,
  type PluginListOptions,
  PluginLoader,
  resolvePluginList,
  sectionSpecs,
} from "./load/index.ts";
import { probePorts } from "./port-probe.ts";
import { remember, servingOf } from "./serving.ts";
import { ask } from "./upstream/ask.ts";
import { Connections } from "./upstream/connections.ts";

export interface KernelOptions {
  /** Version of TokenMan, as shown to plugins and clients. */
  readonly version: string;
  /** Undefined: TOKENMAN_CONFIG, then the default place. */
  readonly configFile?: string;
  readonly env: NodeJS.ProcessEnv;
  readonly home?: string;
  readonly registry: FirstPartyRegistry;
  /** Value of `--plugins`. */
  readonly pluginsFlag?: string;
  /** Sections of features that do not exist yet: validated, and told in a warning. */
  readonly planned: readonly SectionSpec[];
  /** `start` follows, and opens the ports itself: they are probed before a plugin is set up. */
  readonly opensPorts?: boolean;
  readonly log: Logger;
}

export interface Addresses {
  readonly proxyAddress: string;
  readonly dashboardAddress: string;
}

/** The listening sockets of another process, to be served from here. */
export interface HandedSockets {
  readonly proxy?: HandedSocket | undefined;
  readonly dashboard?: HandedSocket | undefined;
}

/** Loads everything, without listening. Rejects with TokenmanErrors that list all problems. */
export async function createKernel(options: KernelOptions): Promise<Kernel> {
  const kernel = new Kernel(options);
  await kernel.load();
  return kernel;
}

/** A running TokenMan: configuration, generations and two listening ports. */
export class Kernel {
  readonly bootId = crypto.randomUUID();
  readonly startedAt = Date.now();
  readonly #options: KernelOptions;
  readonly #connections: Connections;
  readonly #keep: KeepStore;
  readonly #manager: GenerationManager;
  readonly #intake: Intake;
  #loader: PluginLoader | undefined;
  #config: Config | undefined;
  #proxy: Listener | undefined;
  #dashboard: Listener | undefined;
  /** No request is taken any more. */
  #draining = false;
  /** Another process serves the ports; what comes on connections that are still open here is served here. */
  #leaving = false;
  #shutdown: Promise<void> | undefined;
  readonly #shutdownBegun = Promise.withResolvers<void>();

  constructor(options: KernelOptions) {
    this.#options = options;
    this.#connections = new Connections({ env: options.env });
    this.#keep = new KeepStore();
    this.#manager = new GenerationManager({ build: (id) => this.#build(id), log: options.log });
    this.#intake = new Intake({
      connections: this.#connections,
      log: options.log,
      serving: () => servingOf(this.#manager.current),
      draining: () => this.#draining,
      closing: () => this.#draining || this.#leaving,
    });
  }

  async load(): Promise<void> {
    await this.#manager.start();
  }
  get config(): Config {
    if (this.#config === undefined) throw new TokenmanError("TM_INTERNAL", "the kernel is not loaded yet");
    return this.#config;
  }
  get generation(): Generation {
    return this.#manager.current;
  }

  /**
   * Opens both ports, or serves the sockets that another process handed over, where they are what the config wants.
   * Rejects with TM_PORT_IN_USE or TM_LISTEN, and has then opened none.
   */
  async start(handed: HandedSockets = {}): Promise<Addresses> {
    const { server } = this.config;
    const log = this.#options.log;
    const proxy = new Listener({
      name: "proxy",
      port: server.proxy_port,
      server,
      log,
      handed: fitting(handed.proxy, server.bind_address, server.proxy_port),
      handle: (message, response, expects) => this.#intake.handle(message, response, expects),
    });
    const dashboard = new Listener({
      name: "dashboard",
      port: server.dashboard_port,
      server,
      log,
      handed: fitting(handed.dashboard, server.bind_address, server.dashboard_port),
      handle: (message, response, expects) =>
        handleDashboard({ log, serving: () => servingOf(this.#manager.current) }, message, response, expects),
    });
    const opened = await Promise.allSettled([proxy.listen(), dashboard.listen()]);
    const failures = opened.flatMap((result) =>
      result.status === "rejected" ? [result.reason as TokenmanError] : [],
    );
    if (failures.length > 0) {
      proxy.destroy();
      dashboard.destroy();
      throw new TokenmanErrors(failures);
    }
    this.#proxy = proxy;
    this.#dashboard = dashboard;
    return { proxyAddress: proxy.address, dashboardAddress: dashboard.address };
  }

  /** The listening sockets, for another process that is to serve them. */
  get sockets(): HandedSockets {
    return { proxy: this.#proxy?.socket, dashboard: this.#dashboard?.socket };
  }

  /** Builds a new generation and swaps it in, or keeps the old one. Never rejects. */
  async reload(reason: string): Promise<ReloadEvent> {
    if (this.#draining || this.#leaving) {
      return { ok: false, generation: this.#manager.current.id, error: "TokenMan is shutting down" };
    }
    const before = this.#manager.current;
    const event = await this.#manager.reload(reason);
    if (this.#manager.current !== before) {
      const providers = this.generation.registry.all("provider");
      this.#connections.keepOnly(providers, this.config.server.stream_timeout * 1000);
    }
    return event;
  }

  status(): HostStatus {
    const generation = this.#manager.current;
    return {
      pid: process.pid,
      startedAt: this.startedAt,
      generation: generation.id,
      activeExchanges: this.#intake.active,
      proxyAddress: this.#proxy?.address ?? "",
      dashboardAddress: this.#dashboard?.address ?? "",
      lastReload: this.#manager.lastReload,
      draining: this.#draining || this.#leaving,
      plugins: generation.statuses(),
    };
  }
  explain(project?: string): Explanation {
    return explain(this.#manager.current, project);
  }
  explainText(project?: string): string {
    return explanationText(this.explain(project));
  }

  /**
   * Leaves the ports to another process that serves them by now. Connections that are open here stay, and what comes on
   * them is served with `Connection: close`; an idle one is closed when its announced keep-alive time is over, not
   * before: a request may be on its way. Resolves when all have ended and everything is given back; what is still there
   * after `drainMs` is broken off. A shutdown meanwhile goes before.
   */
  async leave({ drainMs, reason }: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    this.#leaving = true;
    this.#options.log.info(
      { reason, activeExchanges: this.#intake.active },
      "leaving the ports to another process",
    );
    void this.#manager.drain();
    void this.#dashboard?.stopAccepting();
    const gone = this.#proxy?.stopAccepting() ?? Promise.resolve();
    const inTime = await within(drainMs, Promise.race([gone, this.#shutdownBegun.promise]));
    await this.shutdown({ drainMs: inTime ? LEAVE_REST_MS : 0, reason });
  }

  /**
   * Stops accepting, lets requests in flight end for `drainMs`, then breaks off the rest and gives everything back.
   * Calls while it runs join it.
   */
  shutdown(options: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    this.#shutdown ??= this.#close(options);
    return this.#shutdown;
  }
  async #close({ drainMs, reason }: { readonly drainMs: number; readonly reason: string }): Promise<void> {
    const { log } = this.#options;
    log.info({ reason, activeExchanges: this.#intake.active }, "shutting down");
    this.#shutdownBegun.resolve();
    const drained = this.#leaving ? Promise.resolve() : this.#manager.drain();
    if (!this.#leaving) void this.#proxy?.stopAccepting();
    this.#draining = true;
    this.#proxy?.closeIdle();
    if (!(await within(drainMs, Promise.all([drained, this.#intake.whenIdle()])))) {
      log.warn({ activeExchanges: this.#intake.active }, "requests did not end in time and are broken off");
      this.#intake.abortAll();
      await within(LAST_MOMENT_MS, this.#intake.whenIdle());
    }
    this.#proxy?.destroy();
    this.#dashboard?.destroy();
    await this.#manager.close();
    this.#connections.close();
  }
  /** Breaks off what is in flight, for a second signal: the drain of a running shutdown ends at once. */
  hurry(): void {
    this.#intake.abortAll();
  }

  /** Reads the config, loads the plugins and builds a generation of them. Rejects with all problems at once. */
  async #build(id: number): Promise<Generation> {
    const { env, registry, pluginsFlag, planned, log } = this.#options;
    const raw = readConfig({ file: this.#options.configFile, env, home: this.#options.home ?? homedir() });
    const core = coreFromRaw(raw);
    const dataDir = this.#config?.server.data_dir ?? core.server.data_dir;
    this.#dataDir = dataDir;
    const configDir = raw.file === undefined ? undefined : path.dirname(raw.file);
    const wanted: PluginListOptions = {
      registry,
      order: core.plugins.order,
      dir: core.plugins.dir,
      flag: pluginsFlag,
      configDir,
    };
    this.#loader ??= new PluginLoader({
      registry,
      cacheFolder: path.join(dataDir, "cache", "plugins"),
      version: this.#options.version,
      log,
    });
    let load = await this.#loader.load(await resolvePluginList(wanted));
    const specs = withoutReplaced([...sectionSpecs(load), ...planned]);
    const plugins = [
      ...load.loaded.map(({ plugin }) => plugin.name),
      ...load.leftOut.map(({ name }) => name),
    ];
    const validation = await validateConfig(raw, specs, { plugins, checks: configChecks(load.loaded) });
    let faults = planGeneration(load, validation.config).problems;
    if (faults.length > 0 && !env[ORDER_VARIABLE]) {
      // Once more, for the places: they take a parser that a config without problems never needs.
      const placeOf = await itemPlaces(raw, ["plugins", "order"]);
      load = await this.#loader.load(await resolvePluginList({ ...wanted, placeOf }));
      faults = planGeneration(load, validation.config).problems;
    }
    const problems = [...(await validation.place(faults)), ...validation.problems];
    if (problems.length > 0) throw new TokenmanErrors(problems);
    for (const warning of validation.warnings) log.warn({}, warning);
    const config = this.#fixed(validation.config);
    if (this.#options.opensPorts === true && this.#config === undefined) await probePorts(config.server);
    const generation = await buildGeneration({
      id,
      settings: config,
      load: { ...load, problems: [] },
      keep: this.#keep,
      host: {
        version: this.#options.version,
        dataDir: config.server.data_dir,
        bootId: this.bootId,
        keyFor: (purpose) => this.#hash.keyFor(purpose),
        storedBodyBytes: storedBodyBytes(config),
        configFile: raw.file,
        watched: watchedBy(raw, config, load),
        reload: (reason) => this.reload(reason),
        status: () => this.status(),
        ask: (provider, question) =>
          ask(
            { connections: this.#connections, streamIdleMs: this.config.server.stream_timeout * 1_000 },
            provider,
            question,
          ),
        exchange: (request) => this.#intake.exchange(request),
        config: () => config.redacted(),
      },
      log,
    }).catch(async (error: unknown) => {
      throw await placed(error, validation);
    });
    this.#config = config;
    remember(generation, config, log, this.#hash);
    return generation;
  }
  /** Addresses, ports and the data folder stay as they were at the start. */
  #fixed(config: Config): Config {
    const old = this.#config;
    if (old === undefined) return config;
    const changed = config.changedFixed(old);
    if (changed.length > 0)
      this.#options.log.warn(
        { keys: changed },
        `a restart is needed for ${changed.join(", ")}; until then the old values hold`,
      );
    return config.keepFixed(old);
  }

  /** Known from the first build on, and never another one. */
  #dataDir = "";
  /** Its key is made at first use. */
  readonly #hash = new KeyedHash(() => readOrMakeKey(path.join(this.#dataDir, "instance.key")));
}

const LAST_MOMENT_MS = 2_000;
/** An exchange whose client has gone may still have readers when all connections have ended. */
const LEAVE_REST_MS = 30_000;
/** Where it is set, the list is not the file's. */
const ORDER_VARIABLE = "TOKENMAN_PLUGINS_ORDER";
/** Larger bodies are stored in part, whatever the config says. */
const MAX_STORED_BODY_BYTES = 1024 * 1024;

function storedBodyBytes({ server }: Config): number {
  if (!server.store_body) return 0;
  return Math.min(server.max_log_body || MAX_STORED_BODY_BYTES, MAX_STORED_BODY_BYTES);
}

/** The errors with their places in the file, where a plugin says which key of its config is at fault. */
async function placed(error: unknown, { place }: Validation): Promise<unknown> {
  if (!(error instanceof TokenmanErrors)) return error;
  return error.errors.some(({ configPath }) => configPath !== undefined)
    ? new TokenmanErrors(await place(error.errors))
    : error;
}

const KEY_BYTES = 32;

function readOrMakeKey(file: string): Buffer {
  try {
    const key = readFileSync(file);
    if (key.length === KEY_BYTES) return key;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT")
      throw new TokenmanError("TM_DATA_DIR", `${file} cannot be read`, { cause });
  }
  const key = crypto.randomBytes(KEY_BYTES);
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    writeFileSync(file, key, { mode: 0o600 });
    chmodSync(file, 0o600);
  } catch (cause) {
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written`, { cause });
  }
  return key;
}

/** The socket, where it was opened for this address and port. Another one is let go of: a port has changed. */
function fitting(handed: HandedSocket | undefined, address: string, port: number): HandedSocket | undefined {
  if (handed === undefined || (handed.address === address && handed.port === port)) return handed;
  handed.handle.close();
  return undefined;
}

/** A planned section whose plugin has come is described by the plugin. Other owners' parts of it stay. */
function withoutReplaced(specs: readonly SectionSpec[]): SectionSpec[] {
  const key = ({ path, owner }: SectionSpec): string => `${path} ${owner}`;
  const real = new Set(specs.filter((spec) => spec.planned !== true).map(key));
  return specs.filter((spec) => spec.planned !== true || !real.has(key(spec)));
}

function watchedBy(raw: RawConfig, config: Config, load: LoadResult): string[] {
  const watched = new Set(load.loaded.flatMap((each) => each.inputs));
  if (raw.file !== undefined) watched.add(raw.file);
  watched.add(config.plugins.dir);
  return [...watched];
}

/** Whether the promise settled within `ms`. */
async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
