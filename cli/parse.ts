import { nearest, TokenmanError } from "@tokenman/plugin-sdk";
import { type CAC, type Command, cac } from "cac";
import { type CliCommand, commandName, type Invocation } from "./command.ts";
import { labelled } from "./terminal.ts";

type Parsed = Pick<Invocation, "args" | "options">;

/**
 * What `argv` says to `command`, or "help" where it asks for that. Throws TM_USAGE for an unknown option (with the
 * nearest known one), a missing value, and missing or surplus arguments.
 */
export function parse(program: string, command: CliCommand, argv: readonly string[]): Parsed | "help" {
  const { cli, registered } = register(program, command);
  const { flags, values } = takeValues(argv, registered);
  const { args, options } = cli.parse(["", "", "!", ...flags], { run: false });
  // cac takes what follows "--" out of the arguments.
  cli.args = [...args, ...((options["--"] as string[] | undefined) ?? [])].map(String);
  cli.options = options;
  const { help: wantsHelp, h: _h, "--": _rest, ...given } = options as Record<string, unknown>;
  if (wantsHelp === true) return "help";
  refuseUnknown(program, command, registered, given);
  try {
    registered.checkOptionValue();
    registered.checkRequiredArgs();
    registered.checkUnusedArgs();
  } catch (cause) {
    throw usageError(program, command, (cause as Error).message, cause);
  }
  const named: Record<string, string | readonly string[] | undefined> = {};
  for (const [index, { value, variadic }] of registered.args.entries()) {
    named[value] = variadic ? cli.args.slice(index) : cli.args[index];
  }
  return { args: named, options: { ...given, ...values } };
}

/** The help of one command, or of the program where `command` is undefined; no wider than `columns` where that can be. */
export function help(
  program: string,
  version: string,
  command: CliCommand | undefined,
  commands: readonly CliCommand[],
  columns: number = process.stdout.columns ?? Number.POSITIVE_INFINITY,
): string {
  const cli = cac(program);
  cli.version(version);
  let text = "";
  cli.help((sections) => {
    // cac would go on to list `tokenman COMMAND --help` once for each command.
    const shown = sections.filter(({ title }) => title?.startsWith("For more info") !== true);
    text = shown
      .map(({ title, body }) => (title === undefined ? body : `${title}:\n${body}`))
      .join("\n\n")
      .replace(/[ \t]+$/gm, "");
    return [];
  });
  for (const each of commands) add(cli, each);
  for (const each of commands.filter(({ usage }) => /^(start|status|init-config|plugins)\b/.test(usage))) {
    for (const example of each.examples?.slice(0, 1) ?? []) cli.example(`  $ ${example}`);
  }
  const target = cli.commands.find(({ name }) => command !== undefined && name === commandName(command));
  silently(() => (target ?? cli.globalCommand).outputHelp());
  const whole =
    command === undefined
      ? `${text}\n\nOne command in detail: ${program} COMMAND --help`
      : text.replace("\n", `\n\n${command.description}\n`);
  return whole
    .split("\n")
    .flatMap((line) => fit(line, columns))
    .join("\n");
}

const LEAST_COLUMNS = 20;

/** A line whose second column is broken at spaces. */
function fit(line: string, columns: number): string[] {
  const [, first = "", second = ""] = /^( +\S.*? {2,})(\S.*)$/.exec(line) ?? [];
  if (line.length <= columns || second === "" || columns - first.length < LEAST_COLUMNS) return [line];
  return labelled(first, second, columns);
}

/** cac writes help to the console, after the callback had its sections: an empty line. */
function silently(work: () => void): void {
  const { info } = console;
  console.info = () => {};
  try {
    work();
  } finally {
    console.info = info;
  }
}

function register(program: string, command: CliCommand): { cli: CAC; registered: Command } {
  const cli = cac(program);
  cli.option("-h, --help", "Display this message");
  // The words are gone from argv, and cac cannot match two of them: one name stands for them.
  const registered = add(cli, { ...command, usage: command.usage.replace(commandName(command), "!") });
  return { cli, registered };
}

function add(cli: CAC, command: CliCommand): Command {
  const added = cli.command(command.usage, command.description);
  for (const { flag, description, default: fallback } of command.options ?? []) {
    added.option(flag, description, fallback === undefined ? {} : { default: fallback });
  }
  for (const example of command.examples ?? []) added.example(`  $ ${example}`);
  return added;
}

/**
 * cac reads `-x` after `--name` as another option, and "007" as a number. So the options that take a value are taken
 * out here, and cac gets only the fact that they were given one.
 */
function takeValues(
  argv: readonly string[],
  command: Command,
): { flags: string[]; values: Record<string, string> } {
  const flags: string[] = [];
  const values: Record<string, string> = {};
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index]!;
    if (word === "--") {
      flags.push(...argv.slice(index));
      break;
    }
    const [, dashes, name, inline] = /^(--?)([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    const option = name === undefined ? undefined : command.hasOption(camel(name));
    if (option?.required !== true || dashes === undefined) {
      flags.push(word);
      continue;
    }
    const value = inline ?? argv[index + 1];
    if (inline === undefined) index++;
    if (value === undefined) flags.push(word);
    else {
      flags.push(`${dashes}${name}=given`);
      values[option.name] = value;
    }
  }
  return { flags, values };
}

function refuseUnknown(
  program: string,
  command: CliCommand,
  registered: Command,
  given: Readonly<Record<string, unknown>>,
): void {
  for (const name of Object.keys(given)) {
    if (registered.hasOption(name) !== undefined) continue;
    const shown = name.length === 1 ? `-${name}` : `--${kebab(name)}`;
    const long = registered.options.flatMap(({ names }) => names).filter((each) => each.length > 1);
    const near =
      name.length === 1
        ? undefined
        : nearest(
            shown,
            long.map((each) => `--${kebab(each)}`),
          );
    const hint =
      near === undefined ? `see "${program} ${commandName(command)} --help"` : `did you mean ${near}?`;
    throw new TokenmanError("TM_USAGE", `unknown option ${shown}; ${hint}`);
  }
}

function usageError(program: string, command: CliCommand, message: string, cause: unknown): TokenmanError {
  // cac speaks of the name that stands for the command's words.
  const said = message.replaceAll(/`([^`]*)`/g, (_, quoted: string) =>
    quoted.startsWith("!") ? `"${command.usage}"` : `"${quoted}"`,
  );
  const text = said.charAt(0).toLowerCase() + said.slice(1);
  return new TokenmanError("TM_USAGE", `${text}; see "${program} ${commandName(command)} --help"`, { cause });
}

function camel(name: string): string {
  return name.replace(/([a-z])-([a-z])/g, (_, before: string, after: string) => before + after.toUpperCase());
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
