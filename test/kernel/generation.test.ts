import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Contributions,
  type Hooks,
  type SetupContext,
  service,
  TokenmanError,
  z,
} from "@tokenman/plugin-sdk";
import { exchangeOn, provider } from "./support/exchanges.ts";
import { build, loaded, memoryLog, plugin, problemsOf } from "./support/generations.ts";
import { type Context, Ledger, resource, withSetup } from "./support/setups.ts";

describe("setup", () => {
  it("gets config, extra sections, services, host and log", async () => {
    let seen: Record<string, unknown> = {};
    const log = memoryLog();
    await build(
      loaded(
        withSetup("ledger", (ctx) => ctx.provide(Ledger, { name: "the ledger" }), { provides: [Ledger] }),
        withSetup(
          "user",
          (ctx) => {
            ctx.log.info({ fact: 1 }, "hello");
            assert.throws(() => ctx.section("other"), RangeError);
            seen = {
              config: ctx.config,
              frozen: Object.isFrozen(ctx.config),
              extra: ctx.section("extra"),
              services: ctx.services,
              generation: ctx.host.generation,
            };
          },
          {
            section: "user",
            configSchema: z.strictObject({ size: z.int().default(3) }),
            extraSections: { extra: z.strictObject({ a: z.string() }) },
            needs: { ledger: Ledger, maybe: { optional: service("Nothing") } },
          },
        ),
      ),
      {
        toml: '[user]\nsize = 5\n[extra]\na = "x"\n[projects.p.cache]\n'.replace("[projects.p.cache]\n", ""),
        id: 7,
        log,
      },
    );
    assert.deepEqual(seen, {
      config: { size: 5 },
      frozen: true,
      extra: { a: "x" },
      services: { ledger: { name: "the ledger" }, maybe: undefined },
      generation: 7,
    });
    assert.deepEqual(log.lines, [{ level: "info", facts: { plugin: "user", fact: 1 }, message: "hello" }]);
  });

  for (const [what, setup, expected, provides] of [
    [
      "provides what it does not declare",
      (ctx: Context) => ctx.provide(Ledger, { name: "" }),
      "it provides Ledger@1 without declaring it in its provides",
      [],
    ],
    [
      "does not provide what it declares",
      () => {},
      "its setup ended without providing Ledger@1, which it declares",
      [Ledger],
    ],
    [
      "provides undefined",
      (ctx: Context) => ctx.provide(Ledger, undefined as never),
      "it provides undefined as Ledger@1",
      [Ledger],
    ],
    [
      "provides twice",
      (ctx: Context) => {
        ctx.provide(Ledger, { name: "" });
        ctx.provide(Ledger, { name: "" });
      },
      "it provides Ledger@1 twice",
      [Ledger],
    ],
  ] as const) {
    it(`fails where it ${what}`, async () => {
      const found = await problemsOf(build(loaded(withSetup("a", setup, { provides }))));
      assert.deepEqual(found, [`TM_PLUGIN_SETUP plugin "a": ${expected}`]);
    });
  }

  it("keeps an error of the catalogue as it is", async () => {
    const setup = () => {
      throw new TokenmanError("TM_DATA_DIR", "disk is read-only");
    };
    const found = await problemsOf(build(loaded(withSetup("a", setup))));
    assert.deepEqual(found, ['TM_DATA_DIR plugin "a": its setup failed: disk is read-only']);
  });

  it("may not provide, contribute or register a pipeline once it has ended, but may acquire", async () => {
    let context: Context | undefined;
    const generation = await build(
      loaded(
        withSetup("a", (ctx) => {
          context = ctx;
        }),
      ),
    );
    assert.throws(() => context!.provide(Ledger, { name: "" }), { code: "TM_PLUGIN_SETUP" });
    assert.throws(() => context!.contribute("metric", { name: "m", render: () => "" }), {
      code: "TM_PLUGIN_SETUP",
    });
    assert.throws(() => context!.pipeline(() => {}), { code: "TM_PLUGIN_SETUP" });
    const events: string[] = [];
    await resource(context!, events, "later");
    await generation.dispose();
    assert.deepEqual(events, ["+later", "-later"]);
  });

  it("does not happen for a plugin that is off everywhere, and does for one that a project turns on", async () => {
    const set: string[] = [];
    const note = (name: string) => withSetup(name, () => void set.push(name), { section: `cache.${name}` });
    const load = loaded(note("a"), note("b"), note("c"));
    const toml =
      "[cache.a]\nenabled = false\n[cache.b]\nenabled = false\n[projects.p.cache.b]\nenabled = true\n";
    const generation = await build(load, { toml });
    assert.deepEqual(set, ["b", "c"]);
    assert.deepEqual(
      generation.statuses().map(({ name, state, reason }) => [name, state, reason]),
      [
        ["a", "off", "[cache.a] enabled is false"],
        ["b", "on", "only for the projects p: [cache.b] enabled is false"],
        ["c", "on", undefined],
      ],
    );
  });
});

