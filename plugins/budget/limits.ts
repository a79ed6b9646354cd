import { type BudgetWindow, type Calendar, matchesGlob, PERIODS, type Period } from "@tokenman/plugin-sdk";
import type { BudgetConfig, PeriodLimits } from "./schema.ts";

/** What a limit counts: everything, or what goes to some providers or models; of all projects, or of one. */
export interface Limit {
  readonly kind: "total" | "provider" | "model";
  /** The provider's name, or a glob of models; empty for the total. */
  readonly name: string;
  readonly period: Period;
  readonly nanoUsd: number;
  /** It is in a project's overlay, and counts that project alone. */
  readonly ofProject: boolean;
}

const KEYS = { hourly: "hourly_limit", daily: "daily_limit", monthly: "monthly_limit" } as const;
const NANOS_PER_USD = 1_000_000_000;

/**
 * The limits of a pipeline. Those of the section itself hold for all projects together. What a project's overlay sets
 * anew is that project's own, beside them; so is everything where the section itself is off.
 */
export function limitsOf(base: BudgetConfig, effective: BudgetConfig): readonly Limit[] {
  if (!base.enabled) return limitsIn(effective, true);
  const shared = limitsIn(base, false);
  const known = new Set(shared.map(identity));
  return [...shared, ...limitsIn(effective, true).filter((limit) => !known.has(identity(limit)))];
}

function identity({ kind, name, period, nanoUsd }: Limit): string {
  return `${kind}:${name}:${period}:${nanoUsd}`;
}

function limitsIn(config: BudgetConfig, ofProject: boolean): Limit[] {
  const of = (kind: Limit["kind"], name: string, limits: PeriodLimits): Limit[] =>
    PERIODS.flatMap((period) => {
      const nanoUsd = Math.round(limits[KEYS[period]] * NANOS_PER_USD);
      return nanoUsd > 0 ? [{ kind, name, period, nanoUsd, ofProject }] : [];
    });
  return [
    ...of("total", "", config),
    ...Object.entries(config.providers).flatMap(([name, limits]) => of("provider", name, limits)),
    ...Object.entries(config.models).flatMap(([glob, limits]) => of("model", glob, limits)),
  ];
}

/** Whether the limit counts what goes to this provider and model. */
export function counts(limit: Limit, provider: string, model: string): boolean {
  if (limit.kind === "total") return true;
  return limit.kind === "provider" ? limit.name === provider : matchesGlob(limit.name, model);
}

/** The limit's window at a time, with the scope's name in the ledger. */
export function windowOf(limit: Limit, project: string, calendar: Calendar, at: number): BudgetWindow {
  const own = limit.kind === "total" ? "" : `${limit.kind}:${limit.name}`;
  const scope = limit.ofProject ? `project:${project}${own === "" ? "" : `/${own}`}` : own || "total";
  return {
    scope,
    period: limit.period,
    ...calendar.span(limit.period, at),
    limitNanoUsd: limit.nanoUsd,
  };
}
