import type { TokenmanError, WrittenConfig } from "@tokenman/plugin-sdk";
import { coreChecks, missingGuards, type Written, warn } from "./check.ts";
import { type Config, createConfig } from "./config.ts";
import { coreSections } from "./core.ts";
import { type CoreConfig, coreOf, pathsOf } from "./core-value.ts";
import { type EnvReading, isReservedVariable, readEnvironment } from "./env.ts";
import { type Draft, envOrigin, place } from "./problem.ts";
import type { RawConfig } from "./raw.ts";
import { DISABLE, type Layout, layOut, PROJECTS, type SectionSpec } from "./section.ts";
import { copy, emptyTable, formatPath, get, isTable, merge, set, splitPath, type Table } from "./table.ts";
import { removeUnknown } from "./unknown.ts";
import { type Paths, type SectionValue, validateSection } from "./value.ts";

export interface Validation {
  /** Usable even where there are problems: what is invalid has its default. */
  readonly config: Config;
  /** All of them, in the file's order, then the environment's. A config with problems must not be served. */
  readonly problems: readonly TokenmanError[];
  readonly warnings: readonly string[];
  /** The same errors, with their places where they have a `configPath`; those in the file's order, the others after them. */
  place(errors: readonly TokenmanError[]): Promise<TokenmanError[]>;
}

/** A check between settings, of what is written. */
export type ConfigCheck = (written: Omit<WrittenConfig, "names">) => readonly TokenmanError[];

export interface ValidateOptions {
  /** Their findings are told with all others. */
  readonly checks?: readonly ConfigCheck[];
  /** Names of plugins beside the sections' owners; to notice misspelt ones in `disable`. */
  readonly plugins?: Iterable<string>;
  /** Names of plugins that every project needs. */
  readonly alwaysOn?: readonly string[];
  /** Whether a `TOKENMAN_*` variable is read somewhere else. */
  readonly isKnownVariable?: (variable: string) => boolean;
}

/** Validates all of the config against the core's schemas and `specs`. Never throws and never rejects. */
export async function validateConfig(
  raw: RawConfig,
  specs: readonly SectionSpec[],
  options: ValidateOptions = {},
): Promise<Validation> {
  const layout = layOut([...coreSections, ...specs]);
  const { table, env } = applyEnvironment(raw, layout, options.isKnownVariable);
  const written: Written = { raw, layout, table, settings: env.settings };
  const drafts: Draft[] = removeUnknown(table, layout);
  const paths = pathsOf(raw);

  const base = new Map<string, SectionValue>();
  for (const section of layout.sections.values()) {
    const result = await validateSection(
      layout,
      section,
      tableAt(table, section.keys),
      section.keys,
      env.settings,
      paths,
    );
    base.set(section.path, result.section);
    drafts.push(...result.drafts);
  }
  const overlays = new Map<string, ReadonlyMap<string, SectionValue>>();
  const disabled = new Map<string, ReadonlySet<string>>();
  for (const project of Object.keys(tableAt(table, [PROJECTS]) ?? {})) {
    const overlaid = await validateProject(project, written, drafts, paths);
    overlays.set(project, overlaid);
    disabled.set(project, new Set(disableList(project, written, drafts)));
  }
  const core = coreOf((section) => table[section], raw);
  drafts.push(...coreChecks(core, written), ...missingGuards(written));
  const found = (options.checks ?? []).flatMap((check) => check(writtenConfig(table)));
  drafts.push(...found.map((error) => draftOf(error, table)));
  const config = createConfig({ file: raw.file, ...core, layout, base, overlays, disabled });
  return {
    config,
    problems: [...(await place(distinct(drafts), raw, env.settings, layout.root)), ...env.problems],
    warnings: [...warn(written, config, options), ...env.warnings],
    place: async (errors) => {
      const rest = errors.filter(({ configPath }) => configPath === undefined);
      const found = errors
        .filter(({ configPath }) => configPath !== undefined)
        .map((error) => draftOf(error, table));
      return [...(await place(found, raw, env.settings, layout.root)), ...rest];
    },
  };
}

function draftOf({ configPath = [], code, message, plugin }: TokenmanError, table: Table): Draft {
  return {
    path: setAt(configPath, table),
    code,
    message,
    at: "value",
    ...(plugin !== undefined && { plugin }),
  };
}

