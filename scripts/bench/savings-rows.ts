/** What is compared in `make bench-savings`, and how one row of it is measured. */
import type { LedgerSaving, Pricing, Usage } from "@tokenman/plugin-sdk";
import { rewriteProblems } from "@tokenman/plugin-sdk/testkit";
import { firstParty } from "../../cli/registry.ts";
import { Catalogue } from "../../plugins/pricing/catalogue.ts";
import { Overrides } from "../../plugins/pricing/overrides.ts";
import { Pricer } from "../../plugins/pricing/pricer.ts";
import { naiveCalls } from "./naive.ts";
import { sendThrough } from "./proxied.ts";
import { type RecordedCall, type ReplayDialect, recordedCalls } from "./recorded-calls.ts";
import type { SessionTurn } from "./session.ts";
import { MIN_TOKENS, type ProviderRules, simulate } from "./simulated.ts";

/** What the requests of each shape are priced as. */
export const MODEL: Readonly<Record<ReplayDialect, string>> = {
  "anthropic-messages": "claude-opus-4-5",
  "openai-chat": "gpt-5.6",
  "openai-responses": "gpt-5.6",
};

export interface Row {
  readonly name: string;
  readonly dialect: ReplayDialect;
  /** Whether the client hints at the provider's cache by itself. */
  readonly hints: boolean;
  readonly way:
    | "direct"
    | { /** Naive compression: messages kept. */ readonly window: number }
    | { /** Sections of the config file. */ readonly config: string };
}

/** What was billed for a session. Money is in nano-dollars. */
export interface RowResult {
  readonly input: number;
  readonly read: number;
  readonly written: number;
  readonly output: number;
  readonly nanoUsd: number;
  /** Calls that plugins made by themselves, and what they cost. */
  readonly ownCalls: number;
  readonly ownNanoUsd: number;
  /** What the ledger says was saved, by plugin. */
  readonly savings: Readonly<Record<string, { readonly tokens: number; readonly nanoUsd: number }>>;
  /** Requests that the rewriting broke; counted where that was asked for. */
  readonly invalid: number | undefined;
}

/** Messages that naive compression keeps: what is usual, and five times that. */
const WINDOWS = [20, 100] as const;

/** A feature that may save, with the settings that make it do so. Those whose plugins are not there are left out. */
interface Feature {
  readonly name: string;
  readonly plugin: string;
  readonly section: string;
  readonly settings?: string;
  /** On out of the box. */
  readonly isDefault?: boolean;
}

const FEATURES: readonly Feature[] = [
  { name: "cache", plugin: "cache", section: "cache", isDefault: true },
  { name: "dedup", plugin: "dedup", section: "compression.dedup", isDefault: true },
  { name: "rules", plugin: "rules", section: "compression.rules", isDefault: true },
  {
    name: "rules, tool output",
    plugin: "rules",
    section: "compression.rules",
    settings: "tool_output = true",
  },
  { name: "heartbeat", plugin: "heartbeat", section: "compression.heartbeat" },
  { name: "history", plugin: "history", section: "compression.history" },
  { name: "summarize", plugin: "summarize", section: "compression.summarization" },
];

/** Those whose plugins this TokenMan has. */
function features(): readonly Feature[] {
  const names = new Set(firstParty.names());
  return FEATURES.filter(({ plugin }) => names.has(plugin));
}

/** The config with these features on and all others off. */
function configWith(on: readonly Feature[]): { readonly config: string } {
  const sections = new Map(features().map(({ section }) => [section, "enabled = false"]));
  for (const { section, settings } of on)
    sections.set(section, `enabled = true${settings === undefined ? "" : `\n${settings}`}`);
  return { config: [...sections].map(([section, lines]) => `[${section}]\n${lines}`).join("\n") };
}

/** All rows of one dialect, those to compare with first. */
export function rowsOf(dialect: ReplayDialect): readonly Row[] {
  const all = features();
  const defaults = configWith(all.filter(({ isDefault }) => isDefault === true));
  // Of two settings of a section the later one counts, which is the one that does more.
  const everything = configWith(all);
  const row = (name: string, hints: boolean, way: Row["way"]): Row => ({ name, dialect, hints, way });
  const baselines = (hints: boolean): Row[] => [
    row("direct", hints, "direct"),
    ...WINDOWS.map((window) => row(window === WINDOWS[0] ? "naive" : `naive (${window})`, hints, { window })),
  ];
  const rows = baselines(false);
  if (dialect === "anthropic-messages") rows.push(...baselines(true), row("defaults", true, defaults));
  rows.push(
    ...all
      // They answer what was asked before: a session asks nothing twice, and nothing is to be seen of them alone.
      .filter(({ plugin }) => plugin !== "cache" && plugin !== "heartbeat")
      .map((feature) => row(`${feature.name} alone`, false, configWith([feature]))),
    row("defaults", false, defaults),
    row("everything", false, everything),
  );
  if (dialect === "anthropic-messages") rows.push(row("everything", true, everything));
  return rows;
}

