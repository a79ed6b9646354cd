import {
  type Need,
  nearest,
  type Place,
  type ServiceToken,
  serviceKey,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { LoadedPlugin } from "../load/index.ts";

/** A plugin that would provide something, were it not off. */
export interface OffProvider {
  readonly plugin: LoadedPlugin["plugin"];
  readonly reason: string;
  /** The key of the config that turned it off. */
  readonly configPath?: readonly string[] | undefined;
}

export interface Dependencies {
  /** Providers before those who need them; otherwise the request's order. */
  readonly setupOrder: readonly LoadedPlugin[];
  /** The providing plugin's name by service key. */
  readonly providers: ReadonlyMap<string, string>;
  readonly warnings: readonly string[];
  /** TM_SERVICE_MISSING, TM_SERVICE_DUPLICATE, TM_SERVICE_CYCLE: all there are. */
  readonly problems: readonly TokenmanError[];
}

interface Edge {
  readonly to: LoadedPlugin;
  readonly service: string;
  readonly optional: boolean;
}

/** Works out who is set up before whom. `plugins` are those that will be set up, in the request's order. */
export function resolveDependencies(
  plugins: readonly LoadedPlugin[],
  off: readonly OffProvider[],
): Dependencies {
  const problems: TokenmanError[] = [];
  const byService = providersOf(plugins, problems);
  const edges = new Map<LoadedPlugin, Edge[]>();
  for (const each of plugins) {
    const own: Edge[] = [];
    for (const need of Object.values(each.plugin.needs ?? {})) {
      const { token, optional } = readNeed(need);
      const to = byService.get(serviceKey(token));
      if (to !== undefined) own.push({ to, service: serviceKey(token), optional });
      else if (!optional) problems.push(missing(each, token, byService, off));
    }
    edges.set(each, own);
  }
  const cycles = findCycles(plugins, edges);
  problems.push(...cycles);
  const warnings: string[] = [];
  const setupOrder = cycles.length > 0 ? plugins : sort(plugins, edges, warnings);
  const providers = new Map([...byService].map(([key, { plugin }]) => [key, plugin.name]));
  return { setupOrder, providers, warnings, problems };
}

export function readNeed(need: Need): { readonly token: ServiceToken<unknown>; readonly optional: boolean } {
  return "optional" in need ? { token: need.optional, optional: true } : { token: need, optional: false };
}

function providersOf(plugins: readonly LoadedPlugin[], problems: TokenmanError[]): Map<string, LoadedPlugin> {
  const byService = new Map<string, LoadedPlugin>();
  for (const each of plugins) {
    for (const key of new Set((each.plugin.provides ?? []).map(serviceKey))) {
      const earlier = byService.get(key);
      if (earlier === undefined) {
        byService.set(key, each);
        continue;
      }
      const message = `service ${key} is provided twice: by ${name(earlier)} and by ${name(each)}; turn one of them off`;
      problems.push(new TokenmanError("TM_SERVICE_DUPLICATE", message, at(each)));
    }
  }
  return byService;
}

function missing(
  needing: LoadedPlugin,
  token: ServiceToken<unknown>,
  byService: ReadonlyMap<string, LoadedPlugin>,
  off: readonly OffProvider[],
): TokenmanError {
  const key = serviceKey(token);
  const turnedOff = off.find(({ plugin }) =>
    (plugin.provides ?? []).some((each) => serviceKey(each) === key),
  );
  const other = [...byService].find(([known]) => known.startsWith(`${token.name}@`));
  const near = nearest(key, byService.keys());
  let hint = "no loaded plugin provides it";
  if (turnedOff !== undefined)
    hint = `"${turnedOff.plugin.name}" provides it, and is off: ${turnedOff.reason}`;
  else if (other !== undefined)
    hint = `"${other[1].plugin.name}" provides ${other[0]}, another major version`;
  else if (near !== undefined) hint += `; the nearest is ${near} of "${byService.get(near)!.plugin.name}"`;
  const message = `plugin ${name(needing)} needs service ${key}: ${hint}`;
  return new TokenmanError("TM_SERVICE_MISSING", message, {
    ...at(needing),
    ...(turnedOff?.configPath !== undefined && { configPath: turnedOff.configPath }),
  });
}

/** An error about a plugin, shown where that is asked for. */
function at({ plugin, place }: LoadedPlugin): { readonly plugin: string; readonly place?: Place } {
  return { plugin: plugin.name, ...(place !== undefined && { place }) };
}

function name({ plugin, source }: LoadedPlugin): string {
  return source === "built in" ? `"${plugin.name}"` : `"${plugin.name}" (${source})`;
}

/** Every circle of needs that are not optional, once. */
function findCycles(
  plugins: readonly LoadedPlugin[],
  edges: ReadonlyMap<LoadedPlugin, readonly Edge[]>,
): TokenmanError[] {
  const problems: TokenmanError[] = [];
  const done = new Set<LoadedPlugin>();
  const visit = (
    here: LoadedPlugin,
    way: readonly { readonly from: LoadedPlugin; readonly service: string }[],
  ): void => {
    const start = way.findIndex(({ from }) => from === here);
    if (start !== -1) {
      const circle = way.slice(start);
      const steps = circle.map(({ from, service }, index) => {
        const to = circle[index + 1]?.from ?? here;
        return `"${from.plugin.name}" needs ${service} of "${to.plugin.name}"`;
      });
      const message = `${steps.join(", ")}: none of them can be set up first`;
      problems.push(new TokenmanError("TM_SERVICE_CYCLE", message, at(here)));
      return;
    }
    if (done.has(here)) return;
    for (const { to, service, optional } of edges.get(here) ?? []) {
      if (!optional) visit(to, [...way, { from: here, service }]);
    }
    done.add(here);
  };
  for (const each of plugins) visit(each, []);
  return problems;
}

/** Takes the first plugin in the request's order whose needs are met; optional ones are given up only in a circle. */
function sort(
  plugins: readonly LoadedPlugin[],
  edges: ReadonlyMap<LoadedPlugin, readonly Edge[]>,
  warnings: string[],
): LoadedPlugin[] {
  const waiting = new Set(plugins);
  const sorted: LoadedPlugin[] = [];
  while (waiting.size > 0) {
    const unmet = (each: LoadedPlugin) => (edges.get(each) ?? []).filter(({ to }) => waiting.has(to));
    const candidates = [...waiting];
    const next =
      candidates.find((each) => unmet(each).length === 0) ??
      // One on a circle, not one that merely waits behind it. There is one: circles of strict needs were refused.
      candidates.find((each) => unmet(each).every(({ optional }) => optional) && reaches(each, each, unmet))!;
    for (const { to, service } of unmet(next)) {
      warnings.push(
        `"${next.plugin.name}" is set up without ${service}, which it can do without: "${to.plugin.name}", which provides it, needs "${next.plugin.name}" first`,
      );
    }
    waiting.delete(next);
    sorted.push(next);
  }
  return sorted;
}

function reaches(
  from: LoadedPlugin,
  goal: LoadedPlugin,
  unmet: (each: LoadedPlugin) => readonly Edge[],
  seen = new Set<LoadedPlugin>(),
): boolean {
  return unmet(from).some(({ to }) => {
    if (to === goal) return true;
    if (seen.has(to)) return false;
    seen.add(to);
    return reaches(to, goal, unmet, seen);
  });
}
