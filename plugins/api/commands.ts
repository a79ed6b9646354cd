import {
  type Command,
  type CommandContext,
  notTokenman,
  type SseEvent,
  SseSplitter,
  TokenmanError,
  z,
} from "@tokenman/plugin-sdk";
import { amount, ask, dollars, said, textOf, width } from "./ask.ts";
import { figures } from "./figures.ts";
import { summary } from "./request.ts";
import { showSavings } from "./savings-command.ts";
import { type Column, harmless, table } from "./table.ts";

type Figures = z.output<typeof figures>;
type Summary = z.output<typeof summary>;

const DAY_MS = 86_400_000;
const BY = ["project", "model", "provider", "day"] as const;
const JSON_OUTPUT = { flag: "--json", description: "Print JSON" };

/** The commands ask the instance that runs. */
export const apiCommands: readonly Command[] = [
  {
    usage: "stats",
    description: "Show requests, tokens, cost and savings",
    options: [
      { flag: "--since <time>", description: "A duration before now (7d), a date, or all", default: "24h" },
      { flag: "--by <what>", description: "project, model, provider or day" },
      JSON_OUTPUT,
    ],
    examples: [
      "tokenman stats",
      "tokenman stats --since 7d --by model",
      "tokenman stats --since 30d --by day --json",
    ],
    run: stats,
  },
  {
    usage: "requests",
    description: "Show the newest requests",
    options: [
      { flag: "--follow", description: "Go on, with each request as it ends" },
      { flag: "--limit <n>", description: "How many", default: "20" },
      { flag: "--project <name>", description: "Of this project" },
      { flag: "--model <name>", description: "Of this model" },
      { flag: "--provider <name>", description: "Sent to this provider" },
      { flag: "--status <status>", description: "Such as 429, or 5xx" },
      {
        flag: "--outcome <kind>",
        description: "answered, aborted, partial, refused, failed, interrupted or open",
      },
      { flag: "--since <time>", description: "A duration before now (7d), or a date" },
      { flag: "--text <words>", description: "Words of the error" },
      JSON_OUTPUT,
    ],
    examples: [
      "tokenman requests",
      "tokenman requests --follow",
      "tokenman requests --status 5xx --since 1d",
    ],
    run: requests,
  },
  {
    usage: "savings",
    description: "Show what each plugin saved, and whether sessions held out say the same",
    options: [
      { flag: "--since <time>", description: "A duration before now (7d), a date, or all", default: "7d" },
      { flag: "--project <name>", description: "Of this project" },
      JSON_OUTPUT,
    ],
    examples: ["tokenman savings", "tokenman savings --since 30d --project web"],
    run: showSavings,
  },
];

async function stats(context: CommandContext): Promise<void> {
  const { options, print } = context;
  const by = textOf(options["by"]);
  if (by !== undefined && !BY.some((each) => each === by))
    throw new TokenmanError("TM_USAGE", `--by is one of ${BY.join(", ")}`);
  const since = textOf(options["since"]) ?? "24h";
  const span = since === "all" ? { range: "all" } : { since };
  if (by === "day") await statsByDay(context, since);
  else if (by === undefined) {
    const found = await ask(context, "/api/stats", span, figures);
    if (options["json"] === true) print(JSON.stringify(found, undefined, 2));
    else for (const line of overview(found)) print(line);
  } else {
    const groups = z.array(figures.extend({ name: z.string() }));
    const key = `${by}s`;
    const found = await ask(context, `/api/${key}`, span, z.object({ [key]: groups }));
    if (options["json"] === true) print(JSON.stringify(found, undefined, 2));
    else
      printFigures(
        context,
        by.toUpperCase(),
        (found[key] ?? []).map(({ name, ...sums }) => [name || "(none)", sums]),
      );
  }
}

const spanShape = z.object({ from: z.number(), to: z.number() });
const pointsShape = z.object({ points: z.array(figures.extend({ at: z.number() })) });

/** Days of this machine's time zone; where the ledger has no hours any more, days of UTC. */
async function statsByDay(context: CommandContext, since: string): Promise<void> {
  const { options, print } = context;
  const span = since === "all" ? { range: "all" } : { since };
  const asked = await ask(context, "/api/stats", span, spanShape);
  const isRecent = asked.to - asked.from <= 60 * DAY_MS;
  const from = Math.max(asked.from, asked.to - 4_000 * DAY_MS);
  const zone = isRecent ? Intl.DateTimeFormat().resolvedOptions().timeZone : "UTC";
  const query = isRecent
    ? { since: new Date(from).toISOString(), step: "day", zone }
    : { since: new Date(Math.floor(from / DAY_MS) * DAY_MS).toISOString(), step: "1d" };
  const { points } = await ask(context, "/api/stats/history", query, pointsShape);
  const days = points.map(
    ({ at, ...sums }) => [isRecent ? localDay(at) : new Date(at).toISOString().slice(0, 10), sums] as const,
  );
  if (options["json"] === true) {
    const rows = days.map(([day, sums]) => ({ day, ...sums }));
    print(JSON.stringify({ timeZone: zone, days: rows }, undefined, 2));
  } else printFigures(context, `DAY (${zone})`, days);
}

