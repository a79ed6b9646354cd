import type { ExplainedPlugin, Explanation } from "./explain.ts";

/** An explanation for a terminal. No colours; ends without a line break. */
export function explanationText(explanation: Explanation): string {
  const { project, known, generation, plugins, off, warnings, problems } = explanation;
  const built = generation === undefined ? "not built" : `generation ${generation}`;
  const title = known
    ? `Project ${project}`
    : `Project ${project} (not in the config: it has the default project's pipeline)`;
  return [
    `${title}, ${built}`,
    section(
      "Problems: TokenMan does not start with this, and a reload keeps what it has",
      problems.map(indent),
    ),
    section("Warnings", warnings.map(indent)),
    ...(plugins.length === 0 ? ["No plugin is on."] : hooks(explanation)),
    section("Plugins that are on, in the request's order", table(plugins.map(pluginRow))),
    section(
      "Plugins that are off",
      table(off.map(({ plugin, source, reason }) => [plugin, reason, source === "built in" ? "" : source])),
    ),
    section("Services", table(explanation.services.map(serviceRow))),
    section("Contributions", contributions(explanation)),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

function hooks(explanation: Explanation): string[] {
  const { hooks, plugins } = explanation;
  if (hooks === undefined) {
    const names = plugins.map(({ name }) => name);
    return [
      section("A request passes, first to last", numbered(names, plugins)),
      "The reply passes those of them that look at replies, last to first.",
    ];
  }
  const lifecycle = Object.entries(hooks.lifecycle).map(([name, names]) => [name, names!.join(", ")]);
  return [
    section("A request passes (hook request), first to last", numbered(hooks.request, plugins)),
    section(
      "Before every attempt at a provider (hook beforeUpstream)",
      numbered(hooks.beforeUpstream, plugins),
    ),
    section(
      "The reply passes back (hook response), first to last; of them, those that the request had passed",
      numbered(hooks.response, plugins),
    ),
    section("Observers (hook lifecycle)", table(lifecycle)),
  ];
}

function numbered(names: readonly string[], plugins: readonly ExplainedPlugin[]): string[] {
  if (names.length === 0) return ["  nobody"];
  const digits = String(names.length).length;
  const notes = names.map((name, index) => {
    const stage = plugins.find((each) => each.name === name)?.stage;
    const ends = [...(index === 0 ? ["first"] : []), ...(index === names.length - 1 ? ["last"] : [])];
    return [
      `${String(index + 1).padStart(digits)}. ${name}`,
      stage ?? "-",
      ends.length === 0 ? "" : `sees it ${ends.join(" and ")}`,
    ];
  });
  return table(notes);
}

function pluginRow(each: ExplainedPlugin): string[] {
  const placed = each.listed
    ? `listed in ${each.from}`
    : `placed by stage ${each.stage ?? "(none: as shape)"}, ${each.from}`;
  const policy = each.onError === "closed" ? "a failure refuses the request" : "a failure is passed over";
  const health = each.quarantined === undefined ? "" : `QUARANTINED: ${each.quarantined}`;
  return [each.name, each.version, each.source, placed, policy, health];
}

function serviceRow({ service, providedBy, neededBy }: Explanation["services"][number]): string[] {
  const users = neededBy
    .map(({ plugin, optional }) => (optional ? `${plugin} (optional)` : plugin))
    .join(", ");
  return [
    service,
    providedBy === undefined ? "provided by nobody" : `provided by ${providedBy}`,
    users && `used by ${users}`,
  ];
}

function contributions({ contributions }: Explanation): string[] {
  const kinds = Map.groupBy(contributions, ({ kind, plugin }) => `${kind}\n${plugin}`);
  return table(
    [...kinds].map(([key, entries]) => {
      const [kind, plugin] = key.split("\n") as [string, string];
      return [kind, entries.map(({ name }) => name).join(", "), `from ${plugin}`];
    }),
  );
}

/** Nothing where there are no lines. */
function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : `${title}:\n${lines.join("\n")}`;
}

function indent(text: string): string {
  return text.replace(/^/gm, "  ");
}

/** Columns two spaces apart; the last one is as long as it is. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ")}`.trimEnd(),
  );
}
