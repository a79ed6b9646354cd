import { type Logger, type TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import type { RouteTable } from "./route-table.ts";

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
