import {
  type Logger,
  matchesGlob,
  type TokenmanError,
  TokenmanErrors,
  type WrittenConfig,
} from "@tokenman/plugin-sdk";
import { ModelMap } from "./model-map.ts";
import { problemsOf } from "./problems.ts";
import type { RouteTable } from "./route-table.ts";
import { BUILT_IN } from "./schema.ts";

/** Throws TokenmanErrors with all that is wrong with any of them, and warns of what is odd. Each is told once. */
export function checkRoutes(tables: readonly (() => RouteTable)[], log: Logger): void {
  const problems = new Map<string, TokenmanError>();
  const idle = new Set<string>();
  for (const table of tables) {
    try {
      for (const provider of table().idle()) idle.add(provider);
    } catch (cause) {
      if (!(cause instanceof TokenmanErrors)) throw cause;
      for (const error of cause.errors) problems.set(error.message, error);
    }
  }
  if (problems.size > 0) throw new TokenmanErrors([...problems.values()]);
  const why =
    "it lists no models, no entry of routing.model_map leads to it, others are the default, and routing.fallback_enabled is off";
  for (const provider of idle) log.warn({ provider }, `no request comes to the provider ${provider}: ${why}`);
}

/**
 * The same of a config that nobody has validated: what is of another type than it should be is passed over here. Where
 * some plugin may contribute providers or formats of any name, nothing is said: `checkRoutes` will.
 */
export function checkWritten({ section, projects, names }: WrittenConfig): readonly TokenmanError[] {
  if (names === undefined) return [];
  const configured = Object.entries(section("providers")).map(([name, value]) => {
    const { name: alias, format, models } = tableOf(value);
    return { name, alias, format, models: Array.isArray(models) ? models.filter(isText) : [] };
  });
  const contributed = Object.entries(names.providers);
  const known = [...configured.map(({ name }) => name), ...contributed.map(([name]) => name), ...BUILT_IN];
  const isProvider = (name: string) => known.includes(name) || configured.some(({ alias }) => alias === name);
  const globs = [
    ...configured.map(({ models }) => models),
    ...contributed.map(([, models]) => models),
  ].flat();
  const speechless = configured.flatMap(({ name, format }) =>
    isText(format) && format !== "" && !names.formats.includes(format) ? [{ name, format }] : [],
  );
  return [undefined, ...projects].flatMap((project) => {
    const { model_map, default_provider } = section("routing", project);
    const targets = Object.entries(tableOf(model_map)).filter((entry): entry is [string, string] =>
      isText(entry[1]),
    );
    const map = new ModelMap(Object.fromEntries(targets), isProvider);
    return problemsOf(map, {
      default: isText(default_provider) && default_provider !== "" ? default_provider : BUILT_IN[0],
      names: [...new Set(known)],
      isProvider,
      isListed: (model) => globs.some((glob) => matchesGlob(glob, model)),
      formats: names.formats,
      speechless,
    });
  });
}

function tableOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
function isText(value: unknown): value is string {
  return typeof value === "string";
}
