import { createHash } from "node:crypto";
import type { AuthConfig, PluginsConfig, ServerConfig } from "./core.ts";
import { redactSections } from "./redact.ts";
import type { Layout } from "./section.ts";
import { isTable } from "./table.ts";
import type { SectionValue } from "./value.ts";

/** A validated config. Everything it hands out is frozen. */
export interface Config {
  /** Absolute; undefined where there is no file. */
  readonly file: string | undefined;
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
  readonly plugins: PluginsConfig;
  /** The projects that the config names. */
  readonly projects: readonly string[];
  /**
   * A section, validated and with its defaults; with the project's overlay where one is asked for. Undefined for a
   * path that no section has. A project that the config does not name has the config of the project "default".
   */
  section(path: string, project?: string): unknown;
  /** The section's `enabled`; true where nothing says so either way. */
  enabled(path: string, project?: string): boolean;
  /** The plugins that `[projects.NAME] disable` names. */
  disabled(project: string): ReadonlySet<string>;
  /** Equal for two projects whose effective config is equal, in this config and in others. Default: "default". */
  signature(project?: string): string;
  /** Everything, for a reader who may not see secrets. A fresh object. */
  redacted(): Readonly<Record<string, unknown>>;
  /** The settings that differ from `old` and need a restart, as "server.proxy_port". */
  changedFixed(old: Config): string[];
  /** This config with the settings that need a restart taken from `old`. */
  keepFixed(old: Config): Config;
}

/** What a reload cannot change: the sockets are bound and the database is open. */
const FIXED = [
  "bind_address",
  "proxy_port",
  "dashboard_port",
  "data_dir",
] as const satisfies readonly (keyof ServerConfig)[];

export interface ConfigParts {
  readonly file: string | undefined;
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
  readonly plugins: PluginsConfig;
  readonly layout: Layout;
  readonly base: ReadonlyMap<string, SectionValue>;
  /** By project, then by section: those that the project overlays. */
  readonly overlays: ReadonlyMap<string, ReadonlyMap<string, SectionValue>>;
  readonly disabled: ReadonlyMap<string, ReadonlySet<string>>;
}

const FALLBACK = "default";
const NONE: ReadonlySet<string> = new Set();

export function createConfig(parts: ConfigParts): Config {
  const { base, overlays, disabled, layout } = parts;
  const signatures = new Map<string, string>();
  const named = (project: string) => (overlays.has(project) ? project : FALLBACK);
  const find = (path: string, project: string | undefined) =>
    (project === undefined ? undefined : overlays.get(named(project))?.get(path)) ?? base.get(path);
  const core = new Map<string, unknown>([
    ["server", parts.server],
    ["auth", parts.auth],
    ["plugins", parts.plugins],
  ]);

  const config: Config = {
    file: parts.file,
    server: parts.server,
    auth: parts.auth,
    plugins: parts.plugins,
    projects: Object.freeze([...overlays.keys()]),
    section: (path, project) => core.get(path) ?? find(path, project)?.value,
    enabled: (path, project) => find(path, project)?.enabled ?? true,
    disabled: (project) => disabled.get(named(project)) ?? NONE,
    signature(project = FALLBACK) {
      const name = named(project);
      let signature = signatures.get(name);
      if (signature === undefined) {
        signature = sign(name);
        signatures.set(name, signature);
      }
      return signature;
    },
    redacted: () => redactSections(layout, parts, core),
    changedFixed: (old) =>
      FIXED.filter((key) => old.server[key] !== parts.server[key]).map((key) => `server.${key}`),
    keepFixed(old) {
      const kept = Object.fromEntries(FIXED.map((key) => [key, old.server[key]]));
      return createConfig({ ...parts, server: Object.freeze({ ...parts.server, ...kept }) });
    },
  };
  return Object.freeze(config);

  function sign(project: string): string {
    const effective: unknown[] = [[...config.disabled(project)].sort()];
    for (const path of [...base.keys()].sort()) {
      if (layout.sections.get(path)?.perProject !== true) continue;
      const section = find(path, project);
      // What a schema made of the text may not be comparable (an instance of a class); then the text is.
      const content = isPlain(section?.value) ? section?.value : section?.written;
      effective.push([path, section?.enabled ?? null, canonical(content)]);
    }
    return createHash("sha256").update(JSON.stringify(effective)).digest("base64url");
  }
}

function isPlain(value: unknown): boolean {
  if (Array.isArray(value) || isTable(value)) return Object.values(value).every(isPlain);
  return value === null || value === undefined || ["string", "number", "boolean"].includes(typeof value);
}

/** Tables as key-sorted lists of pairs, so that equal content gives equal JSON. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (!isTable(value)) return value ?? null;
  const keys = Object.keys(value).filter((key) => value[key] !== undefined);
  return { table: keys.sort().map((key) => [key, canonical(value[key])]) };
}
