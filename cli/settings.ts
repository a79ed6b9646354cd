import { chmodSync, mkdirSync } from "node:fs";
import { isIPv6 } from "node:net";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import {
  type AuthConfig,
  coreFromRaw,
  type RawConfig,
  readConfig,
  type SalvagedConfig,
  type ServerConfig,
  salvageConfig,
} from "../kernel/config/index.ts";
import { describeFailure } from "./failure.ts";
import { runningInstance } from "./pid-file.ts";

/** What a command needs to know of the config to find, start or ask an instance. */
export interface CliSettings {
  readonly raw: RawConfig;
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
  /** What is wrong with the file, where it was read as far as that lets it be. */
  readonly broken?: TokenmanErrors;
}

/**
 * Reads the config file that `options.config`, TOKENMAN_CONFIG or the default names, and the environment. Only the
 * core's sections are looked at, and leniently: all of it is validated where it is used, in the instance.
 * Throws TokenmanErrors: TM_CONFIG_UNREADABLE, TM_CONFIG_SYNTAX.
 */
export function readSettings(options: Readonly<Record<string, unknown>>): CliSettings {
  return settingsOf(readConfig({ file: configOption(options) }));
}

/**
 * As {@link readSettings}, for a command that only asks an instance that runs, or reads the data folder. A file that was
 * broken since the start is no reason to leave those alone: what can be read of it is used, and stderr tells what is
 * wrong. Throws as `readSettings` does where that may lead to another data folder than the file means.
 */
export function settingsInSpite(options: Readonly<Record<string, unknown>>): CliSettings {
  try {
    return readSettings(options);
  } catch (error) {
    if (!(error instanceof TokenmanErrors)) throw error;
    const raw = salvageConfig({ file: configOption(options) });
    const settings = { ...settingsOf(raw), broken: error };
    const { server } = settings;
    const runs = raw.file !== undefined && runningInstance(server.data_dir)?.configFile === raw.file;
    if (!runs && !tellsDataDir(raw)) throw error;
    const all = runs ? "the instance that runs with this file was found" : `${server.data_dir} was looked at`;
    process.stderr.write(`${describeFailure(error).text}\n${all} all the same\n`);
    return settings;
  }
}

/** Whether what was read of a broken file says where the data folder is: or that nothing says so, and the default holds. */
function tellsDataDir({ original, table, env }: SalvagedConfig): boolean {
  if (env.has("TOKENMAN_SERVER_DATA_DIR")) return true;
  if (original === "") return false;
  const server = table["server"] as Readonly<Record<string, unknown>> | undefined;
  return typeof server?.["data_dir"] === "string" || !/data_dir/.test(original);
}

function settingsOf(raw: RawConfig): CliSettings {
  const { server, auth } = coreFromRaw(raw);
  return { raw, server, auth };
}

/** The value of `--config`. */
export function configOption(options: Readonly<Record<string, unknown>>): string | undefined {
  return typeof options["config"] === "string" ? options["config"] : undefined;
}

/** Where a program on this machine reaches the configured dashboard port, whether something listens there or not. */
export function dashboardUrl({ server }: CliSettings): string {
  return localUrl(server.bind_address, server.dashboard_port, server.tls_enabled);
}

function localUrl(address: string, port: number, tls: boolean): string {
  // A wildcard address is for listening only.
  const reachable = address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : address;
  return `${tls ? "https" : "http"}://${isIPv6(reachable) ? `[${reachable}]` : reachable}:${port}`;
}

/** Makes the data folder, for this user only. Throws TM_DATA_DIR. */
export function prepareDataDir(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    chmodSync(folder, 0o700);
  } catch (cause) {
    throw new TokenmanError(
      "TM_DATA_DIR",
      `the data folder ${folder} cannot be used: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}
