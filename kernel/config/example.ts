import { coreSections } from "./core.ts";
import {
  childSections,
  DISABLE,
  type Layout,
  layOut,
  PROJECTS,
  type Section,
  type SectionSpec,
} from "./section.ts";
import { expectation, type Shape } from "./shape.ts";
import { formatKey, formatPath, isTable, quote } from "./table.ts";

const WIDTH = 100;

const HEAD = `# The settings of TokenMan, with their defaults.
#
# A line that begins with "# " explains; one that begins with "#" alone is a setting at its default: remove the "#"
# and change it. Put this file at ~/.tokenman/tokenman.toml, or name it with --config or TOKENMAN_CONFIG.
# Environment variables go before the file: TOKENMAN_SERVER_PROXY_PORT=8080 is proxy_port of [server].
`;

/**
 * An example config file: every setting with its description, its default and what it takes. It loads as it is and
 * changes nothing; so it does with any of its settings uncommented, but for those said to have no default.
 * `sections` are the plugins', in any order; the core's come first.
 */
export function configExample(sections: readonly SectionSpec[]): string {
  const layout = layOut([...coreSections, ...[...sections].sort(inOrder)]);
  const parts = [HEAD];
  for (const section of layout.sections.values()) {
    if (hasSettings(section)) parts.push(sectionText(layout, section));
  }
  parts.push(projectText(layout));
  return `${parts.join("\n")}`;
}

/** From what everybody sets to what few do; the rest follows by name, third parties last. */
const ORDER = [
  "providers",
  "routing",
  "cache",
  "compression",
  "security",
  "resilience",
  "tracing",
  "dashboard",
  "metrics",
];

function inOrder(left: SectionSpec, right: SectionSpec): number {
  const key = ({ path, owner }: SectionSpec) => {
    const at = ORDER.indexOf(path.split(".")[0]!);
    return `${at === -1 ? (path.startsWith("plugins.") ? "b" : "a") : at} ${path} ${owner}`;
  };
  return key(left) < key(right) ? -1 : 1;
}

/** A plugin that takes no settings has a section all the same, as it can be switched off. */
function hasSettings({ shape }: Section): boolean {
  return shape.rest !== undefined || [...shape.keys.keys()].some((key) => key !== "enabled");
}

function sectionText(layout: Layout, section: Section): string {
  const planned = section.specs.every((spec) => spec.planned === true);
  const lines: string[] = [];
  if (section.shape.description !== undefined) lines.push(...prose(section.shape.description));
  if (planned) lines.push(...prose("Planned: these settings are accepted, but have no effect yet."));
  const { shape } = section;
  const isMap = shape.rest !== undefined && shape.keys.size === 0;
  if (!isMap) lines.push(`${planned ? "#" : ""}[${formatPath(section.keys)}]`);
  const children = new Set(childSections(layout, section));
  const enabled = section.specs.find((spec) => spec.enabledByDefault !== undefined)?.enabledByDefault;
  if (enabled !== undefined && shape.keys.get("enabled")?.fallback === undefined)
    lines.push(`#enabled = ${enabled}`);
  lines.push(
    ...tableText(
      section.keys,
      shape,
      (key) => (key === "enabled" && shape.keys.get(key)?.fallback === undefined) || children.has(key),
    ),
  );
  return `${lines.join("\n")}\n`;
}

/** A table's settings, then the tables in it. */
function tableText(
  path: readonly string[],
  shape: Shape,
  skip: (key: string) => boolean = () => false,
): string[] {
  const values: string[] = [];
  const tables: string[] = [];
  for (const [key, child] of shape.keys) {
    if (skip(key)) continue;
    if (child.kind === "table") {
      tables.push("", ...prose(child.description ?? ""), ...nestedText([...path, key], child));
    } else {
      values.push(...prose(child.description ?? ""), settingText(key, child));
    }
  }
  if (shape.rest !== undefined) values.push(...mapText(path, shape));
  return [...values, ...tables];
}

