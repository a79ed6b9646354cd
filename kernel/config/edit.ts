import { isDeepStrictEqual } from "node:util";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { AST } from "toml-eslint-parser";
import { type Assignment, type Document, openDocument } from "./document.ts";
import { parseConfig } from "./raw.ts";
import { DISABLE, PROJECTS } from "./section.ts";
import { copy, formatKey, get, isTable, quote, set, splitPath, type Table } from "./table.ts";
import { isProjectName } from "./unknown.ts";

/** Puts `text` in place of a stretch of the file. */
interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/**
 * The config file's text with a plugin switched on or off for one project: its name is put into, or taken out of,
 * `[projects.NAME] disable`. Every other byte stays. With `section`, switching on also sets `enabled = true` in the
 * project's overlay of that section, for plugins that are off by default.
 * Throws TM_USAGE for a name that cannot be a project's, TM_CONFIG_SYNTAX, and TM_CONFIG_INVALID where the file has something else there.
 */
export async function setProjectPlugin(
  text: string,
  project: string,
  plugin: string,
  enable: boolean,
  section?: string,
): Promise<string> {
  if (!isProjectName(project)) {
    throw new TokenmanError(
      "TM_USAGE",
      `expected a project name (1 to 64 letters, digits, _, . or -), found ${quote(project)}`,
    );
  }
  const path = [PROJECTS, project, DISABLE];
  const list = listAt(parseTable(text), path);
  let result = text;
  if (!enable && !list.includes(plugin)) result = await addToList(text, path, plugin, [...list, plugin]);
  if (enable && list.includes(plugin)) {
    const rest = list.filter((name) => name !== plugin);
    result = await removeFromList(text, path, plugin, rest);
  }
  if (enable && section !== undefined)
    result = await setValue(result, [PROJECTS, project, ...splitPath(section), "enabled"], true);
  return result;
}

function parseTable(text: string): Table {
  return copy(parseConfig(text, "the config file")) as Table;
}

function listAt(table: Table, path: readonly string[]): string[] {
  for (let length = 1; length < path.length; length++) {
    const parent = get(table, path.slice(0, length));
    if (parent !== undefined && !isTable(parent)) throw notEditable(path.slice(0, length), "a table");
  }
  const list = get(table, path) ?? [];
  if (!Array.isArray(list) || !list.every((name) => typeof name === "string"))
    throw notEditable(path, "a list of plugin names");
  return list;
}

function notEditable(path: readonly string[], expected: string): TokenmanError {
  return new TokenmanError(
    "TM_CONFIG_INVALID",
    `${path.map(formatKey).join(".")}: expected ${expected}, found another value`,
  );
}

async function addToList(
  text: string,
  path: readonly string[],
  name: string,
  list: readonly string[],
): Promise<string> {
  const document = await open(text);
  const array = arrayAt(document, path);
  const edits =
    array === undefined
      ? insertion(text, document, path, `[${quote(name)}]`)
      : append(text, document, array, quote(name));
  return checked(text, apply(text, edits), path, list);
}

async function removeFromList(
  text: string,
  path: readonly string[],
  name: string,
  list: readonly string[],
): Promise<string> {
  const document = await open(text);
  const array = arrayAt(document, path)!;
  const edits = array.elements
    .filter((element) => element.type === "TOMLValue" && element.value === name)
    .map((element) => removal(text, document, array, element));
  return checked(text, apply(text, edits), path, list);
}

async function setValue(text: string, path: readonly string[], value: boolean): Promise<string> {
  if (get(parseTable(text), path) === value) return text;
  const document = await open(text);
  const existing = document.assignments.find((each) => isDeepStrictEqual(each.path, path));
  const edits =
    existing === undefined
      ? insertion(text, document, path, String(value))
      : [{ start: existing.node.value.range[0], end: existing.node.value.range[1], text: String(value) }];
  return checked(text, apply(text, edits), path, value);
}

/** A byte order mark would shift the positions, so it counts as part of nothing. */
async function open(text: string): Promise<Document> {
  return openDocument(text.startsWith("\ufeff") ? ` ${text.slice(1)}` : text);
}

function arrayAt(document: Document, path: readonly string[]): AST.TOMLArray | undefined {
  const node = document.assignments.find((each) => isDeepStrictEqual(each.path, path))?.node.value;
  return node?.type === "TOMLArray" ? node : undefined;
}

function append(text: string, document: Document, array: AST.TOMLArray, value: string): Edit[] {
  const last = array.elements.at(-1);
  if (last === undefined) return [at(array.range[0] + 1, value)];
  const end = last.range[1];
  if (!startsLine(text, last.range[0])) return [at(end, `, ${value}`)];
  // One element a line: the new one gets a line too, below the last one's comment.
  const indent = text.slice(lineStart(text, last.range[0]), last.range[0]);
  const comma = commaAfter(document, array, end);
  const line = lineEnd(text, comma?.[1] ?? end);
  if (line >= array.range[1]) return [at(end, `,${newline(text)}${indent}${value}`)];
  if (comma !== undefined) return [at(line, `${newline(text)}${indent}${value},`)];
  return [at(end, ","), at(line, `${newline(text)}${indent}${value}`)];
}