const FIGURE_COLUMNS: readonly Column[] = [
  { title: "REQUESTS", align: "right" },
  { title: "ERRORS", align: "right", dispensable: 3 },
  { title: "INPUT", align: "right", dispensable: 2 },
  { title: "CACHED", align: "right", dispensable: 5 },
  { title: "OUTPUT", align: "right", dispensable: 2 },
  { title: "SAVED", align: "right", dispensable: 4 },
  { title: "COST", align: "right" },
  { title: "UNPRICED", align: "right", dispensable: 1 },
];

function printFigures(
  { print }: CommandContext,
  title: string,
  rows: readonly (readonly [string, Figures])[],
): void {
  if (rows.length === 0) {
    print("no requests");
    return;
  }
  const columns: Column[] = [{ title, align: "left", shrinks: true }, ...FIGURE_COLUMNS];
  const cells = rows.map(([name, sums]) => [
    name,
    String(sums.requests),
    String(failures(sums)),
    amount(inputOf(sums)),
    amount(sums.tokens.cacheRead),
    amount(sums.tokens.output),
    dollars(sums.savings.netUsd),
    costText(sums),
    sums.cost.unpriced === 0 ? "" : String(sums.cost.unpriced),
  ]);
  for (const line of table(columns, cells, width())) print(line);
  if (rows.some(([, { cost }]) => cost.estimatedUsd > 0)) print("~ rests in part on estimated tokens");
}

function overview(sums: Figures): string[] {
  const { tokens, savings, cache, cost, latency } = sums;
  const lines: (readonly [string, string])[] = [
    ["requests", `${sums.requests}, ${failures(sums)} failed`],
    [
      "tokens",
      `${amount(inputOf(sums))} in (${amount(tokens.cacheRead)} from the provider's cache), ${amount(tokens.output)} out`,
    ],
    ["cost", costText(sums)],
  ];
  if (cost.estimatedUsd > 0)
    lines.push(["", `~ ${dollars(cost.estimatedUsd)} of it rests on estimated tokens`]);
  if (cost.unpriced > 0) {
    const are = cost.unpriced === 1 ? "is" : "are";
    lines.push(["", `${counted(cost.unpriced, "call")} of unknown price ${are} not in it`]);
  }
  const { responseCache, providerCache, compression } = savings;
  const net = (each: { savedUsd: number; lostUsd: number }): string => dollars(each.savedUsd - each.lostUsd);
  lines.push([
    "saved",
    `${dollars(savings.netUsd)} (response cache ${net(responseCache)}, provider's cache ${net(providerCache)}, compression ${net(compression)})`,
  ]);
  if (cache.hitRate !== null) {
    const shared = cache.coalesced === 0 ? "" : `${cache.coalesced} coalesced, `;
    lines.push([
      "cache",
      `${counted(cache.hits, "hit")}, ${shared}${counted(cache.misses, "miss", "misses")} (${cache.hitRate.toFixed(1)} %)`,
    ]);
  }
  if (latency.meanMs !== null) {
    const first =
      latency.meanFirstByteMs === null ? "" : `, first byte after ${seconds(latency.meanFirstByteMs)}`;
    lines.push(["latency", `${seconds(latency.meanMs)} on the average${first}`]);
  }
  return lines.map(([name, text]) => `${name.padEnd(10)}${text}`);
}

const REQUEST_COLUMNS: readonly Column[] = [
  { title: "TIME", align: "left" },
  { title: "PROJECT", align: "left", shrinks: true, dispensable: 2 },
  { title: "MODEL", align: "left", shrinks: true },
  { title: "PROVIDER", align: "left", shrinks: true, dispensable: 3 },
  { title: "STATUS", align: "left" },
  { title: "IN", align: "right", dispensable: 4 },
  { title: "OUT", align: "right", dispensable: 4 },
  { title: "COST", align: "right" },
  { title: "TOOK", align: "right", dispensable: 1 },
  { title: "ERROR", align: "left", shrinks: true, dispensable: 5 },
];