export interface MeasureOptions {
  readonly bytesPerToken: number;
  /** Whether each request that reached the provider is checked against the vendor's rules. */
  readonly checks: boolean;
}

/** Sends, or reckons, the session once. */
export async function measure(
  turns: readonly SessionTurn[],
  { dialect, hints, way }: Row,
  { bytesPerToken, checks }: MeasureOptions,
): Promise<RowResult> {
  const rules: ProviderRules = { bytesPerToken, minTokens: MIN_TOKENS[dialect] };
  const calls = recordedCalls(turns, { dialect, hints, model: MODEL[dialect] });
  if (way === "direct") return reckoned(calls, dialect, rules, checks);
  if ("window" in way) return reckoned(naiveCalls(calls, dialect, way.window), dialect, rules, checks);
  let original: RecordedCall | undefined;
  let invalid = 0;
  const found = await sendThrough(
    (function* () {
      for (const call of calls) {
        original = call;
        yield call;
      }
    })(),
    {
      ...rules,
      dialect,
      config: way.config,
      ...(checks && {
        sent(_turn, body) {
          if (original !== undefined && rewriteProblems(dialect, original.body, body).length > 0) invalid++;
        },
      }),
    },
  );
  const sum = { input: 0, read: 0, written: 0, output: 0, nanoUsd: 0, ownCalls: 0, ownNanoUsd: 0 };
  const savings: Record<string, { tokens: number; nanoUsd: number }> = {};
  for (const { turn, end } of found) {
    for (const { usage, cost, unpriced } of end.attempts) {
      if (usage !== undefined && cost === undefined)
        throw new Error(`${MODEL[dialect]} has no price: ${unpriced}`);
      sum.nanoUsd += cost?.total ?? 0;
      if (usage !== undefined) addUsage(sum, usage);
      if (turn !== undefined) continue;
      sum.ownCalls++;
      sum.ownNanoUsd += cost?.total ?? 0;
    }
    for (const saving of end.savings) addSaving(savings, saving);
  }
  return { ...sum, savings, invalid: checks ? invalid : undefined };
}

type Sum = Pick<Record<keyof RowResult, number>, "input" | "read" | "written" | "output">;

function addUsage(sum: Sum, usage: Usage): void {
  sum.input += usage.inputTokens;
  sum.read += usage.cacheReadTokens;
  sum.written += usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
  sum.output += usage.outputTokens;
}

function addSaving(
  savings: Record<string, { tokens: number; nanoUsd: number }>,
  { plugin, kind, tokens, nanoUsd }: LedgerSaving,
): void {
  const name = plugin === "provider" ? kind : plugin;
  savings[name] ??= { tokens: 0, nanoUsd: 0 };
  savings[name].tokens += tokens;
  savings[name].nanoUsd += nanoUsd ?? 0;
}

function reckoned(
  calls: Iterable<RecordedCall>,
  dialect: ReplayDialect,
  rules: ProviderRules,
  checks: boolean,
): RowResult {
  const pricing: Pricing = new Pricer(new Overrides({}), new Catalogue());
  const times: number[] = [];
  let invalid = 0;
  const usages = simulate(
    (function* () {
      for (const call of calls) {
        times.push(call.sentAt);
        if (checks && rewriteProblems(dialect, call.body, call.body).length > 0) invalid++;
        yield call;
      }
    })(),
    dialect,
    rules,
  );
  const sum = { input: 0, read: 0, written: 0, output: 0, nanoUsd: 0 };
  usages.forEach(({ input, read, write5m, write1h, output }, index) => {
    const usage: Usage = {
      source: "provider",
      inputTokens: input,
      cacheReadTokens: read,
      cacheWrite5mTokens: write5m,
      cacheWrite1hTokens: write1h,
      outputTokens: output,
      reasoningTokens: 0,
      serverTools: {},
      serviceTier: undefined,
      model: MODEL[dialect],
      complete: true,
    };
    addUsage(sum, usage);
    const format = dialect === "anthropic-messages" ? "anthropic" : "openai";
    const price = pricing.price(
      { model: MODEL[dialect], provider: "mock", format, at: times[index]! },
      usage,
    );
    if (!price.priced) throw new Error(`${MODEL[dialect]} has no price: ${price.reason}`);
    sum.nanoUsd += price.cost.total;
  });
  return { ...sum, ownCalls: 0, ownNanoUsd: 0, savings: {}, invalid: checks ? invalid : undefined };
}
