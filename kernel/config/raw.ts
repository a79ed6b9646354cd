import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { parse } from "toml";
import { codeFrame } from "./frame.ts";
import { isNearlySecret, isSecretName, maskSource } from "./secret.ts";
import { copy, deeperThan, deepFreeze, emptyTable, MAX_DEPTH, type Table } from "./table.ts";

/** What was read, before any schema looked at it. */
export interface RawConfig {
  /** Absolute; undefined where there is no file. */
  readonly file: string | undefined;
  readonly text: string;
  /** The file's tables. Frozen, without prototypes. */
  readonly table: Table;
  /** The `TOKENMAN_*` variables. */
  readonly env: ReadonlyMap<string, string>;
  /** What `~` stands for. */
  readonly home: string;
}

export interface ReadOptions {
  /** From `--config`; goes before TOKENMAN_CONFIG and the default place. */
  readonly file?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly home?: string;
}

const MAX_BYTES = 8 * 1024 * 1024;

/**
 * Reads the config file and the environment. The file is `options.file`, else TOKENMAN_CONFIG, else
 * `~/.tokenman/tokenman.toml`, which alone may be missing.
 * Throws TokenmanErrors: TM_CONFIG_UNREADABLE, TM_CONFIG_SYNTAX.
 */
export function readConfig(options: ReadOptions = {}): RawConfig {
  const { file, text, ...rest } = readSource(options);
  if (file === undefined) return { file, text, table: emptyTable(), ...rest };
  return { file, text, table: parseConfig(text, file), ...rest };
}

/** How many lines may be dropped before a file is given up. */
const MAX_DROPPED = 16;

/**
 * As {@link readConfig}, but of a file that does not parse it takes what is left without the lines at fault, and of one
 * that cannot be read, nothing: to find the instance that runs with the file, not to run with it. Never throws.
 */
export function salvageConfig(options: ReadOptions = {}): SalvagedConfig {
  const { text: original, ...source } = sourceInSpite(options);
  const salvaged = (text: string, table: Table): SalvagedConfig => ({ ...source, text, table, original });
  const lines = original.split("\n");
  const { file } = source;
  if (file === undefined) return salvaged("", emptyTable());
  for (let dropped = 0; dropped < MAX_DROPPED; dropped++) {
    const text = lines.join("\n");
    try {
      return salvaged(text, parseConfig(text, file));
    } catch (error) {
      const line = error instanceof TokenmanErrors ? error.errors[0]?.place?.line : undefined;
      if (line === undefined || line > lines.length) break;
      lines[line - 1] = "";
    }
  }
  return salvaged("", emptyTable());
}

/** What could be read of a file. */
export interface SalvagedConfig extends RawConfig {
  /** The whole text; `text` is without the lines at fault. */
  readonly original: string;
}

type Source = Omit<RawConfig, "table">;

function readSource(options: ReadOptions): Source {
  const { file, isDefault, ...rest } = place(options);
  const text = readText(file, isDefault);
  return text === undefined ? { file: undefined, text: "", ...rest } : { file, text, ...rest };
}

/** Without a text where it cannot be read. */
function sourceInSpite(options: ReadOptions): Source {
  try {
    return readSource(options);
  } catch {
    const { isDefault: _, ...rest } = place(options);
    return { ...rest, text: "" };
  }
}

function place(
  options: ReadOptions,
): Pick<RawConfig, "env" | "home"> & { readonly file: string; readonly isDefault: boolean } {
  const variables = options.env ?? process.env;
  const home = options.home ?? homedir();
  const env = new Map<string, string>();
  for (const [name, value] of Object.entries(variables)) {
    if (name.startsWith("TOKENMAN_") && value !== undefined) env.set(name, value);
  }
  const named = options.file ?? (env.get("TOKENMAN_CONFIG") || undefined);
  const file = named === undefined ? defaultFile(home) : resolve(expandHome(named, home));
  return { file, isDefault: named === undefined, env, home };
}

/** `~/.tokenman/tokenman.toml`. */
export function defaultFile(home: string = homedir()): string {
  return join(home, ".tokenman", "tokenman.toml");
}

