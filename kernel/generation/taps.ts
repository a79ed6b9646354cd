import { type Hooks, type Lifecycle, TokenmanError } from "@tokenman/plugin-sdk";
import type { PluginTaps } from "../hooks/pipeline.ts";
import type { PluginHandle } from "../hooks/plugin-handle.ts";
import type { BeforeUpstreamTap, RequestTap, ResponseTap } from "../hooks/run-tap.ts";

export type PipelineBuild = (config: unknown, hooks: Hooks) => unknown;

const LIFECYCLE: readonly (keyof Lifecycle)[] = [
  "ready",
  "retire",
  "drain",
  "start",
  "attemptEnd",
  "settled",
  "reload",
];

/**
 * Runs a plugin's pipeline builders for one effective config and returns what they tapped. The hooks work only while
 * a builder runs: a tap that came later would be part of no pipeline. Throws TM_PLUGIN_SETUP.
 */
export function recordTaps(
  plugin: PluginHandle,
  builds: readonly PipelineBuild[],
  config: unknown,
): PluginTaps {
  const request: RequestTap[] = [];
  const beforeUpstream: BeforeUpstreamTap[] = [];
  const response: ResponseTap[] = [];
  const lifecycle = new Map<keyof Lifecycle, unknown[]>();
  let open = true;

  const fail = (hook: string, message: string): never => {
    throw new TokenmanError("TM_PLUGIN_SETUP", `plugin "${plugin.name}" ${message}`, {
      plugin: plugin.name,
      hook,
    });
  };
  const into = (hook: string, list: unknown[]) => ({
    tap(fn: unknown): void {
      if (!open) fail(hook, `tapped ${hook} after its pipeline function had returned; tap while it runs`);
      if (typeof fn !== "function")
        fail(hook, `tapped ${hook} with ${fn === null ? "null" : typeof fn}; expected a function`);
      list.push(fn);
    },
  });
  const hooks = Object.freeze({
    request: into("request", request),
    beforeUpstream: into("beforeUpstream", beforeUpstream),
    response: into("response", response),
    lifecycle: Object.freeze({
      for(name: keyof Lifecycle) {
        if (!LIFECYCLE.includes(name)) {
          fail(`lifecycle ${name}`, `asked for lifecycle "${name}"; there are ${LIFECYCLE.join(", ")}`);
        }
        const list = lifecycle.get(name) ?? [];
        lifecycle.set(name, list);
        return into(`lifecycle ${name}`, list);
      },
    }),
  }) as Hooks;

  try {
    for (const build of builds) {
      const returned = build(config, hooks);
      if (typeof (returned as PromiseLike<unknown> | undefined)?.then === "function") {
        // Its rejection, most likely that of a late tap, is told here already.
        Promise.resolve(returned).catch(() => undefined);
        fail("pipeline", "has an async pipeline function; acquire in setup, and tap synchronously");
      }
    }
  } finally {
    open = false;
  }
  return { plugin, request, beforeUpstream, response, lifecycle: Object.fromEntries(lifecycle) };
}
