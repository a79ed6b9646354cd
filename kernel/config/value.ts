import type { ConfigSchema, StandardResult } from "@tokenman/plugin-sdk";
import type { EnvSetting } from "./env.ts";
import { type Draft, draftIssue, envOrigin, type Issue, issuePath } from "./problem.ts";
import { resolvePath } from "./raw.ts";
import { childSections, type Layout, type Section, type SectionSpec } from "./section.ts";
import { type Shape, shapeOf } from "./shape.ts";
import { copy, deepFreeze, emptyTable, isTable, merge, type Table } from "./table.ts";

/** A section as its plugins get it. */
export interface SectionValue {
  /** Validated, defaults applied, frozen; undefined where nothing valid could be made. */
  readonly value: unknown;
  /** As the file and the environment have it. */
  readonly written: Table | undefined;
  readonly enabled: boolean | undefined;
}

export interface Paths {
  readonly home: string;
  /** What relative paths count from. */
  readonly base: string;
}

export interface SectionResult {
  readonly section: SectionValue;
  readonly drafts: readonly Draft[];
}

/**
 * Validates what is written for `section` at `base` (its own path, or that path below a project). Each owner's schema
 * sees the keys it knows; `enabled` is kept from schemas that do not know it. Never throws.
 */
export async function validateSection(
  layout: Layout,
  section: Section,
  written: Table | undefined,
  base: readonly PropertyKey[],
  settings: readonly EnvSetting[],
  paths: Paths,
): Promise<SectionResult> {
  const drafts: Draft[] = [];
  let value: unknown;
  let enabled = typeof written?.["enabled"] === "boolean" ? written["enabled"] : undefined;
  let switched = false;
  for (const spec of section.specs) {
    const input = inputFor(layout, section, spec, written);
    const outcome = await validate(spec, input);
    const context = {
      base,
      shape: section.shape,
      input,
      fromEnv: (path: readonly PropertyKey[]) => envOrigin(path, settings) !== undefined,
    };
    if (outcome.issues.length > 0 && matters(spec, written, enabled)) {
      for (const issue of outcome.issues) {
        for (const draft of draftIssue(issue, context)) drafts.push({ ...draft, plugin: spec.owner });
      }
    }
    const made = outcome.issues.length > 0 ? await salvage(spec, input, outcome.issues) : outcome.value;
    value = value === undefined ? made : merge(value, made);
    if (knowsEnabled(spec)) switched = true;
  }
  if (
    written !== undefined &&
    "enabled" in written &&
    enabled === undefined &&
    !switched &&
    takesSwitch(section)
  ) {
    const message = "expected true or false";
    drafts.push(
      ...draftIssue(
        { message, path: ["enabled"] },
        { base, shape: section.shape, input: written, fromEnv: () => false },
      ),
    );
  }
  if (isTable(value) && switched && typeof value["enabled"] === "boolean") enabled = value["enabled"];
  enabled ??= section.specs.find((spec) => spec.enabledByDefault !== undefined)?.enabledByDefault;
  const finished = deepFreeze(finish(value, section.shape, paths));
  return { section: { value: finished, written, enabled }, drafts };
}

/** A section nobody wrote, of a plugin that is not there or is switched off, may lack what it would need. */
function matters(spec: SectionSpec, written: Table | undefined, enabled: boolean | undefined): boolean {
  if (written === undefined) return spec.loaded;
  return !(enabled === false && Object.keys(written).length === 1);
}

function inputFor(layout: Layout, section: Section, spec: SectionSpec, written: Table | undefined): Table {
  const shape = shapeOf(spec.schema);
  const children = childSections(layout, section);
  const named = shape.kind === "table" && shape.rest === undefined;
  const input = emptyTable();
  for (const [key, value] of Object.entries(written ?? {})) {
    if (shape.keys.has(key)) input[key] = copy(value);
    else if (!named && !children.includes(key)) input[key] = copy(value);
  }
  return input;
}

function takesSwitch(section: Section): boolean {
  return section.shape.keys.has("enabled");
}

/** Whether `enabled` is the schema's own key. */
function knowsEnabled(spec: SectionSpec): boolean {
  return shapeOf(spec.schema).keys.has("enabled");
}

interface Outcome {
  readonly value: unknown;
  readonly issues: readonly Issue[];
}

async function validate(spec: SectionSpec, input: Table): Promise<Outcome> {
  if (spec.schema === undefined) return { value: {}, issues: [] };
  const outcome = await run(spec.schema, input);
  // A schema that does not describe itself may or may not know `enabled`: it is asked both ways.
  if (outcome.issues.length === 0 || shapeOf(spec.schema).kind !== "any" || !("enabled" in input))
    return outcome;
  const { enabled: _, ...rest } = input;
  const without = await run(spec.schema, rest);
  return without.issues.length < outcome.issues.length ? without : outcome;
}

async function run(schema: ConfigSchema, input: Table): Promise<Outcome> {
  try {
    const result = (await schema["~standard"].validate(input)) as StandardResult;
    return result.issues === undefined
      ? { value: result.value, issues: [] }
      : { value: undefined, issues: result.issues };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { value: undefined, issues: [{ message: `the schema failed: ${message}` }] };
  }
}

/** The best that can be made of an invalid section: its valid top-level keys, else the defaults, else nothing. */
async function salvage(spec: SectionSpec, input: Table, issues: readonly Issue[]): Promise<unknown> {
  if (spec.schema === undefined) return {};
  const kept: Table = { ...input };
  for (const issue of issues) {
    const key = issuePath(issue)[0];
    if (key !== undefined) delete kept[String(key)];
  }
  const second = await run(spec.schema, kept);
  return second.issues.length === 0 ? second.value : (await run(spec.schema, emptyTable())).value;
}

/**
 * A copy of `value` in ordinary objects, with the texts that the shape marks as paths made absolute. Empty text means
 * "none" and stays. It is a copy so that freezing it does not freeze a schema's own default.
 */
export function finish(value: unknown, shape: Shape | undefined, paths: Paths): unknown {
  if (shape?.path === true && typeof value === "string" && value !== "") {
    return resolvePath(value, paths.home, paths.base);
  }
  if (Array.isArray(value)) return value.map((each) => finish(each, shape?.item, paths));
  if (!isTable(value)) return value;
  // `__proto__` is refused wherever it is written, so no key of `value` can be it.
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => [
      key,
      finish(child, shape?.keys.get(key) ?? shape?.rest, paths),
    ]),
  );
}
