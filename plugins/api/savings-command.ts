import { type CommandContext, readAnswer, z } from "@tokenman/plugin-sdk";
import { amount, ask, dollars, textOf, width } from "./ask.ts";
import { holdout, pluginSaving } from "./savings.ts";
import { type Column, table } from "./table.ts";

const savingsShape = z.object({ plugins: z.array(pluginSaving), holdout });
type Savings = z.output<typeof savingsShape>;

const COLUMNS: readonly Column[] = [
  { title: "PLUGIN", align: "left", shrinks: true },
  { title: "BY", align: "left", dispensable: 1 },
  { title: "REQUESTS", align: "right", dispensable: 2 },
  { title: "TOKENS", align: "right" },
  { title: "SAVED", align: "right", dispensable: 3 },
  { title: "LOST", align: "right", dispensable: 3 },
  { title: "NET", align: "right" },
];

/** `tokenman savings`. */
export async function showSavings(context: CommandContext): Promise<void> {
  const { options, print } = context;
  const since = textOf(options["since"]) ?? "7d";
  const project = textOf(options["project"]);
  const query = {
    ...(since === "all" ? { range: "all" } : { since }),
    ...(project !== undefined && { project }),
  };
  const found = await ask(context, "/api/savings", query, savingsShape);
  const cache = await promptCacheOf(context);
  if (options["json"] === true) {
    print(JSON.stringify({ ...found, promptCache: cache ?? null }, undefined, 2));
    return;
  }
  const own = found.plugins.filter(({ plugin }) => plugin !== "provider");
  const others = found.plugins.filter(({ plugin }) => plugin === "provider");
  if (own.length === 0) print("no plugin has saved or lost anything");
  else {
    const net = own.reduce((sum, { netUsd }) => sum + netUsd, 0);
    const tokens = own.reduce((sum, each) => sum + each.tokens, 0);
    const rows = [...own.map(cellsOf), ["together", "", "", signed(tokens), "", "", dollars(net)]];
    for (const line of table(COLUMNS, rows, width())) print(line);
  }
  for (const { netUsd } of others)
    print(`${dollars(netUsd)} saved the provider's prompt cache by itself, or by the clients' own hints`);
  for (const line of [...cacheLines(cache), ...comparison(found.holdout)]) print(line);
}

/** What the provider's prompt cache had of the turns since the start. */
const promptCacheShape = z.object({
  hit_rate: z.number().nullable(),
  turns_by_result: z.record(z.string(), z.number()),
});
type PromptCache = z.output<typeof promptCacheShape>;

/** Undefined where no plugin measures it. */
async function promptCacheOf(context: CommandContext): Promise<PromptCache | undefined> {
  const reply = await context.fetch("/api/prompt-cache");
  if (!reply.ok) return undefined;
  const { hit_rate, turns_by_result } = await readAnswer(context, reply, promptCacheShape);
  return { hit_rate, turns_by_result };
}

/** In words; nothing before the first turn that the cache could have had something of. */
function cacheLines(cache: PromptCache | undefined): string[] {
  if (cache === undefined || cache.hit_rate === null) return [];
  const { hit = 0, first = 0, ...broken } = cache.turns_by_result;
  const causes = Object.entries(broken).filter(([, turns]) => turns > 0);
  const lost = causes.reduce((sum, [, turns]) => sum + turns, 0);
  const line = `since the start the providers' prompt caches had ${percent(100 * cache.hit_rate)} of the input: ${hit} turns found, ${first} first ones, ${lost} lost`;
  if (lost === 0) return [line];
  const told = causes
    .toSorted(([, a], [, b]) => b - a)
    .map(([cause, turns]) => `${WHY[cause] ?? cause} (${turns})`);
  return [line, `  why: ${told.join(", ")}`];
}

const WHY: Readonly<Record<string, string>> = {
  model: "another model",
  tools: "changed tools",
  system: "a changed system prompt",
  history: "a changed history",
  expired: "too long a pause",
  provider: "the provider had it no more",
};

function cellsOf(saving: Savings["plugins"][number]): string[] {
  const { plugin, kind, requests, tokens, savedUsd, lostUsd, netUsd } = saving;
  return [
    plugin,
    kind.replace("-", " "),
    String(requests),
    tokens === 0 ? "" : signed(tokens),
    dollars(savedUsd),
    lostUsd === 0 ? "" : dollars(lostUsd),
    dollars(netUsd),
  ];
}

function signed(tokens: number): string {
  return tokens < 0 ? `-${amount(-tokens)}` : amount(tokens);
}

/** What the sessions say that were held out, in words. */
function comparison({ compressed, held, effect }: Savings["holdout"]): string[] {
  if (compressed.sessions + held.sessions === 0) return [];
  const sides = `${compressed.sessions} sessions compressed, ${held.sessions} held out`;
  if (effect === null) return [`held-out sessions: too few to compare with (${sides})`];
  const { savedPercent, lowPercent, highPercent } = effect;
  const verdict =
    lowPercent > 0 ? "a saving" : highPercent < 0 ? "a loss" : "neither a saving nor a loss that can be told";
  return [
    `by comparison with held-out sessions compression saves ${percent(savedPercent)} of the input's cost`,
    `  95 % interval ${percent(lowPercent)} to ${percent(highPercent)}: ${verdict} (${sides})`,
  ];
}

function percent(value: number): string {
  return `${value.toFixed(1)} %`;
}
