import type { ExplainedHooks, ExplainedPlugin, Explanation } from "./explain.ts";

/** Lines are broken before this column, where they can be. */
const WIDTH = 100;
/** A column that begins far to the right is this wide all the same. */
const MIN_WIDTH = 40;

/** An explanation for a terminal, for readers who know nothing of the code. No colours; ends without a line break. */
export function explanationText(explanation: Explanation): string {
  const { project, known, generation, plugins, off, warnings, problems } = explanation;
  const built = generation === undefined ? "not built" : `generation ${generation}`;
  const title = known
    ? `Project ${project}`
    : `Project ${project} (not in the config: it is served like the default project)`;
  return [
    `${title}, ${built}`,
    section(
      "Problems: TokenMan does not start with this, and a running one keeps what it has",
      problems.map(indent),
    ),
    section("Warnings", warnings.map(warning)),
    ...(plugins.length === 0 ? ["No plugin is on."] : way(explanation)),
    section(
      "Plugins that are on, in the order of requests",
      plugins.length === 0 ? [] : table([PLUGIN_COLUMNS, ...plugins.map(pluginRow)]),
    ),
    section(
      "Plugins that are off, and why",
      table(off.map(({ plugin, source, reason }) => [plugin, reason, source === "built in" ? "" : source])),
    ),
    section("Services that plugins provide for one another", table(explanation.services.map(serviceRow))),
    section("What the plugins bring along", contributions(explanation)),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** The way of a request to the provider and of its reply back. */
function way({ hooks, plugins }: Explanation): string[] {
  if (hooks === undefined) {
    const names = plugins.map(({ name }) => name);
    return [
      section(
        "A request would pass, from first to last, those of these that look at requests",
        numbered(names),
      ),
      "The reply would pass those of them that look at replies, from last to first.",
    ];
  }
  const { request, beforeUpstream, response, lifecycle } = hooks;
  return [
    section(
      sentences(
        "A request comes in (hook request)",
        ends(request, "sees it first", "sees it last"),
        request.length > 0 &&
          "A plugin that answers it sends it back from there: those behind see neither request nor reply",
      ),
      between("the client", numbered(request), "the provider"),
    ),
    section(
      sentences(
        "Before each try at a provider (hook beforeUpstream)",
        beforeUpstream.length > 0 && "Each may change the try, skip the provider, or answer",
      ),
      numbered(beforeUpstream),
    ),
    section(
      sentences(
        "The reply goes back the other way (hook response)",
        ends(response, "sees it first", "sees it last, as the client gets it"),
      ),
      between("the provider, or whoever answered", numbered(response), "the client"),
    ),
    section("Told of what happens, and changing nothing (hook lifecycle)", observers(lifecycle)),
  ];
}

const MOMENTS: Readonly<Record<keyof ExplainedHooks["lifecycle"], string>> = {
  start: "a request has come",
  attemptEnd: "a try at a provider has ended",
  settled: "a request has ended, one way or another",
  ready: "this generation is about to serve",
  reload: "a reload has ended, well or badly",
  retire: "another generation serves in its place",
  drain: "TokenMan is about to end",
};

function observers(lifecycle: ExplainedHooks["lifecycle"]): string[] {
  const rows = (Object.keys(MOMENTS) as (keyof typeof MOMENTS)[]).flatMap((name) => {
    const names = lifecycle[name];
    return names === undefined ? [] : [[name, `when ${MOMENTS[name]}`, names.join(", ")]];
  });
  return table(rows);
}

function ends(names: readonly string[], first: string, last: string): string | false {
  if (names.length === 0) return false;
  if (names.length === 1) return `${names[0]} alone looks at it`;
  return `${names[0]} ${first}, ${names.at(-1)} ${last}`;
}

function between(from: string, lines: readonly string[], to: string): string[] {
  return [`     from ${from}`, ...lines, `     to ${to}`];
}

function numbered(names: readonly string[]): string[] {
  if (names.length === 0) return ["  nobody"];
  const digits = String(names.length).length + 1;
  return names.map((name, index) => `  ${`${index + 1}.`.padStart(Math.max(2, digits))} ${name}`);
}

const PLUGIN_COLUMNS = ["name", "version", "if it fails", "its place is from", "source", ""];
function pluginRow(plugin: ExplainedPlugin): string[] {
  const { name, version, source, stage, listed, from, onError, quarantined } = plugin;
  const placed = listed
    ? from
    : stage === undefined
      ? `stage shape, as it names none (${from})`
      : `stage ${stage} (${from})`;
  const policy = onError === "closed" ? "the request is refused" : "the request goes on";
  const health = quarantined === undefined ? "" : `QUARANTINED: ${quarantined}`;
  return [name, version, policy, placed, source, health];
}

function serviceRow({ service, providedBy, neededBy }: Explanation["services"][number]): string[] {
  const users = neededBy
    .map(({ plugin, optional }) => (optional ? `${plugin} (can do without)` : plugin))
    .join(", ");
  return [
    service,
    providedBy === undefined ? "provided by nobody" : `provided by ${providedBy}`,
    users && `used by ${users}`,
  ];
}

/** Plugin by plugin, each kind on a line of its own. */
function contributions({ contributions }: Explanation): string[] {
  const kinds = Map.groupBy(contributions, ({ kind, plugin }) => `${plugin}\n${kind}`);
  const rows = [...kinds].map(([key, entries]) => {
    const [plugin, kind] = key.split("\n") as [string, string];
    const names = entries.map(({ name }) => name);
    return { plugin, kind, names: kind === "route" ? routes(names) : names };
  });
  rows.sort((left, right) => compare(left.plugin, right.plugin) || compare(left.kind, right.kind));
  const shown = rows.map(({ plugin, kind, names }, index) => [
    rows[index - 1]?.plugin === plugin ? "" : plugin,
    kind,
    // An observer has no name but its plugin's.
    kind === "hookObserver" ? "times the other plugins' hooks" : names.join(", "),
  ]);
  return table(shown);
}

/** "GET /health on both ports", where it is. */
function routes(names: readonly string[]): string[] {
  const ports = Map.groupBy(names, (name) => name.slice(name.indexOf(" ") + 1));
  return [...ports].map(([path, on]) => {
    const port = on.length > 1 ? "both ports" : `the ${on[0]!.slice(0, on[0]!.indexOf(" "))} port`;
    return `${path} on ${port}`;
  });
}

function compare(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function sentences(...parts: readonly (string | false)[]): string {
  return parts.filter((part) => part !== false).join(". ");
}

/** Nothing where there are no lines. */
function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? "" : `${wrap(`${title}:`, WIDTH).join("\n")}\n${lines.join("\n")}`;
}

function warning(text: string): string {
  return wrap(text, WIDTH - 4)
    .map((line, index) => `${index === 0 ? "  - " : "    "}${line}`)
    .join("\n");
}

function indent(text: string): string {
  return text.replace(/^/gm, "  ");
}

/** Breaks a text at spaces into lines of at most `width` columns, if its words let it. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line === "") line = word;
    else if (line.length + 1 + word.length <= width) line += ` ${word}`;
    else {
      lines.push(line);
      line = word;
    }
  }
  return [...lines, line];
}

/** Columns two spaces apart; the last one is broken into lines where it is too long. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  // A column in which nothing stands is left out.
  const columns = widths.flatMap((width, column) => (width > 0 ? [column] : []));
  const last = columns.pop()!;
  return rows.flatMap((row) => {
    const before = columns.map((column) => `${(row[column] ?? "").padEnd(widths[column]!)}  `).join("");
    const lines = wrap(row[last] ?? "", Math.max(MIN_WIDTH, WIDTH - 2 - before.length));
    return lines.map((line, index) =>
      `  ${index === 0 ? before : " ".repeat(before.length)}${line}`.trimEnd(),
    );
  });
}
