import type { Plugin } from "@tokenman/plugin-sdk";

/** The plugins that come with TokenMan. Built by the composition root, which alone may import them. */
export interface FirstPartyRegistry {
  names(): readonly string[];
  /** Imports the plugin's module at its first use. Rejects for a name that is not in `names()`. */
  load(name: string): Promise<Plugin>;
  /** The order in which a request passes them, where the config does not say. */
  readonly defaultOrder: readonly string[];
  /** Loaded whatever the lists say (dialects, router, health), unless taken out by `--plugins -NAME`. */
  readonly alwaysOn: readonly string[];
}