async function requests(context: CommandContext): Promise<void> {
  const { options, print } = context;
  const isJson = options["json"] === true;
  const filters = ["project", "model", "provider", "status", "outcome", "since", "text"];
  const isFollowing = options["follow"] === true;
  const stray = isFollowing ? filters.find((name) => textOf(options[name]) !== undefined) : undefined;
  if (stray !== undefined)
    throw new TokenmanError("TM_USAGE", `--follow shows all requests, without --${stray}`);
  const query: Record<string, string> = {};
  for (const name of [...filters, "limit"]) {
    const value = textOf(options[name]);
    if (value !== undefined) query[name] = value;
  }
  // The stream begins before the list is asked for, so that nothing falls between.
  const stream = isFollowing ? await openStream(context, undefined) : undefined;
  const rows = await newest(context, query);
  if (isJson) for (const row of rows.toReversed()) print(JSON.stringify(row));
  else if (rows.length === 0 && stream === undefined) print("no requests");
  else for (const line of table(REQUEST_COLUMNS, rows.toReversed().map(cellsOf), width())) print(line);
  if (stream === undefined) return;
  const shown = new Set(rows.filter(({ outcome }) => outcome !== "open").map(({ id }) => id));
  for await (const row of ends(context, stream)) {
    if (!shown.delete(row.id)) print(isJson ? JSON.stringify(row) : lineOf(row));
  }
}

const pageShape = z.object({ rows: z.array(summary), next: z.string().nullable() });

/** Pages may be short, or empty, while there is more. */
async function newest(context: CommandContext, query: Record<string, string>): Promise<Summary[]> {
  const wanted = Number(query["limit"] ?? 20);
  const rows: Summary[] = [];
  let cursor: string | null = null;
  do {
    const asked = { ...query, ...(cursor !== null && { cursor }) };
    const page: z.output<typeof pageShape> = await ask(context, "/api/requests", asked, pageShape);
    rows.push(...page.rows);
    cursor = page.next;
  } while (cursor !== null && rows.length < wanted);
  return rows.slice(0, wanted);
}

type Stream = AsyncIterable<Uint8Array>;

async function openStream(context: CommandContext, lastEventId: string | undefined): Promise<Stream> {
  const query = lastEventId === undefined ? "" : `?${new URLSearchParams({ lastEventId })}`;
  const reply = await context.fetch(`/api/events${query}`);
  if (!reply.ok || reply.body === null) throw new TokenmanError("TM_NOT_RUNNING", await said(reply));
  // Anything else would end, and be asked for again, for ever.
  if (!/^text\/event-stream\b/.test(reply.headers.get("content-type") ?? ""))
    throw notTokenman(context, "its answer is no stream of events");
  return reply.body;
}

/** Requests as they end, for ever: a reload ends the stream, and the next one goes on behind it. */
async function* ends(context: CommandContext, first: Stream): AsyncGenerator<Summary> {
  let lastId: string | undefined;
  for (let stream = first; ; stream = await openStream(context, lastId)) {
    const splitter = new SseSplitter();
    const events: SseEvent[] = [];
    try {
      for await (const chunk of stream) {
        splitter.push(Buffer.from(chunk), (event) => events.push(event));
        for (const event of events.splice(0)) {
          lastId = event.id ?? lastId;
          if (event.event === "end") yield JSON.parse(event.data) as Summary;
        }
      }
    } catch {
      // It broke off. Whether TokenMan is still there, the next one will tell.
    }
  }
}

function lineOf(row: Summary): string {
  const cells = cellsOf(row).map(harmless);
  const widths = [8, 12, 26, 12, 9, 7, 7, 11, 7];
  return cells
    .map((cell, at) => {
      const { align } = REQUEST_COLUMNS[at]!;
      const room = widths[at] ?? 0;
      return align === "left" ? cell.padEnd(room) : cell.padStart(room);
    })
    .join("  ")
    .trimEnd();
}

function cellsOf(row: Summary): string[] {
  const input = row.inputTokens + row.cacheReadTokens + row.cacheWrite5mTokens + row.cacheWrite1hTokens;
  return [
    timeOf(row.at),
    row.project,
    row.model ?? "–",
    row.provider ?? "–",
    row.outcome === "answered" ? String(row.status) : row.outcome,
    input === 0 ? "" : amount(input),
    row.outputTokens === 0 ? "" : amount(row.outputTokens),
    priceOf(row),
    row.durationMs === null ? "" : seconds(row.durationMs),
    row.error ?? "",
  ];
}

function priceOf({ costUsd, unpriced, estimated }: Summary): string {
  if (costUsd === null) return unpriced ? "unpriced" : "";
  return `${estimated ? "~" : ""}${dollars(costUsd)}${unpriced ? " + unpriced" : ""}`;
}

/** Never $0 for what has no known price. */
export function costText({ cost }: Pick<Figures, "cost">): string {
  if (cost.usd === null) return "unpriced";
  return `${cost.estimatedUsd > 0 ? "~" : ""}${dollars(cost.usd)}`;
}

function failures({ outcomes, errors }: Figures): number {
  return errors + outcomes.partial + outcomes.refused + outcomes.failed + outcomes.interrupted;
}
function inputOf({ tokens }: Figures): number {
  return tokens.input + tokens.cacheRead + tokens.cacheWrite5m + tokens.cacheWrite1h;
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

function localDay(at: number): string {
  const date = new Date(at);
  const two = (number: number): string => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
function timeOf(at: number): string {
  return new Date(at).toTimeString().slice(0, 8);
}

function seconds(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
