import { nearest, TokenmanError } from "@tokenman/plugin-sdk";
import { type CliCommand, commandName } from "./command.ts";
import { help, parse } from "./parse.ts";
import { takesColor } from "./terminal.ts";

export interface DispatchOptions {
  /** The program's name in help and messages. */
  readonly program: string;
  readonly version: string;
  readonly commands: readonly CliCommand[];
  /** The commands that plugins bring. Asked for only where they matter: for an unknown command, and for help. */
  pluginCommands(): Promise<PluginCommands>;
  print(line: string): void;
  /** What is to be read beside the answer. */
  warn(text: string): void;
}

export interface PluginCommands {
  readonly commands: readonly CliCommand[];
  /** Why some may be missing. Told only to those who may miss one. */
  readonly missing?: string;
}

/**
 * Runs the command that `argv` names (without Node and script) and resolves to its exit code. Commands may have two
 * words; options may stand anywhere. Rejects with TM_USAGE for whatever is not understood, with the nearest known.
 */
export async function dispatch(argv: readonly string[], options: DispatchOptions): Promise<number> {
  const { program, version, print } = options;
  const [first] = argv;
  if (first === "--version" || first === "-v") {
    print(version);
    return 0;
  }
  const asked = first === "help" ? [...argv.slice(1), "--help"] : argv;
  let known = options.commands;
  let found = find(asked, known);
  if (found === undefined) {
    const { commands, missing } = await options.pluginCommands();
    known = [...known, ...commands];
    found = find(asked, known);
    if (found === undefined && missing !== undefined)
      options.warn(`some commands may be missing: ${missing}`);
  }
  if (found !== undefined) {
    const { command, rest } = found;
    const parsed = parse(program, command, rest);
    if (parsed === "help") {
      print(help(program, version, command, known));
      return 0;
    }
    return (await command.run({ ...parsed, print, color: takesColor(process.stdout) })) ?? 0;
  }
  const words = wordsAt(asked, known).map((at) => asked[at]!);
  if (words.length === 0) {
    const stray = asked.find((word) => word.startsWith("-") && !/^(--help|-h|--config(=.*)?)$/s.test(word));
    if (stray !== undefined) throw new TokenmanError("TM_USAGE", `unknown option ${stray}, and no command`);
    print(help(program, version, undefined, known));
    return 0;
  }
  throw unknownCommand(program, words, known);
}

interface Found {
  readonly command: CliCommand;
  /** `argv` without the command's words. */
  readonly rest: readonly string[];
}

/** The command that the first one or two words name; two words go before one. */
function find(argv: readonly string[], commands: readonly CliCommand[]): Found | undefined {
  const [at, next] = wordsAt(argv, commands);
  if (at === undefined) return undefined;
  for (const count of next === at + 1 ? [2, 1] : [1]) {
    const name = argv.slice(at, at + count).join(" ");
    const command = commands.find((each) => commandName(each) === name);
    if (command !== undefined) return { command, rest: argv.toSpliced(at, count) };
  }
  return undefined;
}

/** Where those words are that are neither an option nor the value of one. */
function wordsAt(argv: readonly string[], commands: readonly CliCommand[]): number[] {
  const valued = new Set(commands.flatMap(flagsWithValue));
  return [...argv.keys()].filter((at) => !argv[at]!.startsWith("-") && !valued.has(argv[at - 1] ?? ""));
}

/** The spellings of a command's options that are followed by a value. */
function flagsWithValue({ options = [] }: CliCommand): string[] {
  return options.flatMap(({ flag }) =>
    flag.includes("<") ? (flag.match(/(?<![\w-])--?[\w-]+/g) ?? []) : [],
  );
}

function unknownCommand(
  program: string,
  words: readonly string[],
  commands: readonly CliCommand[],
): TokenmanError {
  const names = commands.map(commandName);
  const [first = "", second] = words;
  const family = names.filter((name) => name.startsWith(`${first} `));
  if (family.length > 0) {
    const what =
      second === undefined ? `"${first}" needs one more word` : `unknown command "${first} ${second}"`;
    return new TokenmanError("TM_USAGE", `${what}; known: ${family.join(", ")}`);
  }
  const near = nearest(first, names) ?? nearest(words.slice(0, 2).join(" "), names);
  const hint = near === undefined ? `see "${program} --help"` : `did you mean "${near}"?`;
  return new TokenmanError("TM_USAGE", `unknown command "${first}"; ${hint}`);
}
