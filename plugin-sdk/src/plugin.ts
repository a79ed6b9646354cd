import type { z } from "zod";
import type { Answer, Question } from "./ask.ts";
import type { Command } from "./command.ts";
import type { ContributionKind, Contributions } from "./contribution.ts";
import type { ErrorCode, TokenmanError } from "./errors.ts";
import type { Attempt, Exchange, Outcome, Verdict } from "./exchange.ts";
import type { InnerExchange, InnerRequest } from "./inner-exchange.ts";
import type { Logger } from "./log.ts";
import type { Provider } from "./provider.ts";
import type { Reply, ReplyInit } from "./reply.ts";
import type { Need, Services, ServiceToken } from "./service.ts";

/** The version of this interface. A plugin written for a newer one is refused. */
export const API_VERSION = 1;

/** Places a plugin that no order list names; the request passes them left to right. */
export const STAGES = ["ingress", "lookup", "guard", "admit", "shape", "route"] as const;
export type Stage = (typeof STAGES)[number];

/** Marks an object as a plugin definition, whichever copy of the SDK made it. */
export const PLUGIN_STAMP: unique symbol = Symbol.for("@tokenman/plugin-sdk/plugin") as never;

/**
 * A config schema: zod 4 gives exact places in errors, JSON Schema and the example file; any Standard Schema
 * validates. The input is the section's table without `enabled` keys the schema does not know.
 */
export type ConfigSchema = z.ZodType | StandardSchema;

/** The part of the Standard Schema interface that is used (https://standardschema.dev). */
export interface StandardSchema {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    validate(value: unknown): StandardResult | Promise<StandardResult>;
    readonly types?: { readonly input: unknown; readonly output: unknown } | undefined;
  };
}
export type StandardResult =
  | { readonly value: unknown; readonly issues?: undefined }
  | {
      readonly issues: readonly {
        readonly message: string;
        readonly path?: readonly PropertyKey[] | undefined;
      }[];
    };

export type ConfigOf<S> = S extends z.ZodType
  ? z.output<S>
  : S extends { readonly "~standard": { readonly types?: { readonly output: infer O } | undefined } }
    ? O
    : Readonly<Record<string, unknown>>;

/** Registers functions on one hook. Taps run in the plugins' order; `response` in reverse. */
export interface Tap<F> {
  tap(fn: F): void;
}

/** A plugin's own failures end up here with its name and hook; see `onError`. */
export interface Lifecycle {
  /** The generation is about to be swapped in. A throw keeps the old one. */
  ready: () => void | Promise<void>;
  /** The generation was swapped out; exchanges in flight may still run. */
  retire: () => void | Promise<void>;
  /** An exchange began (after its pipeline was chosen). */
  start: (exchange: Exchange) => void | Promise<void>;
  /** An attempt ended; `attempt.result` is set. Skipped ones too. */
  attemptEnd: (exchange: Exchange, attempt: Attempt) => void | Promise<void>;
  /** An exchange ended. Exactly once, always. */
  settled: (exchange: Exchange, outcome: Outcome) => void | Promise<void>;
  /** TokenMan is about to end: it takes no more requests, and those in flight are given a while. Once, or not at all. */
  drain: () => void | Promise<void>;
  /** A reload ended, well or badly. Runs on the generation that serves. */
  reload: (event: ReloadEvent) => void | Promise<void>;
}

export interface ReloadEvent {
  readonly ok: boolean;
  readonly generation: number;
  /** What failed, in words, with file, line and code frame where known. */
  readonly error: string | undefined;
  /** The same for readers who may not see the config: a line each, "FILE:LINE: CODE", without the folder. */
  readonly brief?: string;
  /** The files in which the problems are, absolute: a change of one of them may mend it. */
  readonly files?: readonly string[];
}

