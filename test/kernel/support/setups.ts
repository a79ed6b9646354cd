import { type PluginDefinition, type SetupContext, service } from "@tokenman/plugin-sdk";
import { plugin } from "./generations.ts";

/** What the setup of a plugin without services is given. */
export type Context = SetupContext<unknown, Record<never, never>>;
type Setup = (ctx: Context) => void | Promise<void>;
/** A service for one plugin to provide and another to need. */
export const Ledger = service<{ readonly name: string }>("Ledger");

/** A plugin that is its setup. */
export function withSetup(name: string, setup: Setup, more: Partial<PluginDefinition> = {}) {
  return plugin(name, { ...more, setup: setup as never });
}
/** Acquires a labelled resource whose coming and going is written down. */
export function resource(ctx: Context, events: string[], label: string): Promise<string> {
  return ctx.effect(
    label,
    () => {
      events.push(`+${label}`);
      return label;
    },
    () => void events.push(`-${label}`),
  );
}