function nestedText(path: readonly string[], shape: Shape): string[] {
  if (shape.rest !== undefined && shape.keys.size === 0) return mapText(path, shape);
  return [`#[${formatPath(path)}]`, ...tableText(path, shape)];
}

/** A map: what it holds by default, else an example, else what a key in it looks like. */
function mapText(path: readonly string[], shape: Shape): string[] {
  const { rest, fallback, examples } = shape;
  const shown = [fallback, ...examples].find((each) => isTable(each) && Object.keys(each).length > 0);
  const heading = `#[${formatPath(path)}]`;
  if (isTable(shown)) {
    const note = shown === fallback ? [] : ["# For example:"];
    if (!Object.values(shown).every(isTable)) {
      return [
        ...note,
        heading,
        ...Object.entries(shown).map(([key, value]) => `#${formatKey(key)} = ${toToml(value)}`),
      ];
    }
    return [
      ...note,
      ...Object.entries(shown).flatMap(([key, value]) => [
        `#[${formatPath([...path, key])}]`,
        ...Object.entries(value as object).map(
          ([name, content]) => `#${formatKey(name)} = ${toToml(content)}`,
        ),
      ]),
    ];
  }
  if (rest?.kind === "table" && rest.keys.size > 0)
    return [`#[${formatPath([...path, "NAME"])}]`, ...tableText([...path, "NAME"], rest)];
  if (rest === undefined || rest.kind === "table" || rest.kind === "any")
    return [`#[${formatPath([...path, "NAME"])}]`];
  return [heading, `# NAME = ${expectation(rest)}`];
}

function settingText(key: string, shape: Shape): string {
  const value = shape.fallback ?? shape.examples[0] ?? placeholder(shape);
  const notes: string[] = [];
  if (shape.fallback === undefined) notes.push("no default");
  const needsSaying =
    shape.kind === "choice" || shape.kind === "integer" || shape.kind === "number" || shape.kind === "union";
  if (needsSaying) notes.push(expectation(shape));
  return `#${formatKey(key)} = ${toToml(value)}${notes.length === 0 ? "" : `  # ${notes.join("; ")}`}`;
}

function placeholder(shape: Shape): unknown {
  switch (shape.kind) {
    case "boolean":
      return false;
    case "integer":
    case "number":
      return shape.range.min ?? 1;
    case "choice":
      return shape.choices[0];
    case "list":
      return [];
    case "union":
      return shape.options[0] === undefined ? "" : placeholder(shape.options[0]);
    default:
      return "";
  }
}

function projectText(layout: Layout): string {
  const overlays = [...layout.sections.values()].filter(
    (section) => section.perProject && hasSettings(section),
  );
  const lines = prose(
    "Settings of one project: the one that a request names in X-Tokenman-Project or by a path below /p/NAME/. " +
      `Any of these sections may be overlaid: ${overlays.map((section) => section.path).join(", ") || "(none)"}; ` +
      "and plugins may be switched off by name. The project of requests that name none is called default.",
  );
  lines.push(`#[${PROJECTS}.NAME]`, `#${DISABLE} = []`);
  return `${lines.join("\n")}\n`;
}

/** Comment lines of at most WIDTH characters. */
function prose(text: string): string[] {
  const lines: string[] = [];
  let line = "#";
  for (const word of text.split(/\s+/).filter((each) => each !== "")) {
    if (line.length + 1 + word.length > WIDTH && line !== "#") {
      lines.push(line);
      line = "#";
    }
    line += ` ${word}`;
  }
  return line === "#" ? lines : [...lines, line];
}

/** A value as TOML writes it; tables inline. */
function toToml(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number")
    return Number.isFinite(value) ? String(value) : Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (Array.isArray(value)) return `[${value.map(toToml).join(", ")}]`;
  if (isTable(value)) {
    const entries = Object.entries(value).map(([key, child]) => `${formatKey(key)} = ${toToml(child)}`);
    return entries.length === 0 ? "{}" : `{ ${entries.join(", ")} }`;
  }
  return String(value);
}