/** The four hooks. */
export interface Hooks {
  /** A returned reply answers the client now; the plugins after you do not see the request. */
  readonly request: Tap<
    (
      exchange: Exchange,
    ) => Promise<ReplyInit | Reply | undefined | void> | ReplyInit | Reply | undefined | void
  >;
  /** Before every attempt. */
  readonly beforeUpstream: Tap<
    (exchange: Exchange, attempt: Attempt) => Promise<Verdict | undefined | void> | Verdict | undefined | void
  >;
  /** Once, when the reply's head is known. Return another reply to replace it. */
  readonly response: Tap<
    (
      reply: Reply,
      exchange: Exchange,
    ) => Promise<ReplyInit | Reply | undefined | void> | ReplyInit | Reply | undefined | void
  >;
  readonly lifecycle: { for<K extends keyof Lifecycle>(name: K): Tap<Lifecycle[K]> };
}

/** What `setup` is given. Everything acquired through it is given back when the generation is disposed. */
export interface SetupContext<C, N extends Readonly<Record<string, Need>>> {
  /** The plugin's section with the environment's overrides and defaults, without any project's overlay. Frozen. */
  readonly config: C;
  /** One of the plugin's `extraSections`, validated and frozen like `config`. Throws RangeError on any other name. */
  section(name: string): unknown;
  readonly services: Services<N>;
  readonly log: Logger;
  readonly host: HostInfo;
  /** Acquires a resource: `dispose` is called, last in first out, when the generation ends or set-up fails. */
  effect<T>(
    label: string,
    acquire: () => T | Promise<T>,
    dispose?: (value: T) => void | Promise<void>,
  ): Promise<T>;
  /** Runs `task` every `intervalMs` until the generation ends. Never overlaps itself; errors are logged. */
  every(label: string, intervalMs: number, task: () => void | Promise<void>): void;
  /**
   * A resource that outlives reloads: made once for `key`, handed to every later generation, dropped when no
   * generation holds it. Do not change it in `setup`: the old generation still serves. Where `make` creates files, `drop`
   * removes those that are its own after a start that failed.
   */
  keep<T>(
    key: string,
    make: () => T | Promise<T>,
    drop?: (value: T, end: KeepEnd) => void | Promise<void>,
  ): Promise<T>;
  provide<T>(token: ServiceToken<T>, value: T): void;
  contribute<K extends ContributionKind>(kind: K, value: Contributions[K]): void;
  /** Called once for each distinct effective config (projects differ); `config` is that one. */
  pipeline(build: (config: C, hooks: Hooks) => void): void;
}

/** Why a kept resource is dropped. */
export interface KeepEnd {
  /** TokenMan did not come to serve, and is to leave the disk as it found it. */
  readonly startFailed: boolean;
}

/** Facts about the running TokenMan, and what a plugin may ask of it. */
export interface HostInfo {
  readonly version: string;
  /** Absolute; mode 0700. */
  readonly dataDir: string;
  readonly generation: number;
  /** Unique for each start of the process. */
  readonly bootId: string;
  /**
   * 32 secret bytes for one purpose, the same at every start with this data folder: for hashes that nobody else can
   * compute. Throws TM_DATA_DIR where the folder's key can be neither read nor made.
   */
  keyFor(purpose: string): Buffer;
  /** How many bytes of each request and reply body may be stored: `server.store_body`, `max_log_body`. 0 is none. */
  readonly storedBodyBytes: number;
  /** Absolute; undefined where TokenMan runs without a config file. */
  readonly configFile: string | undefined;
  /** Files and folders whose change means a reload: config file, plugin sources, plugins folder. */
  readonly watched: readonly string[];
  /** The generation being set up, and later the one that serves. */
  readonly registry: RegistryView;
  /** Builds a new generation and swaps it in. Resolves when done; never rejects. */
  reload(reason: string): Promise<ReloadEvent>;
  status(): HostStatus;
  /**
   * Asks a provider something of TokenMan's own, beside all exchanges and hooks, over the kernel's connections. Rejects
   * with TM_UPSTREAM_*, TM_REPLY_TOO_LARGE; any status is an answer.
   */
  ask(provider: Provider, question: Question): Promise<Answer>;
  /**
   * Begins an exchange as if a client had sent this request: with all hooks, limits, attempts and its row in the ledger, on
   * the generation that serves. Not before `ready`. Throws TM_BAD_REQUEST for a project that has no proper name or a
   * path with a `#`, and TM_INTERNAL where it would nest too deep.
   */
  exchange(request: InnerRequest): InnerExchange;
  /** The whole config of this generation, with its defaults, without the secrets in it. A fresh object each time. */
  config(): Readonly<Record<string, unknown>>;
}

