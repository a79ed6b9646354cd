import type { Place } from "@tokenman/plugin-sdk";
import type { AST } from "toml-eslint-parser";

/** A stretch of the file's text: offsets, and the line and column of its start, both from 1. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly line: number;
  readonly column: number;
}

/** One `key = value`, with the path its table gives it: all of `[a] b.c = 1` is a.b.c. */
export interface Assignment {
  readonly path: readonly PropertyKey[];
  /** The path of the table or inline table it stands in. */
  readonly container: readonly PropertyKey[];
  readonly node: AST.TOMLKeyValue;
}

/** A TOML file with the place of everything in it. */
export interface Document {
  readonly program: AST.TOMLProgram;
  readonly assignments: readonly Assignment[];
  readonly tables: readonly AST.TOMLTable[];
  /** Where the key at `path` is first written: its last part only. */
  keySpan(path: readonly PropertyKey[]): Span | undefined;
  /** Where the value at `path` is; for a table, its key in the first header that names it. */
  valueSpan(path: readonly PropertyKey[]): Span | undefined;
}

/**
 * Parses TOML into a tree with positions. The parser is loaded at first use: a config without problems never needs it.
 * The text must have been accepted by the config's own parser before.
 */
export async function openDocument(text: string): Promise<Document> {
  const { parseTOML } = await import("toml-eslint-parser");
  const program = parseTOML(text, { tomlVersion: "1.1" });
  const keys = new Map<string, Span>();
  const values = new Map<string, Span>();
  const assignments: Assignment[] = [];
  const tables: AST.TOMLTable[] = [];

  function addKeys(
    base: readonly PropertyKey[],
    parts: readonly (AST.TOMLBare | AST.TOMLQuoted)[],
    path: readonly PropertyKey[],
  ) {
    // `path` is longer than base + parts where parts run through arrays of tables, whose indexes are not written.
    let at = base.length;
    for (const part of parts) {
      at++;
      note(keys, path.slice(0, at), part);
      if (typeof path[at] === "number") {
        at++;
        note(keys, path.slice(0, at), part);
      }
    }
  }

  function addAssignment(node: AST.TOMLKeyValue, container: readonly PropertyKey[]) {
    const path = [...container, ...node.key.keys.map(partName)];
    addKeys(container, node.key.keys, path);
    assignments.push({ path, container, node });
    addValue(node.value, path);
  }

  function addValue(node: AST.TOMLContentNode, path: readonly PropertyKey[]) {
    note(values, path, node);
    if (node.type === "TOMLArray") {
      for (const [index, element] of node.elements.entries()) addValue(element, [...path, index]);
    }
    if (node.type === "TOMLInlineTable") for (const each of node.body) addAssignment(each, path);
  }

  for (const node of program.body[0].body) {
    if (node.type === "TOMLKeyValue") {
      addAssignment(node, []);
      continue;
    }
    tables.push(node);
    addKeys([], node.key.keys, node.resolvedKey);
    for (const each of node.body) addAssignment(each, node.resolvedKey);
  }
  const at = (map: ReadonlyMap<string, Span>, path: readonly PropertyKey[]) => map.get(pathKey(path));
  return {
    program,
    assignments,
    tables,
    keySpan: (path) => at(keys, path),
    valueSpan: (path) => at(values, path) ?? at(keys, path),
  };
}

/** Where the items of a list stand in the config's text; nowhere where the file does not write the list. */
export async function itemPlaces(
  { file, text }: { readonly file: string | undefined; readonly text: string },
  list: readonly PropertyKey[],
): Promise<(index: number) => Place | undefined> {
  if (file === undefined) return () => undefined;
  const document = await openDocument(text);
  return (index) => {
    const span = document.valueSpan([...list, index]);
    return span && { file, line: span.line, column: span.column };
  };
}

export function partName(part: AST.TOMLBare | AST.TOMLQuoted): string {
  return part.type === "TOMLBare" ? part.name : part.value;
}

function pathKey(path: readonly PropertyKey[]): string {
  return JSON.stringify(path);
}

function note(map: Map<string, Span>, path: readonly PropertyKey[], node: AST.TOMLNode): void {
  const key = pathKey(path);
  if (map.has(key)) return;
  const [start, end] = node.range;
  map.set(key, { start, end, line: node.loc.start.line, column: node.loc.start.column + 1 });
}