describe("contributions", () => {
  const metric = { name: "m", render: () => "" };
  const route = (port: "proxy" | "dashboard" | "both", path: string): Contributions["route"] => ({
    port,
    method: "GET",
    path,
    handle() {},
  });
  for (const [what, one, two, expected] of [
    ["one metric", ["metric", metric], ["metric", { ...metric }], 'metric "m"'],
    [
      "one panel",
      ["panel", { id: "p", title: "", path: "/" }],
      ["panel", { id: "p", title: "x", path: "/x" }],
      'panel "p"',
    ],
    [
      "one route",
      ["route", route("both", "/a/:id/b")],
      ["route", route("proxy", "/a/:name/b")],
      'route "proxy GET /a/:/b"',
    ],
  ] as const) {
    it(`of two plugins to ${what} are told with both`, async () => {
      const contribute =
        ([kind, value]: readonly [string, unknown]) =>
        (ctx: Context) =>
          ctx.contribute(kind as never, value as never);
      const found = await problemsOf(
        build(loaded(withSetup("a", contribute(one)), withSetup("b", contribute(two)))),
      );
      assert.deepEqual(found, [
        `TM_CONTRIBUTION_DUPLICATE ${expected} is contributed twice: by "a" and by "b"`,
      ]);
    });
  }

  it("are listed in the request's order, whoever was set up first, and each once", async () => {
    const both = route("both", "/x");
    const generation = await build(
      loaded(
        withSetup("first", (ctx) => ctx.contribute("route", both), { needs: { l: Ledger } }),
        withSetup(
          "second",
          (ctx) => {
            ctx.contribute("route", route("proxy", "/y"));
            ctx.provide(Ledger, { name: "" });
          },
          { provides: [Ledger] },
        ),
      ),
    );
    assert.deepEqual(
      generation.registry.all("route").map(({ path }) => path),
      ["/x", "/y"],
    );
  });
});

describe("pipelines", () => {
  it("are built once for each distinct effective config, and unknown projects have the default one", async () => {
    const built: unknown[] = [];
    const load = loaded(
      withSetup("a", (ctx) => ctx.pipeline((config) => void built.push(config)), {
        section: "cache",
        configSchema: z.strictObject({ ttl: z.int().default(1) }),
      }),
      withSetup("b", (ctx) => ctx.pipeline(() => {})),
    );
    const toml =
      '[projects.p.cache]\nttl = 2\n[projects.q.cache]\nttl = 2\n[projects.r]\ndisable = ["a"]\n[projects.s]\n';
    const generation = await build(load, { toml });
    assert.deepEqual(built, [{ ttl: 1 }, { ttl: 2 }]);
    const of = (project: string) => generation.pipelineFor(project);
    assert.equal(of("p"), of("q"));
    assert.equal(of("s"), of("default"));
    assert.equal(of("unheard-of"), of("default"));
    assert.notEqual(of("p"), of("default"));
    assert.deepEqual(
      of("r").plugins.map(({ name }) => name),
      ["b"],
    );
  });

  it("see a service as absent where its provider is off for the project", async () => {
    const load = loaded(
      withSetup("a", (ctx) => ctx.provide(Ledger, { name: "a" }), {
        provides: [Ledger],
        section: "resilience",
      }),
    );
    const generation = await build(load, { toml: '[projects.p]\ndisable = ["a"]\n' });
    assert.equal(generation.service(Ledger)?.name, "a");
    assert.equal(generation.service(Ledger, "other")?.name, "a");
    assert.equal(generation.service(Ledger, "p"), undefined);
    assert.equal(generation.service(service("Unknown")), undefined);
  });

  for (const [what, use, expected] of [
    [
      "taps after its pipeline function",
      (hooks: Hooks) =>
        queueMicrotask(() =>
          assert.throws(() => hooks.request.tap(() => {}), /after its pipeline function had returned/),
        ),
      undefined,
    ],
    [
      "taps with no function",
      (hooks: Hooks) => hooks.response.tap("x" as never),
      'plugin "a" tapped response with string; expected a function',
    ],
    [
      "asks for an unknown lifecycle",
      (hooks: Hooks) => hooks.lifecycle.for("begin" as never),
      'plugin "a" asked for lifecycle "begin"; there are ready, retire, drain, start, attemptEnd, settled, reload',
    ],
    [
      "has an async pipeline function",
      async () => {},
      'plugin "a" has an async pipeline function; acquire in setup, and tap synchronously',
    ],
    [
      "throws in its pipeline function",
      () => assert.fail("oh"),
      'plugin "a": its pipeline function failed for project "default": oh',
    ],
  ] as const) {
    it(`are refused where a plugin ${what}`, async () => {
      const events: string[] = [];
      const load = loaded(
        withSetup("a", async (ctx) => {
          await resource(ctx, events, "r");
          ctx.pipeline((_, hooks) => use(hooks) as void);
        }),
      );
      if (expected === undefined) await (await build(load)).dispose();
      else assert.deepEqual(await problemsOf(build(load)), [`TM_PLUGIN_SETUP ${expected}`]);
      assert.deepEqual(events, ["+r", "-r"]);
    });
  }
});

