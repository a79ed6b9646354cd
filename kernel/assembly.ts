import { rmSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { isThere, type Logger, TokenmanErrors } from "@tokenman/plugin-sdk";
import { certificateFaults } from "./certificate.ts";
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
import {
  buildGeneration,
  type Generation,
  type HostBase,
  KeepStore,
  planGeneration,
} from "./generation/index.ts";
import { instanceKeyFile } from "./instance-key.ts";
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

/** Where the list is not the file's. */
const ORDER_VARIABLE = "TOKENMAN_PLUGINS_ORDER";
/** Larger bodies are stored in part, whatever the config says. */
const MAX_STORED_BODY_BYTES = 1024 * 1024;

export interface AssemblyOptions {
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

/** What plugins are told of the process, whatever the config says. */
export type ProcessHost = Omit<
  HostBase,
  "version" | "dataDir" | "storedBodyBytes" | "configFile" | "watched" | "config"
>;

export interface Assembled {
  readonly generation: Generation;
  readonly config: Config;
  /** What of the config will not do what its author meant. */
  readonly warnings: readonly string[];
}

/** Makes generations: reads the config, finds and loads the plugins it names, and sets them up. */
export class Assembly {
  readonly #options: AssemblyOptions;
  readonly #host: ProcessHost;
  readonly #keep: KeepStore;
  #loader: PluginLoader | undefined;
  #config: Config | undefined;
  #dataDir = "";
  /** What the kernel makes in the data folder, and was not there before. */
  #made: readonly string[] = [];

  constructor(options: AssemblyOptions, host: ProcessHost) {
    this.#options = options;
    this.#host = host;
    this.#keep = new KeepStore({ starting: options.opensPorts === true });
  }
  /** The folder that the first config named: it is never another one. "" before that was read. */
  get dataDir(): string {
    return this.#dataDir;
  }

  /** Rejects with TokenmanErrors that list all problems; nothing is left behind. */
  async build(id: number): Promise<Assembled> {
    const { env, pluginsFlag, planned, registry, log, home = homedir(), version } = this.#options;
    const raw = readConfig({ file: this.#options.configFile, env, home });
    const core = coreFromRaw(raw);
    const dataDir = this.#config?.server.data_dir ?? core.server.data_dir;
    this.#dataDir = dataDir;
    if (this.#loader === undefined) {
      const cache = path.join(dataDir, "cache");
      this.#made = [cache, instanceKeyFile(dataDir)].filter((each) => !isThere(each));
      this.#loader = new PluginLoader({ registry, cacheFolder: path.join(cache, "plugins"), version, log });
    }
    const wanted: PluginListOptions = {
      registry,
      order: core.plugins.order,
      dir: core.plugins.dir,
      flag: pluginsFlag,
      configDir: raw.file === undefined ? undefined : path.dirname(raw.file),
    };
    let load = await this.#loader.load(await resolvePluginList(wanted));
    const specs = withoutReplaced([...sectionSpecs(load), ...planned]);
    const plugins = [
      ...load.loaded.map(({ plugin }) => plugin.name),
      ...load.leftOut.map(({ name }) => name),
    ];
    const validation = await validateConfig(raw, specs, {
      plugins,
      alwaysOn: registry.alwaysOn,
      checks: configChecks(load.loaded),
    });
    let faults = planGeneration(load, validation.config).problems;
    if (faults.length > 0 && !env[ORDER_VARIABLE]) {
      // Once more, for the places: they take a parser that a config without problems never needs.
      const placeOf = await itemPlaces(raw, ["plugins", "order"]);
      load = await this.#loader.load(await resolvePluginList({ ...wanted, placeOf }));
      faults = planGeneration(load, validation.config).problems;
    }
    faults = [...faults, ...certificateFaults(validation.config.server)];
    const problems = [...(await validation.place(faults)), ...validation.problems];
    if (problems.length > 0) throw new TokenmanErrors(problems);
    for (const warning of validation.warnings) log.warn({}, warning);
    const config = this.#fixed(validation.config);
    if (this.#options.opensPorts === true && this.#config === undefined) await probePorts(config.server);
    const host: HostBase = {
      ...this.#host,
      version,
      dataDir: config.server.data_dir,
      storedBodyBytes: storedBodyBytes(config),
      configFile: raw.file,
      watched: watchedBy(raw, config, load),
      config: () => config.redacted(),
    };
    const settings = { id, settings: config, load: { ...load, problems: [] }, keep: this.#keep, host, log };
    const generation = await buildGeneration(settings).catch(async (error: unknown) => {
      throw await placed(error, validation);
    });
    this.#config = config;
    return { generation, config, warnings: validation.warnings };
  }
  /** TokenMan serves: what is made from now on stays. */
  served(): void {
    this.#keep.started();
  }
  /**
   * Removes what was made for a start that failed. The plugins have given theirs back before. Never throws: why the start
   * failed is what is to be told.
   */
  unmake(): void {
    if (this.#options.opensPorts !== true) return;
    for (const each of this.#made) {
      try {
        rmSync(each, { recursive: true, force: true });
      } catch (err) {
        this.#options.log.warn({ err }, `${each} was made for a start that failed, and cannot be removed`);
      }
    }
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
}

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
