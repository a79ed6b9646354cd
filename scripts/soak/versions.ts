/** A plugin's source that stamps what it sees with its version, at the request, upstream and at the response. */
function stamp(version: number, setup = ""): string {
  return `import { definePlugin, service, slot, z } from "@tokenman/plugin-sdk";

// Enough text to show in the heap where a version is not collected.
const FILLER: string = ${JSON.stringify(`${version} `.repeat(5_000))};
const VERSION: number = ${version};
const begun = slot<string>("begun");
const Stamps = service<{ readonly version: number }>("Stamps");

export default definePlugin({
  name: "stamp",
  version: \`1.0.\${VERSION}\`,
  apiVersion: 1,
  stage: "ingress",
  provides: [Stamps],
  timeouts: { setupMs: 100 },
  configSchema: z.strictObject({ label: z.string().default("none") }),
  async setup(ctx) {
    ${setup}
    await ctx.effect("filler", () => FILLER, () => {});
    const state = await ctx.keep("count", () => ({ exchanges: 0 }));
    ctx.every("tick", 1_000, () => {});
    ctx.provide(Stamps, { version: VERSION });
    ctx.contribute("metric", { name: "stamps", render: () => String(state.exchanges) });
    ctx.pipeline(({ label }, hooks) => {
      const mark = \`\${VERSION}/\${label}\`;
      hooks.request.tap(async (exchange) => {
        state.exchanges++;
        await null;
        exchange.set(begun, mark);
      });
      hooks.beforeUpstream.tap((_, attempt) => {
        attempt.headers = [...attempt.headers, "X-Stamp", mark];
      });
      hooks.response.tap((reply, exchange) => {
        reply.headers = [...reply.headers, "X-Stamp-Request", exchange.get(begun)!, "X-Stamp-Response", mark];
        reply.mapEvents({ event: (event) => event });
      });
      hooks.lifecycle.for("settled").tap(() => {});
    });
  },
});
`;
}

export interface Version {
  readonly what: string;
  /** The plugin's source, and the label in the config; undefined leaves it as it was. */
  readonly source?: string;
  readonly label?: string;
  /** Added to the config. */
  readonly config?: string;
  /** What a refused reload must say. */
  readonly refused?: RegExp;
}

/** The sound version of this number: every third one changes the config alone. */
export function sound(version: number): Version {
  if (version % 3 === 2) return { what: "another config", label: `label-${version}` };
  return { what: "another source", source: stamp(version) };
}

/** One that is refused, of another kind each time. */
export function broken(version: number): Version {
  const kinds: readonly Version[] = [
    {
      what: "a source that does not compile",
      source: `${stamp(version)}\nexport const = ;\n`,
      refused: /stamp\.ts:\d+:\d+: TM_PLUGIN_COMPILE.*\n> /s,
    },
    {
      what: "a setup that hangs",
      source: stamp(version, "await new Promise(() => {});"),
      refused: /TM_PLUGIN_SETUP .*did not end in 100 ms/,
    },
    {
      what: "a setup that throws half-way",
      source: stamp(
        version,
        `await ctx.effect("early", () => FILLER, () => {}); throw new Error("no ${version}");`,
      ),
      refused: /stamp\.ts:\d+:\d+: TM_PLUGIN_SETUP .*no \d+/,
    },
    {
      what: "a config with an unknown key",
      config: `[plugins.configs.stamp]\nlabl = "${version}"\n`,
      refused: /TM_CONFIG_UNKNOWN_KEY .*label/,
    },
    {
      what: "a plugin that throws when it is loaded",
      source: `throw new Error("at load ${version}");\n`,
      refused: /stamp\.ts:1:\d+: TM_PLUGIN_LOAD .*at load/,
    },
  ];
  return kinds[version % kinds.length]!;
}
