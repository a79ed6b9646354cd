import type { Logger } from "./log.ts";
import type { HostInfo } from "./plugin.ts";

/** A command of the CLI that a plugin brings: `tokenman NAME …`. Running it does not call the plugin's `setup`. */
export interface Command {
  /** One or two words, then arguments as cac writes them: "savings", "keys set <provider>". */
  readonly usage: string;
  readonly description: string;
  readonly options?: readonly CommandOption[];
  /** Whole command lines. */
  readonly examples?: readonly string[];
  /** Resolves to the exit code; undefined is 0. Throw a TokenmanError for a message without a stack. */
  run(context: CommandContext): Promise<number | undefined | void>;
}

export interface CommandOption {
  /** As cac writes it: "--json", "--since <duration>". */
  readonly flag: string;
  readonly description: string;
  readonly default?: string | number | boolean;
}

export interface CommandContext {
  readonly args: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly options: Readonly<Record<string, unknown>>;
  /** The plugin's section of the config file, validated. */
  readonly config: unknown;
  readonly host: Pick<HostInfo, "version" | "dataDir" | "configFile">;
  /**
   * Base URL of the dashboard port of the configured instance, running or not. Throws TM_NOT_RUNNING where the config file
   * is broken and does not say which that is.
   */
  readonly dashboardUrl: string;
  /**
   * Asks the running instance; adds the `[auth]` token. Rejects with TM_NOT_RUNNING. Whether it is a TokenMan that answered,
   * `readAnswer` sees.
   */
  fetch(path: string, init?: { readonly method?: string; readonly body?: string }): Promise<Response>;
  print(line: string): void;
  /** Whether to colour: a terminal and no NO_COLOR. */
  readonly color: boolean;
  readonly log: Logger;
}