describe("the generation's own hooks", () => {
  it("run once for each plugin, whatever the number of its pipelines", async () => {
    const events: string[] = [];
    const load = loaded(
      withSetup(
        "a",
        (ctx) =>
          ctx.pipeline((config, hooks) => {
            const { ttl } = config as { ttl: number };
            hooks.lifecycle.for("ready").tap(() => void events.push(`ready ${ttl}`));
            hooks.lifecycle.for("reload").tap((event) => void events.push(`reload ${event.generation}`));
            hooks.lifecycle.for("retire").tap(async () => void events.push("retire"));
          }),
        { section: "cache", configSchema: z.strictObject({ ttl: z.int().default(1) }) },
      ),
    );
    const generation = await build(load, { toml: "[projects.p.cache]\nttl = 2\n" });
    await generation.reloaded({ ok: true, generation: 2, error: undefined });
    await generation.retire();
    await generation.retire();
    assert.deepEqual(events, ["ready 1", "reload 2", "retire"]);
  });

  it("refuse the generation where ready fails or hangs, and give everything back", async () => {
    for (const [ready, said] of [
      [() => assert.fail("no"), "its ready hook failed: no"],
      [() => new Promise<void>(() => {}), "its ready hook did not end in 20 ms"],
    ] as const) {
      const events: string[] = [];
      const load = loaded(
        withSetup(
          "a",
          async (ctx) => {
            await resource(ctx, events, "r");
            ctx.pipeline((_, hooks) => hooks.lifecycle.for("ready").tap(ready));
          },
          { timeouts: { setupMs: 20 } },
        ),
      );
      assert.deepEqual(await problemsOf(build(load)), [`TM_PLUGIN_SETUP plugin "a": ${said}`]);
      assert.deepEqual(events, ["+r", "-r"]);
    }
  });

  it("do not let a failing or hanging retire or reload stop anything; it is counted", async () => {
    const load = loaded(
      withSetup(
        "a",
        (ctx) =>
          ctx.pipeline((_, hooks) => {
            hooks.lifecycle.for("reload").tap(() => assert.fail("no"));
            hooks.lifecycle.for("retire").tap(() => new Promise(() => {}));
          }),
        { timeouts: { hookMs: 20 } },
      ),
    );
    const generation = await build(load);
    await generation.reloaded({ ok: true, generation: 1, error: undefined });
    await generation.retire();
    await generation.disposed;
    assert.equal(generation.statuses()[0]?.failures, 2);
  });

  it("show a quarantined plugin in the statuses", async () => {
    const generation = await build(loaded(withSetup("a", (ctx) => ctx.pipeline(() => {}))));
    generation.pipelineFor("default").plugins[0]!.quarantined = "it failed too often";
    const [status] = generation.statuses();
    assert.deepEqual([status?.state, status?.reason], ["quarantined", "it failed too often"]);
  });
});

describe("a hook observer", () => {
  it("that throws hurts no exchange and is blamed on its own plugin", async () => {
    const observed = plugin("observed", {
      setup: (({ pipeline }: SetupContext<unknown, never>) =>
        pipeline((_, hooks) => hooks.request.tap(() => {}))) as never,
    });
    const observing = plugin("observing", {
      setup: (({ contribute }: SetupContext<unknown, never>) =>
        contribute("hookObserver", {
          tapped() {
            throw new Error("no clock");
          },
        })) as never,
    });
    const generation = await build(loaded(observed, observing));
    const { exchange } = exchangeOn({ pipeline: generation.pipelineFor("default") });
    assert.equal(generation.pipelineFor("default").request(exchange), undefined);
    assert.deepEqual(
      generation.statuses().map(({ name, failures }) => `${name} ${failures}`),
      ["observed 0", "observing 1"],
    );
    await generation.dispose();
  });
});

describe("a provider", () => {
  it("with a base that is no URL is refused when it is contributed, not when it is asked", async () => {
    for (const apiBase of ["localhost:8000", "ftp://host", undefined]) {
      const bad = plugin("bad", {
        setup: (({ contribute }: SetupContext<unknown, never>) =>
          contribute("provider", { ...provider("mine"), apiBase })) as never,
      });
      assert.match(
        (await problemsOf(build(loaded(bad))))[0]!,
        /^TM_PLUGIN_SETUP .*"mine" needs an http or https URL/,
      );
    }
  });
});
