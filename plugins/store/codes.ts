import {
  type AttemptResult,
  type LedgerEnd,
  type LedgerOutcome,
  type LedgerSaving,
  type LedgerTiming,
  type Outcome,
  PROMPT_CACHE_RESULTS,
  type PromptCacheResult,
} from "@tokenman/plugin-sdk";

/** Closed sets of names, stored as their position. Only ever append: what is on disk refers to it. */
export const OUTCOMES: readonly LedgerOutcome[] = [
  "open",
  "answered",
  "aborted",
  "partial",
  "refused",
  "failed",
  "interrupted",
];
export const OPEN = 0;
export const ANSWERED: number = OUTCOMES.indexOf("answered");
export const INTERRUPTED: number = OUTCOMES.indexOf("interrupted");

export const ORIGINS: readonly NonNullable<Outcome["origin"]>[] = ["provider", "plugin", "kernel"];
export const CACHE: readonly NonNullable<LedgerEnd["cache"]>[] = ["HIT", "MISS", "BYPASS", "COALESCED"];
export const PROMPT_CACHE: readonly PromptCacheResult[] = PROMPT_CACHE_RESULTS;
export const RESULTS: readonly AttemptResult["kind"][] = ["reply", "skipped", "error", "cancelled"];
export const BODY_ENDS: readonly Extract<AttemptResult, { kind: "reply" }>["body"][] = [
  "complete",
  "upstream-cut",
  "aborted",
  "failed",
];
export const SAVINGS: readonly LedgerSaving["kind"][] = ["response-cache", "provider-cache", "compression"];
export const HOOKS: readonly LedgerTiming["hook"][] = ["request", "beforeUpstream", "response"];

/** Texts that occur again and again have an id in a table, apart for each kind. */
export const TEXT_KINDS = [
  "project",
  "session",
  "client",
  "method",
  "path",
  "dialect",
  "model",
  "provider",
  "code",
  "plugin",
  "tier",
  "reason",
] as const;
export type TextKind = (typeof TEXT_KINDS)[number];

/** The position of a name, or null where there is none. */
export function codeOf<T extends string>(names: readonly T[], name: T | undefined): number | null {
  const index = name === undefined ? -1 : names.indexOf(name);
  return index < 0 ? null : index;
}

export function nameOf<T extends string>(names: readonly T[], code: number | null): T | undefined {
  return code === null ? undefined : names[code];
}
