import { chmodSync, mkdirSync } from "node:fs";
import { isIPv6 } from "node:net";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import {
  type AuthConfig,
  coreFromRaw,
  type RawConfig,
  readConfig,
  type ServerConfig,
  salvageConfig,
} from "../kernel/config/index.ts";
import { runningInstance } from "./pid-file.ts";

/** What a command needs to know of the config to find, start or ask an instance. */
export interface CliSettings {
  readonly raw: RawConfig;
  readonly server: ServerConfig;
  readonly auth: AuthConfig;
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
 * As {@link readSettings}, for a command that looks after an instance that runs. A file that was broken since is no reason
 * to leave that alone: what can be read of it is used where that finds an instance which runs with this very file, and
 * stderr tells what is wrong. Throws as `readSettings` does where there is none.
 */
export function settingsOfRunning(options: Readonly<Record<string, unknown>>): CliSettings {
  try {
    return readSettings(options);
  } catch (error) {
    const broken = error instanceof TokenmanErrors && error.errors[0]?.code === "TM_CONFIG_SYNTAX";
    if (!broken) throw error;
    const settings = settingsOf(salvageConfig({ file: configOption(options) }));
    if (runningInstance(settings.server.data_dir)?.configFile !== settings.raw.file) throw error;
    process.stderr.write(`${error.message}\nthe instance that runs with this file was found all the same\n`);
    return settings;
  }
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