function writtenConfig(table: Table): Omit<WrittenConfig, "names"> {
  const projects = Object.keys(tableAt(table, [PROJECTS]) ?? {});
  return {
    projects,
    section(path, project) {
      const keys = splitPath(path);
      const base = tableAt(table, keys) ?? emptyTable();
      return project === undefined
        ? base
        : (merge(base, tableAt(table, [PROJECTS, project, ...keys])) as Table);
    },
  };
}

/** An early view of the core's sections; `validateConfig` reports what is wrong with them. Frozen. Never throws. */
export function coreFromRaw(raw: RawConfig): CoreConfig {
  const { table } = applyEnvironment(raw, layOut(coreSections));
  return coreOf((section) => table[section], raw);
}

/** A key's own place, or that in the project which sets it: a plugin does not know where its config comes from. */
function setAt(path: readonly string[], table: Table): readonly string[] {
  if (get(table, path) !== undefined) return path;
  const projects = Object.keys(tableAt(table, [PROJECTS]) ?? {});
  const places = projects.map((project) => [PROJECTS, project, ...path]);
  return places.find((place) => get(table, place) !== undefined) ?? path;
}

function applyEnvironment(
  raw: RawConfig,
  layout: Layout,
  isKnownVariable: ((variable: string) => boolean) | undefined = undefined,
): { table: Table; env: EnvReading } {
  const isKnown = (variable: string) => isReservedVariable(variable) || isKnownVariable?.(variable) === true;
  const env = readEnvironment(raw.env, layout.root, raw.table, isKnown);
  const table = copy(raw.table) as Table;
  // Where the file has a value that must be a table, that is reported, and the variable has no place to go.
  for (const setting of env.settings) set(table, setting.path, copy(setting.value));
  return { table, env };
}

async function validateProject(
  project: string,
  written: Written,
  drafts: Draft[],
  paths: Paths,
): Promise<ReadonlyMap<string, SectionValue>> {
  const { layout, table, settings } = written;
  const known = new Set(drafts.map((draft) => draft.message));
  const overlaid = new Map<string, SectionValue>();
  for (const section of layout.sections.values()) {
    const keys = [PROJECTS, project, ...section.keys];
    const overlay = section.perProject ? tableAt(table, keys) : undefined;
    if (overlay === undefined) continue;
    const effective = merge(tableAt(table, section.keys), overlay) as Table;
    const result = await validateSection(layout, section, effective, keys, settings, paths);
    overlaid.set(section.path, result.section);
    for (const draft of result.drafts) {
      const blamed = blame(draft, written);
      if (known.has(blamed.message)) continue;
      const message =
        blamed === draft ? draft.message : `${blamed.message} (with what project ${project} overlays)`;
      drafts.push({ ...blamed, message });
    }
  }
  return overlaid;
}

/** A problem of an effective section is the overlay's only where the overlay has the value; else it is the base's. */
function blame(draft: Draft, { table, settings }: Written): Draft {
  if (get(table, draft.path) !== undefined || envOrigin(draft.path, settings) !== undefined) return draft;
  const inherited = draft.path.slice(2);
  return {
    ...draft,
    path: inherited,
    message: draft.message.replace(formatPath(draft.path), formatPath(inherited)),
  };
}

function disableList(project: string, { table }: Written, drafts: Draft[]): string[] {
  const path = [PROJECTS, project, DISABLE];
  const list = get(table, path);
  if (list === undefined) return [];
  if (Array.isArray(list) && list.every((name) => typeof name === "string")) return list;
  const found = Array.isArray(list) ? "a list with other elements" : "another value";
  const message = `${formatPath(path)}: expected a list of plugin names, found ${found}`;
  drafts.push({ code: "TM_CONFIG_INVALID", path, at: "value", message });
  return [];
}

/** Two owners of a section may object to the same value in the same words. */
function distinct(drafts: readonly Draft[]): Draft[] {
  return [...new Map(drafts.map((draft) => [`${draft.code} ${draft.message}`, draft])).values()];
}

function tableAt(table: Table, path: readonly string[]): Table | undefined {
  const value = get(table, path);
  return isTable(value) ? value : undefined;
}
