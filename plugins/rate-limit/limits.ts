import { matchesGlob } from "@tokenman/plugin-sdk";
import type { Rate } from "./bucket.ts";
import type { Unit } from "./buckets.ts";
import type { LimitConfig, RateLimitConfig } from "./schema.ts";

/** A bucket that an attempt has to pass. */
export interface Limit {
  readonly scope: string;
  readonly unit: Unit;
  readonly rate: Rate;
}

/** The limits of one pipeline: the section's own, which all projects share, and what a project's overlay changes. */
export class Limits {
  readonly #base: RateLimitConfig;
  readonly #effective: RateLimitConfig;

  constructor(base: RateLimitConfig, effective: RateLimitConfig) {
    this.#base = base;
    this.#effective = effective;
  }

  /** What an attempt has to pass, in the order in which it waits: the narrowest first. */
  of(project: string, provider: string, model: string): readonly Limit[] {
    const { project_limit: ofProject } = this.#effective;
    const limits = ofProject === undefined ? [] : this.#limits(`project:${project}`, ofProject);
    for (const [scope, effective, base] of this.#pairs(provider, model)) {
      if (base !== undefined) limits.push(...this.#limits(scope, base));
      if (effective === undefined || JSON.stringify(effective) === JSON.stringify(base)) continue;
      limits.push(...this.#limits(`project:${project}/${scope}`, effective));
    }
    return limits;
  }

  /** The rate of a bucket that all projects share; undefined for one that this config has not. */
  shared(scope: string, unit: Unit): Rate | undefined {
    const [kind = "", name = ""] = scope.split(/:(.*)/s);
    const config =
      kind === "provider"
        ? providerLimit(this.#base, name)
        : kind === "model"
          ? this.#base.models[name]
          : undefined;
    if (config === undefined) return undefined;
    return this.#limits(scope, config).find((limit) => limit.unit === unit)?.rate;
  }

  /** Whether tokens are counted anywhere. */
  get countTokens(): boolean {
    const has = (limit: LimitConfig | undefined): boolean =>
      typeof limit === "object" && limit.tokens_per_minute !== undefined;
    return [this.#base, this.#effective].some(
      (config) =>
        config.default_tokens_per_minute > 0 ||
        has(config.project_limit) ||
        [...Object.values(config.provider_limits), ...Object.values(config.models)].some(has),
    );
  }

  /** Scopes with what the project's config says about them, and what the shared one does. */
  #pairs(provider: string, model: string): [string, LimitConfig | undefined, LimitConfig | undefined][] {
    const base = this.#base.enabled ? this.#base : undefined;
    const globs = new Set([...Object.keys(this.#effective.models), ...Object.keys(base?.models ?? {})]);
    return [
      ...[...globs]
        .filter((glob) => matchesGlob(glob, model))
        .map((glob): [string, LimitConfig | undefined, LimitConfig | undefined] => [
          `model:${glob}`,
          this.#effective.models[glob],
          base?.models[glob],
        ]),
      [
        `provider:${provider}`,
        providerLimit(this.#effective, provider),
        base && providerLimit(base, provider),
      ],
    ];
  }

  #limits(scope: string, config: LimitConfig): Limit[] {
    const { rate, requests_per_minute, burst, tokens_per_minute } =
      typeof config === "number" ? { rate: config } : config;
    const perSecond = requests_per_minute === undefined ? rate : requests_per_minute / 60;
    const limits: Limit[] = [];
    if (perSecond !== undefined)
      limits.push({
        scope,
        unit: "requests",
        rate: { perSecond, burst: burst ?? this.#effective.default_burst },
      });
    if (tokens_per_minute !== undefined)
      limits.push({
        scope,
        unit: "tokens",
        rate: { perSecond: tokens_per_minute / 60, burst: tokens_per_minute },
      });
    return limits;
  }
}

/** A provider's own limit, completed by the defaults. */
function providerLimit(config: RateLimitConfig, name: string): Exclude<LimitConfig, number> {
  const own = Object.hasOwn(config.provider_limits, name) ? config.provider_limits[name] : undefined;
  const given = typeof own === "number" ? { rate: own } : (own ?? {});
  const tokens = given.tokens_per_minute ?? (config.default_tokens_per_minute || undefined);
  return {
    rate: config.default_rate,
    burst: config.default_burst,
    ...given,
    ...(tokens !== undefined && { tokens_per_minute: tokens }),
  };
}
