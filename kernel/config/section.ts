import type { ConfigSchema, PluginDefinition } from "@tokenman/plugin-sdk";
import { ANY, BOOLEAN, type Shape, shapeOf, tableShape, uniteShapes } from "./shape.ts";
import { splitPath } from "./table.ts";

/** Who takes which settings where. Several may name one path: their schemas' keys are united. */
export interface SectionSpec {
  /** "security.pii". */
  readonly path: string;
  /** Undefined: no keys but `enabled`. Schemas that share a path must be tables with named keys. */
  readonly schema: ConfigSchema | undefined;
  /** The plugin's name, or "kernel". */
  readonly owner: string;
  /** Whether `[projects.NAME]` may overlay it. */
  readonly perProject: boolean;
  /** The feature does not exist yet: the section is accepted and named in a warning. */
  readonly planned?: boolean;
  /** A protection: enabling it in so many words without its plugin is an error. */
  readonly guard?: boolean;
  /** Whether the plugin is part of this generation. */
  readonly loaded: boolean;
  /** What `enabled` is where neither the file nor the schema says it. */
  readonly enabledByDefault?: boolean;
}

/** What `[projects.NAME]` may overlay, beside third parties' settings. */
const PER_PROJECT = /^(cache|compression|security|routing|resilience|plugins\.configs)(\.|$)/;

/** The sections that a plugin owns. Everything under `security` is a guard. */
export function sectionsOf(
  plugin: Pick<PluginDefinition, "name" | "section" | "configSchema" | "extraSections">,
  loaded: boolean,
): SectionSpec[] {
  const own = [plugin.section ?? `plugins.configs.${plugin.name}`, plugin.configSchema] as const;
  return [own, ...Object.entries(plugin.extraSections ?? {})].map(([path, schema]) => ({
    path,
    schema,
    owner: plugin.name,
    perProject: PER_PROJECT.test(path),
    guard: path.startsWith("security."),
    loaded,
  }));
}

/** All that is known of one path. */
export interface Section {
  readonly path: string;
  readonly keys: readonly string[];
  readonly specs: readonly SectionSpec[];
  /** What the file may say: the specs' shapes united, and `enabled`. */
  readonly shape: Shape;
  readonly perProject: boolean;
}

export interface Layout {
  readonly sections: ReadonlyMap<string, Section>;
  /** The whole file. */
  readonly root: Shape;
  /** Paths (as "a.b") that hold sections or lead to one: tables, whatever a schema says. */
  readonly structure: ReadonlySet<string>;
}

export const PROJECTS = "projects";
export const DISABLE = "disable";

/** Fits all sections into one picture of the file, `[projects.NAME]` included. */
export function layOut(specs: readonly SectionSpec[]): Layout {
  const grouped = Map.groupBy(specs, (spec) => spec.path);
  const sections = new Map<string, Section>();
  const structure = new Set<string>([PROJECTS]);
  let root = tableShape(new Map());
  let project = tableShape(new Map([[DISABLE, { ...ANY, kind: "list" } as Shape]]));
  for (const [path, members] of grouped) {
    const keys = splitPath(path);
    const perProject = members.some((spec) => spec.perProject);
    let shape = members.map((spec) => shapeOf(spec.schema)).reduce(uniteShapes);
    if (hasSwitch(members, shape)) shape = uniteShapes(shape, tableShape(new Map([["enabled", BOOLEAN]])));
    sections.set(path, { path, keys, specs: members, shape, perProject });
    const nested = keys.reduceRight((inner, key) => tableShape(new Map([[key, inner]])), shape);
    root = uniteShapes(root, nested);
    if (perProject) project = uniteShapes(project, nested);
    for (let length = 1; length <= keys.length; length++) structure.add(keys.slice(0, length).join("."));
  }
  root = uniteShapes(root, tableShape(new Map([[PROJECTS, tableShape(new Map(), project)]])));
  return { sections, root, structure };
}

/** Every plugin's section takes `enabled`; the core's do not, nor do maps, whose keys are names. */
function hasSwitch(specs: readonly SectionSpec[], shape: Shape): boolean {
  return specs.some((spec) => spec.owner !== KERNEL) && shape.kind === "table" && shape.rest === undefined;
}

export const KERNEL = "kernel";

/** The keys of `section` that are sections of their own (`rules` of "compression" where "compression.rules" is one). */
export function childSections(layout: Layout, section: Section): string[] {
  const prefix = `${section.path}.`;
  const children = new Set<string>();
  for (const path of layout.structure) {
    if (path.startsWith(prefix)) children.add(splitPath(path.slice(prefix.length))[0]!);
  }
  return [...children];
}