/** What plugins contributed to a generation. Complete from `ready` on. */
export interface RegistryView {
  all<K extends ContributionKind>(kind: K): readonly Contributions[K][];
}

export interface HostStatus {
  readonly pid: number;
  readonly startedAt: number;
  readonly generation: number;
  readonly activeExchanges: number;
  /** Requests that never became an exchange, since the start, by code: a wrong Host, Origin or token, a head that is no good. */
  readonly refusals: Readonly<Partial<Record<ErrorCode, number>>>;
  readonly proxyAddress: string;
  readonly dashboardAddress: string;
  readonly lastReload: (ReloadEvent & { readonly at: number }) | undefined;
  readonly draining: boolean;
  readonly plugins: readonly PluginStatus[];
}

export interface PluginStatus {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  /** Hash over all files that it was made from; undefined for a built-in one, whose code changes with `host.version` only. */
  readonly digest: string | undefined;
  readonly state: "on" | "off" | "quarantined";
  /** Why it is off or quarantined. */
  readonly reason: string | undefined;
  readonly failures: number;
}

/** Names that are known before a plugin is set up. */
export interface DeclaredNames {
  readonly formats?: readonly string[];
  /** The models that each lists, by its name. */
  readonly providers?: Readonly<Record<string, readonly string[]>>;
}

/** The config before any schema looked at it. */
export interface WrittenConfig {
  /** A section as the file and the environment have it, under the overlay of `project`; empty where nothing is written. */
  section(path: string, project?: string): Readonly<Record<string, unknown>>;
  readonly projects: readonly string[];
  /** What the loaded plugins declare; undefined where one does not say, and so may contribute anything. */
  readonly names: Required<DeclaredNames> | undefined;
}

/** See the fields. `C` is inferred from `configSchema`, `N` from `needs`. */
export interface PluginDefinition<
  S extends ConfigSchema = ConfigSchema,
  N extends Readonly<Record<string, Need>> = Readonly<Record<string, Need>>,
> {
  /** Lower-case words with dashes; unique in a generation. */
  readonly name: string;
  readonly version: string;
  readonly apiVersion: number;
  /** One line for `tokenman plugins`. */
  readonly description?: string;
  /** Where its config lives in tokenman.toml ("security.pii"); third parties leave it out and get `plugins.configs.NAME`. */
  readonly section?: string;
  readonly configSchema?: S;
  /** Further sections of the file that this plugin owns, by name ("providers"); read with `ctx.section(name)`. */
  readonly extraSections?: Readonly<Record<string, ConfigSchema>>;
  readonly needs?: N;
  readonly provides?: readonly ServiceToken<unknown>[];
  readonly stage?: Stage;
  /** What a throw or time-out in a hook means for the exchange: go on without it (default), or refuse. */
  readonly onError?: "open" | "closed";
  /** Milliseconds. Defaults: setup 10,000, hook 5,000 (less the time in `ex.wait`). */
  readonly timeouts?: { readonly setupMs?: number; readonly hookMs?: number };
  readonly commands?: readonly Command[];
  /** What its contributions will be called, so that names in the config can be checked before anything is set up. */
  readonly contributes?: DeclaredNames;
  /**
   * What is wrong with the config beyond its schemas, as far as it can be told without a set-up: each with its
   * `configPath`. Told together with everything else that is wrong. It is asked for configs that schemas refuse as well.
   */
  check?(written: WrittenConfig): readonly TokenmanError[];
  setup(ctx: SetupContext<ConfigOf<S>, N>): void | Promise<void>;
}

/** A definition with its stamp, as the loader finds it. */
export type Plugin = PluginDefinition & { readonly [PLUGIN_STAMP]: number };

/** Declares a plugin: the default export of a plugin's module. */
export function definePlugin<
  const S extends ConfigSchema = ConfigSchema,
  const N extends Readonly<Record<string, Need>> = Readonly<Record<never, Need>>,
>(definition: PluginDefinition<S, N>): Plugin {
  return Object.freeze({ ...definition, [PLUGIN_STAMP]: API_VERSION }) as unknown as Plugin;
}