/** Parses a config file's text. Throws TokenmanErrors with one TM_CONFIG_SYNTAX that has place and code frame. */
export function parseConfig(text: string, file: string): Table {
  let parsed: unknown;
  try {
    parsed = parse(text);
  } catch (cause) {
    throw new TokenmanErrors([syntaxError(cause, text, file)]);
  }
  if (deeperThan(parsed, MAX_DEPTH)) {
    throw new TokenmanErrors([
      new TokenmanError("TM_CONFIG_SYNTAX", `tables and lists nest deeper than ${MAX_DEPTH}`, {
        place: { file },
      }),
    ]);
  }
  return deepFreeze(copy(parsed) as Table);
}

/** Replaces a leading `~` by the home folder. */
export function expandHome(path: string, home: string): string {
  if (path === "~") return home;
  return path.startsWith("~/") || path.startsWith("~\\") ? join(home, path.slice(2)) : path;
}

/** An absolute path: `~` is the home folder, a relative path counts from `base`. */
export function resolvePath(path: string, home: string, base: string): string {
  const expanded = expandHome(path, home);
  return isAbsolute(expanded) ? expanded : resolve(base, expanded);
}

function readText(file: string, mayBeMissing: boolean): string | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code;
    if (mayBeMissing && reason === "ENOENT") return undefined;
    throw unreadable(file, REASONS[reason ?? ""] ?? String(reason ?? cause), cause);
  }
  if (bytes.length > MAX_BYTES) throw unreadable(file, `it is over ${MAX_BYTES / 1024 / 1024} MiB`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw unreadable(file, "it is not UTF-8", cause);
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "permission is denied",
  EISDIR: "it is a folder",
  ENOTDIR: "a part of its path is not a folder",
};

function unreadable(file: string, reason: string, cause?: unknown): TokenmanErrors {
  const message = `the config file cannot be read: ${reason}`;
  return new TokenmanErrors([new TokenmanError("TM_CONFIG_UNREADABLE", message, { place: { file }, cause })]);
}

/** The parser's grammar errors carry `location`, `expected` and `found`; its other errors `line` and `column`. */
interface ParserError {
  readonly message: string;
  readonly line?: number;
  readonly column?: number;
  readonly location?: { readonly start: { readonly line: number; readonly column: number } };
  readonly expected?: readonly { readonly type: string; readonly text?: string }[] | null;
  readonly found?: string | null;
}

function syntaxError(cause: unknown, text: string, file: string): TokenmanError {
  const error = cause as ParserError;
  const line = error.location?.start.line ?? error.line;
  const column = error.location?.start.column ?? error.column;
  const message = error.location === undefined ? sentence(error.message) : grammarMessage(error);
  // Nobody has told which keys of this text are known, so one that is nearly a secret's name counts as that.
  const shown = maskSource(text, (key) => isSecretName(key) || isNearlySecret(key));
  return new TokenmanError("TM_CONFIG_SYNTAX", message, {
    cause,
    place: {
      file,
      ...(line !== undefined && { line }),
      ...(column !== undefined && { column }),
      ...(line !== undefined && { frame: codeFrame(shown, line, column ?? 1) }),
    },
  });
}

function sentence(message: string): string {
  if (message.startsWith("Integer "))
    return "the integer is outside the range that can be represented exactly";
  return message.charAt(0).toLowerCase() + message.slice(1).replace(/\.$/, "");
}

function grammarMessage(error: ParserError): string {
  const found =
    error.found === null || error.found === undefined
      ? "the end of the file"
      : /[\r\n]/.test(error.found)
        ? "the end of the line"
        : JSON.stringify(error.found);
  const literals = new Set(
    (error.expected ?? []).filter((each) => each.type === "literal").map((each) => each.text),
  );
  const clue = CLUES.find(([literal]) => literals.has(literal));
  return clue === undefined ? `${found} is not expected here` : `expected ${clue[1]}, found ${found}`;
}

/** What the grammar was in the middle of, told by one literal it would have taken; the first that fits counts. */
const CLUES: readonly (readonly [literal: string, expected: string])[] = [
  ["true", "a value"],
  ["=", '"=" after the key'],
  ["}", '"," or "}"'],
  ["]", '"]"'],
  ["\\", "the end of the quoted text"],
  ["[", "a key, a table header, a comment or the end of the line"],
  ['"', "a key"],
  ["'", "the end of the quoted text"],
  ["#", "a comment or the end of the line"],
];
