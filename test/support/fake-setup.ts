import type {
  ContributionKind,
  Contributions,
  Exchange,
  Hooks,
  HostInfo,
  Lifecycle,
  Logger,
  Plugin,
  SetupContext,
} from "@tokenman/plugin-sdk";
import type { z } from "zod";

type Request = Parameters<Hooks["request"]["tap"]>[0];
type BeforeUpstream = Parameters<Hooks["beforeUpstream"]["tap"]>[0];
type Response = Parameters<Hooks["response"]["tap"]>[0];

/** What one plugin registered on the hooks of one pipeline. */
export interface FakePipeline {
  readonly request: Request[];
  readonly beforeUpstream: BeforeUpstream[];
  readonly response: Response[];
  readonly lifecycle: { readonly [K in keyof Lifecycle]?: Lifecycle[K][] };
}

export interface FakeSetup {
  /** All that was contributed of one kind. */
  contributed<K extends ContributionKind>(kind: K): readonly Contributions[K][];
  /** Builds a pipeline, as the kernel does for each distinct config; the section's own config by default. */
  pipeline(config?: unknown): FakePipeline;
  readonly kept: ReadonlyMap<string, unknown>;
  readonly logged: { readonly level: string; readonly facts: object; readonly message: string | undefined }[];
}

export interface FakeSetupOptions {
  /** The plugin's section as written in the file, before its schema. */
  readonly config?: unknown;
  /** Its extra sections, likewise. */
  readonly sections?: Readonly<Record<string, unknown>>;
  /** What other plugins contributed. */
  readonly registry?: Partial<{ readonly [K in ContributionKind]: readonly Contributions[K][] }>;
  /** Resources kept by an earlier set-up: a reload hands them on. */
  readonly kept?: ReadonlyMap<string, unknown>;
}

/**
 * Sets one plugin up without a kernel: validates its config, runs `setup`, and holds on to what it registered. Knows
 * only what the bundled plugins of the tests use.
 */
export async function setUp(plugin: Plugin, options: FakeSetupOptions = {}): Promise<FakeSetup> {
  const contributions = new Map<ContributionKind, unknown[]>();
  const builds: ((config: unknown, hooks: Hooks) => void)[] = [];
  const kept = new Map<string, unknown>(options.kept ?? []);
  const logged: { level: string; facts: object; message: string | undefined }[] = [];
  const all = <K extends ContributionKind>(kind: K) =>
    [...(options.registry?.[kind] ?? []), ...(contributions.get(kind) ?? [])] as readonly Contributions[K][];
  const config = validated(plugin.configSchema, options.config ?? {});
  const log = Object.fromEntries(
    ["trace", "debug", "info", "warn", "error"].map((level) => [
      level,
      (facts: object, message?: string) => void logged.push({ level, facts, message }),
    ]),
  ) as unknown as Logger;
  const host = { registry: { all }, dataDir: "", generation: 1, bootId: "boot" } as unknown as HostInfo;
  const context: SetupContext<unknown, Record<never, never>> = {
    config,
    section(name) {
      const schema = plugin.extraSections?.[name];
      if (schema === undefined) throw new RangeError(`no section ${name}`);
      return validated(schema, options.sections?.[name] ?? {});
    },
    services: {},
    log,
    host,
    effect: async (_label, acquire) => acquire(),
    every() {},
    async keep(key, make) {
      if (!kept.has(key)) kept.set(key, await make());
      return kept.get(key) as never;
    },
    provide() {},
    contribute(kind, value) {
      contributions.set(kind, [...(contributions.get(kind) ?? []), value]);
    },
    pipeline(build) {
      builds.push(build);
    },
  };
  await plugin.setup(context as never);
  return {
    contributed: (kind) => (contributions.get(kind) ?? []) as never,
    kept,
    logged,
    pipeline(overlaid = config) {
      const made = { request: [], beforeUpstream: [], response: [], lifecycle: {} } as FakePipeline;
      const into = <F>(list: F[]) => ({ tap: (fn: F) => void list.push(fn) });
      const lifecycle = made.lifecycle as Record<string, unknown[]>;
      const hooks = {
        request: into(made.request),
        beforeUpstream: into(made.beforeUpstream),
        response: into(made.response),
        lifecycle: {
          for(name: string) {
            lifecycle[name] ??= [];
            return into(lifecycle[name]);
          },
        },
      } as unknown as Hooks;
      for (const build of builds) build(overlaid, hooks);
      return made;
    },
  };
}

/** A section as the plugin gets it: through its zod schema, with defaults filled in. Throws z.ZodError. */
export function validated(schema: Plugin["configSchema"], value: unknown): unknown {
  return schema === undefined ? value : (schema as z.ZodType).parse(value);
}

/** An exchange with just the given members: reading any other one is undefined. */
export function fakeExchange(members: Partial<Exchange>): Exchange {
  return members as Exchange;
}
