import type { CommandContext, CommandOption } from "@tokenman/plugin-sdk";

/** What one run of a command is given. */
export interface Invocation {
  /** By the names in the usage line; a variadic one is a list. */
  readonly args: CommandContext["args"];
  /** In camelCase. Those that take a value are text, as typed. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Prints a line on stdout. */
  print(line: string): void;
  /** Whether stdout takes colours. */
  readonly color: boolean;
}

/** A command as the dispatcher knows it: one of the CLI's own, or a plugin's. */
export interface CliCommand {
  /** One or two words, then arguments: "project <name> <action> <plugin>". */
  readonly usage: string;
  readonly description: string;
  readonly options?: readonly CommandOption[];
  readonly examples?: readonly string[];
  /** Resolves to the exit code; undefined is 0. Rejects with an error of the catalogue for a message without a stack. */
  run(invocation: Invocation): Promise<number | undefined | void>;
}

/** The words of a command's usage before its arguments: "keys set". */
export function commandName({ usage }: Pick<CliCommand, "usage">): string {
  return usage.replace(/[<[].*/s, "").trim();
}