function removal(text: string, document: Document, array: AST.TOMLArray, element: AST.TOMLContentNode): Edit {
  const [start, end] = element.range;
  const comma = commaAfter(document, array, end);
  const after = comma?.[1] ?? end;
  const restOfLine = text.slice(after, lineEnd(text, after));
  if (startsLine(text, start) && /^[ \t]*(#.*)?\r?$/.test(restOfLine)) {
    // Alone on its line: the line goes, its comment with it.
    return {
      start: lineStart(text, start),
      end: Math.min(lineEnd(text, after) + newline(text).length, text.length),
      text: "",
    };
  }
  if (comma !== undefined) {
    const blanks = /^[ \t]*/.exec(text.slice(after))![0].length;
    const isLast = array.elements.at(-1) === element;
    return { start, end: isLast ? after : after + blanks, text: "" };
  }
  const before = document.program.tokens.findLast(
    (token) => token.range[1] <= start && token.range[0] > array.range[0],
  );
  return { start: before?.value === "," ? before.range[0] : start, end, text: "" };
}

/**
 * Writes a key that is not there yet. TOML closes tables in more than one way, so the place depends on how the nearest
 * table on the way was written.
 */
function insertion(text: string, document: Document, path: readonly string[], value: string): Edit[] {
  const parent = path.slice(0, -1);
  // An inline table takes keys only inside its braces.
  const inline = longest(
    document.assignments.filter((each) => each.node.value.type === "TOMLInlineTable"),
    path,
  );
  if (inline !== undefined) {
    const node = inline.node.value as AST.TOMLInlineTable;
    const entry = `${keys(path.slice(inline.path.length))} = ${value}`;
    const last = node.body.at(-1);
    return [
      last === undefined
        ? { start: node.range[0], end: node.range[1], text: `{ ${entry} }` }
        : at(last.range[1], `, ${entry}`),
    ];
  }
  const header = document.tables.find(
    (table) => table.kind === "standard" && isDeepStrictEqual(table.resolvedKey, parent),
  );
  if (header !== undefined) {
    const line = lineEnd(
      text,
      document.program.tokens.find((token) => token.range[0] >= header.key.range[1])!.range[1],
    );
    return [at(line, `${newline(text)}${keys(path.slice(-1))} = ${value}`)];
  }
  // A table made by dotted keys (`projects.x.disable` at the top, `x.disable` in [projects]) may get no header.
  for (let length = parent.length; length > 0; length--) {
    const table = parent.slice(0, length);
    const dotted = document.assignments.findLast(
      (each) =>
        each.container.length < length &&
        isDeepStrictEqual(each.path.slice(0, length), table) &&
        each.path.length > length,
    );
    if (dotted === undefined) continue;
    const indent = text.slice(lineStart(text, dotted.node.range[0]), dotted.node.range[0]);
    const entry = `${keys(path.slice(dotted.container.length))} = ${value}`;
    return [
      at(
        lineEnd(text, dotted.node.range[1]),
        `${newline(text)}${indent.trim() === "" ? indent : ""}${entry}`,
      ),
    ];
  }
  const gap = text === "" ? "" : text.endsWith("\n") ? newline(text) : newline(text).repeat(2);
  return [
    at(
      text.length,
      `${gap}[${keys(parent)}]${newline(text)}${keys(path.slice(-1))} = ${value}${newline(text)}`,
    ),
  ];
}

function longest(assignments: readonly Assignment[], path: readonly string[]): Assignment | undefined {
  return assignments
    .filter((each) => each.path.length < path.length && each.path.every((key, index) => key === path[index]))
    .sort((left, right) => right.path.length - left.path.length)[0];
}

/** The edited text, if it says what it should and nothing else. */
function checked(before: string, after: string, path: readonly string[], value: unknown): string {
  const expected = parseTable(before);
  set(expected, path, copy(value));
  if (!isDeepStrictEqual(parseTable(after), expected)) {
    throw new TokenmanError(
      "TM_INTERNAL",
      `editing ${keys(path)} in the config file would change something else`,
    );
  }
  return after;
}

/** Edits may overlap where neighbours are removed: what one has taken, the next does not take again. */
function apply(text: string, edits: readonly Edit[]): string {
  let result = "";
  let from = 0;
  for (const edit of [...edits].sort((left, right) => left.start - right.start)) {
    result += text.slice(from, Math.max(from, edit.start)) + edit.text;
    from = Math.max(from, edit.end);
  }
  return result + text.slice(from);
}

function at(offset: number, text: string): Edit {
  return { start: offset, end: offset, text };
}

function commaAfter(
  document: Document,
  array: AST.TOMLArray,
  offset: number,
): readonly [number, number] | undefined {
  const next = document.program.tokens.find(
    (token) => token.range[0] >= offset && token.range[1] < array.range[1],
  );
  return next?.value === "," ? next.range : undefined;
}

function keys(path: readonly PropertyKey[]): string {
  return path.map((key) => formatKey(String(key))).join(".");
}

function lineStart(text: string, offset: number): number {
  return text.lastIndexOf("\n", offset - 1) + 1;
}

/** Where the line's content ends, before its line break. */
function lineEnd(text: string, offset: number): number {
  const feed = text.indexOf("\n", offset);
  if (feed === -1) return text.length;
  return text[feed - 1] === "\r" ? feed - 1 : feed;
}

function startsLine(text: string, offset: number): boolean {
  return text.slice(lineStart(text, offset), offset).trim() === "";
}

function newline(text: string): string {
  return text.includes("\r\n") ? "\r\n" : "\n";
}
