import { dirname } from "node:path";
import type { z } from "@tokenman/plugin-sdk";
import {
  type AuthConfig,
  authSchema,
  isLoopback,
  type PluginsConfig,
  pluginsSchema,
  type ServerConfig,
  serverSchema,
} from "./core.ts";
import type { RawConfig } from "./raw.ts";
import { shapeOf } from "./shape.ts";
import { deepFreeze, isTable, type Table } from "./table.ts";
import { finish, type Paths } from "./value.ts";

const schemas = { server: serverSchema, auth: authSchema, plugins: pluginsSchema } as const;
type CoreSection = keyof typeof schemas;

export interface CoreConfig {
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
  readonly plugins: PluginsConfig;
}

/**
 * The core's sections as the kernel uses them, from what `written` gives for each. Keys that are unknown or invalid
 * have their defaults. Frozen. Never throws.
 */
export function coreOf(written: (section: CoreSection) => unknown, raw: RawConfig): CoreConfig {
  const paths = pathsOf(raw);
  const made = <S extends CoreSection>(section: S) =>
    finish(tolerant(schemas[section], written(section)), shapeOf(schemas[section]), paths) as z.output<
      (typeof schemas)[S]
    >;
  const server = made("server");
  const { enabled, token, proxy } = made("auth");
  const { order, dir, configs } = made("plugins");
  return deepFreeze({
    server,
    auth: { enabled, token, proxy: enabled && (proxy ?? !isLoopback(server.bind_address)) },
    plugins: { order, dir, configs },
  });
}

/** What relative paths and `~` in this config count from: the config file's folder, and the home folder. */
export function pathsOf(raw: RawConfig): Paths {
  return { home: raw.home, base: raw.file === undefined ? process.cwd() : dirname(raw.file) };
}

function tolerant(schema: (typeof schemas)[CoreSection], input: unknown): unknown {
  const kept: Table = isTable(input) ? { ...input } : {};
  const first = schema.safeParse(kept);
  if (first.success) return first.data;
  for (const issue of first.error.issues) {
    const at = issue.path[0];
    const keys = issue.code === "unrecognized_keys" && at === undefined ? issue.keys : [String(at)];
    for (const key of keys) delete kept[key];
  }
  const second = schema.safeParse(kept);
  return second.success ? second.data : schema.parse({});
}
