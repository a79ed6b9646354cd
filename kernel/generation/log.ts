import type { Logger } from "@tokenman/plugin-sdk";

/** A logger whose lines all say which plugin they are of. */
export function pluginLogger(log: Logger, plugin: string): Logger {
  const { child } = log as { child?: unknown };
  if (typeof child === "function") return child.call(log, { plugin }) as Logger;
  return {
    trace: (facts, message) => log.trace({ plugin, ...facts }, message),
    debug: (facts, message) => log.debug({ plugin, ...facts }, message),
    info: (facts, message) => log.info({ plugin, ...facts }, message),
    warn: (facts, message) => log.warn({ plugin, ...facts }, message),
    error: (facts, message) => log.error({ plugin, ...facts }, message),
  };
}
