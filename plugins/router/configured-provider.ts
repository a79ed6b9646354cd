import type {
  Format,
  Logger,
  Provider,
  ProviderConnection,
  ProviderTimeouts,
  Secret,
} from "@tokenman/plugin-sdk";
import { classicVariable, type KeyReader, keyReader } from "./key.ts";
import type { ProviderConfig } from "./schema.ts";

/** The formats that the plugins contributed; complete only when all of them are set up. */
export type Formats = () => readonly Format[];

/**
 * A provider of `[providers.NAME]`, or one that exists without being configured. Its format and address may depend on
 * what other plugins contribute, so they are worked out when they are first read.
 */
export class ConfiguredProvider implements Provider {
  readonly name: string;
  /** The second name that the config gives it. */
  readonly alias: string | undefined;
  readonly models: readonly string[];
  readonly priority: number;
  /** Its part of the conversations among its equals; 0: it goes behind those that have one. */
  readonly weight: number;
  readonly timeouts: ProviderTimeouts;
  /** Undefined: the kernel's defaults. */
  readonly connection: ProviderConnection | undefined;
  readonly auth: Provider["auth"];
  /** Whether the user wrote `auth = "client"`, and so vouches for the server that gets the client's credential. */
  readonly isTrusted: boolean;
  /** Whether the config names it at all. */
  readonly isConfigured: boolean;
  /** Its own keys, in the order in which they are used; none where none is configured. */
  readonly keys: readonly KeyReader[];
  readonly #config: ProviderConfig;
  readonly #formats: Formats;
  #format: string | undefined;

  /** `connection`: where the config names the provider. */
  constructor(
    name: string,
    config: ProviderConfig,
    connection: ProviderConnection | undefined,
    formats: Formats,
    log: Logger,
  ) {
    this.name = name;
    this.alias = config.name;
    this.models = Object.freeze([...config.models]);
    this.priority = config.priority;
    this.weight = config.weight;
    this.timeouts = Object.freeze({
      connectMs: config.connect_timeout * 1000,
      headMs: config.timeout * 1000,
      idleMs: config.idle_timeout === undefined ? undefined : config.idle_timeout * 1000,
      totalMs: config.total_timeout * 1000,
    });
    this.connection = connection;
    this.auth = config.auth ?? "client";
    this.isTrusted = config.auth === "client";
    this.isConfigured = connection !== undefined;
    this.#config = config;
    this.#formats = formats;
    // The environment does not change while the process runs, and asking it costs a microsecond.
    const variable = classicVariable(name);
    const classic = process.env[variable] ? [`env:${variable}`] : [];
    const references = config.key_ref.length > 0 ? config.key_ref : classic;
    this.keys = references.map((reference) => keyReader(reference, name, log));
  }

  get format(): string {
    this.#format ??= this.#config.format ?? formatOf(this.name, this.#config.api_base, this.#formats());
    return this.#format;
  }

  get apiBase(): string | undefined {
    return (
      this.#config.api_base ?? this.#formats().find((format) => format.name === this.format)?.defaultBase
    );
  }

  /** The first of its keys; undefined where none is configured. Throws or rejects with TM_KEY_UNAVAILABLE. */
  key(): Promise<Secret> | Secret | undefined {
    return this.keys[0]?.();
  }
}

/**
 * The format of a provider that names none: that of its own name ("anthropic", "openai-work"), of the vendor whose host
 * it is at, or of a folder of the address (…/anthropic). All the rest copied OpenAI's API.
 */
function formatOf(name: string, apiBase: string | undefined, formats: readonly Format[]): string {
  const byName = formats.find((format) => name === format.name || /^[._-]/.test(suffix(name, format.name)));
  if (byName !== undefined) return byName.name;
  const url = apiBase === undefined ? undefined : new URL(apiBase);
  const byHost = formats.find((format) => url !== undefined && format.hosts.includes(url.host));
  const folders = url?.pathname.split("/") ?? [];
  return (byHost ?? formats.find((format) => folders.includes(format.name)))?.name ?? "openai";
}

function suffix(text: string, prefix: string): string {
  return text.startsWith(prefix) ? text.slice(prefix.length) : "";
}
