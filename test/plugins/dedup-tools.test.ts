import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecisionMemory, definePlugin, parseIndex } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  cachedPrefix,
  type PluginRun,
  type PluginSettings,
  providersAt,
  Random,
  recordingUpstream,
  requestProblems,
  runPlugin,
} from "@tokenman/plugin-sdk/testkit";
import { dedupPlugin } from "../../plugins/dedup/index.ts";
import { startTokenman } from "../support/kernel.ts";

type Dialect = "anthropic-messages" | "openai-chat" | "openai-responses";
const DIALECTS: readonly Dialect[] = ["anthropic-messages", "openai-chat", "openai-responses"];
const PATH = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
} as const;
const JSON_TYPE = ["Content-Type", "application/json"];
const HEADERS = {
  "anthropic-messages": [...JSON_TYPE, "x-api-key", "sk-ant-api03-test"],
  "openai-chat": [...JSON_TYPE, "Authorization", "Bearer sk-test"],
  "openai-responses": [...JSON_TYPE, "Authorization", "Bearer sk-test"],
} as const;
const SESSION = ["X-Claude-Code-Session-Id", "one", "X-Session-Id", "one"];
const long = (word: string): string => `${word} `.repeat(700);

async function start(settings: PluginSettings = {}) {
  const clock = { ms: Date.UTC(2026, 10, 24) };
  const run = await runPlugin(dedupPlugin({ now: () => clock.ms }), {
    ...settings,
    // So that nothing is marked but where a test wants it.
    config: { min_tokens: { "claude-test": 1_000_000 }, ...settings.config },
    services: { decisions: new DecisionMemory(), ...settings.services },
  });
  return { run, [Symbol.asyncDispose]: () => run.stop() };
}

/** A tool as no serializer would write it: what goes through one does not come out so. */
function tool(dialect: Dialect, name: string, text = "What it does"): string {
  const schema = `{"type" :"object","maxProperties":1.0, "x":12345678901234567890,"\\u0061":"caf\\u00e9 \\/ é"}`;
  if (dialect === "anthropic-messages")
    return `{ "name":"${name}","description":"${text}","input_schema":${schema}}`;
  if (dialect === "openai-responses")
    return `{"type":"function", "name":"${name}","description":"${text}","parameters":${schema}}`;
  return `{"type":"function","function": {"description":"${text}","name":"${name}","parameters":${schema}}}`;
}

/** A conversation's turn with these tools, written before the messages or behind them. */
function body(dialect: Dialect, tools: readonly string[], turn: number, { before = true } = {}): string {
  const said = Array.from({ length: 2 * turn - 1 }, (_, index) =>
    JSON.stringify({ role: index % 2 === 0 ? "user" : "assistant", content: `${index} ${long("text")}` }),
  );
  const list = `"tools" : [ ${tools.join(" ,\n")}]`;
  const messages = `"${dialect === "openai-responses" ? "input" : "messages"}":[${said.join(", ")}]`;
  const model =
    dialect === "anthropic-messages" ? `"model":"claude-test","max_tokens":10` : `"model":"gpt-test"`;
  const choice = dialect === "anthropic-messages" ? `{"type":"auto"}` : `"auto"`;
  return `{${model},"tool_choice":${choice},${before ? `${list},${messages}` : `${messages},${list}`}}`;
}

async function sent(
  run: PluginRun,
  dialect: Dialect,
  text: string,
  headers: readonly string[] = [...HEADERS[dialect], ...SESSION],
): Promise<string> {
  const { upstream } = await run.send({ path: PATH[dialect], headers, body: text });
  assert.equal(upstream.length, 1);
  // What OpenAI gets besides, where its session is named.
  return String(upstream[0]!.body).replace(/,"prompt_cache_key":"[^"]+"/, "");
}

for (const dialect of DIALECTS)
  describe(`tools of ${dialect}`, () => {
    const [a, b, c, d] = ["alpha", "beta", "gamma", "delta"].map((name) => tool(dialect, name)) as [
      string,
      string,
      string,
      string,
    ];

    it("go out in the order in which they first came, and no byte of them or of the rest changes", async () => {
      for (const before of [true, false]) {
        await using made = await start();
        const first = body(dialect, [a, b, c], 1, { before });
        assert.equal(await sent(made.run, dialect, first), first);
        for (const [turn, tools] of [
          [2, [c, a, b]],
          [3, [b, c, a]],
          [4, [a, b, c]],
          [5, [c, b, a]],
        ] as const)
          assertBytesEqual(
            Buffer.from(await sent(made.run, dialect, body(dialect, tools, turn, { before }))),
            Buffer.from(body(dialect, [a, b, c], turn, { before })),
          );
      }
    });

    it("that are new stand behind the others, that come again where they stood, that changed in their place", async () => {
      await using made = await start();
      const changed = tool(dialect, "beta", "What it does now");
      const steps: readonly [came: string[], sent: string[]][] = [
        [
          [b, a],
          [b, a],
        ],
        [
          [d, a, c, b],
          [b, a, d, c],
        ],
        [
          [a, c],
          [a, c],
        ],
        [
          [c, a],
          [a, c],
        ],
        [
          [a, b, c, d],
          [b, a, d, c],
        ],
        [
          [c, changed, a],
          [changed, a, c],
        ],
      ];
      for (const [index, [came, goes]] of steps.entries())
        assert.equal(
          await sent(made.run, dialect, body(dialect, came, index + 1)),
          body(dialect, goes, index + 1),
          `step ${index}`,
        );
    });

    it("stay in it over a restart and a reload", async () => {
      const decisions = new DecisionMemory();
      {
        await using made = await start({ services: { decisions } });
        await sent(made.run, dialect, body(dialect, [a, b, c], 1));
        await sent(made.run, dialect, body(dialect, [c, b, a], 2));
        await sent(made.run, dialect, body(dialect, [d, c, b, a], 3));
      }
      await using made = await start({ services: { decisions } });
      const out = await sent(made.run, dialect, body(dialect, [c, d, a, b], 4));
      assert.equal(out, body(dialect, [a, b, c, d], 4));
    });

    it("are another session's own matter", async () => {
      await using made = await start();
      await sent(made.run, dialect, body(dialect, [a, b, c], 1));
      const other = body(dialect, [c, b, a], 1);
      const headers = [...HEADERS[dialect], "X-Claude-Code-Session-Id", "two", "X-Session-Id", "two"];
      assert.equal(await sent(made.run, dialect, other, headers), other);
    });

    it("stay as they come for a subscription, where the client or the config says so, and where two have one name", async () => {
      const oauth =
        dialect === "anthropic-messages" ? "Bearer sk-ant-oat01-test" : "Bearer eyJhbGciOiJub25lIn0.e30.x";
      for (const [headers, config, tools] of [
        [
          [...JSON_TYPE, "Authorization", oauth, "anthropic-beta", "oauth-2025-04-20", ...SESSION],
          {},
          [a, b, c],
        ],
        [[...HEADERS[dialect], ...SESSION, "X-Tokenman-NoCompress", "true"], {}, [a, b, c]],
        [[...HEADERS[dialect], ...SESSION], { stable_tools: false }, [a, b, c]],
        [[...HEADERS[dialect], ...SESSION], {}, [a, b, tool(dialect, "alpha", "another")]],
      ] as const) {
        await using made = await start({ config });
        for (const [index, order] of [
          [0, 1, 2],
          [2, 0, 1],
          [1, 2, 0],
        ].entries()) {
          const text = body(
            dialect,
            order.map((place) => tools[place]!),
            index + 1,
          );
          assert.equal(await sent(made.run, dialect, text, headers), text);
        }
      }
    });

    it("keep a prompt the prefix of the next one, whatever order a client takes", async () => {
      const random = new Random(5);
      await using made = await start();
      const names = Array.from({ length: 12 }, (_, index) => tool(dialect, `tool${index}`));
      let before: Buffer | undefined;
      for (let turn = 1; turn < 20; turn++) {
        const shuffled = names.toSorted(() => random.below(3) - 1);
        const out = await sent(made.run, dialect, body(dialect, shuffled, turn));
        assert.deepEqual(requestProblems(dialect, Buffer.from(out)), []);
        const prefix = cachedPrefix(Buffer.from(out));
        if (before !== undefined)
          assert.equal(prefix.subarray(0, before.length).equals(before), true, `${turn}`);
        before = prefix;
      }
    });
  });

describe("tools of Anthropic's with marks", () => {
  const [a, b, c] = ["alpha", "beta", "gamma"].map((name) => tool("anthropic-messages", name)) as [
    string,
    string,
    string,
  ];

  it("get the mark on the one that is sent last, wherever the client has it", async () => {
    await using made = await start({ config: { min_tokens: { "claude-test": 50 } } });
    await sent(made.run, "anthropic-messages", body("anthropic-messages", [a, b, c], 1));
    for (const [turn, tools] of [
      [2, [c, a, b]],
      [3, [a, b, c]],
      [4, [b, a, c]],
    ] as const) {
      const out = await sent(made.run, "anthropic-messages", body("anthropic-messages", tools, turn));
      const marked = `${c.slice(0, -1)},"cache_control":{"type":"ephemeral"}}`;
      assert.ok(out.includes(`[ ${[a, b, marked].join(" ,\n")}]`), out.slice(0, 2_000));
      assert.deepEqual(requestProblems("anthropic-messages", Buffer.from(out)), []);
    }
  });

  it("stay where they are beside a hint of the client's", async () => {
    await using made = await start();
    const hinted = `${c.slice(0, -1)},"cache_control":{"type":"ephemeral"}}`;
    for (const [turn, tools] of [
      [1, [a, b, hinted]],
      [2, [b, a, hinted]],
    ] as const) {
      const text = body("anthropic-messages", tools, turn);
      assert.equal(await sent(made.run, "anthropic-messages", text), text);
    }
  });
});

describe("tools that another plugin changed", () => {
  it("are left in the client's order, and the change goes out", async () => {
    const changer = definePlugin({
      name: "changer",
      version: "1.0.0",
      apiVersion: 1,
      stage: "guard",
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) =>
          hooks.request.tap((exchange) =>
            exchange.patch([
              { op: "replace", pointer: "/tools/0", value: { type: "function", function: { name: "new" } } },
            ]),
          ),
        ),
    });
    const [a, b] = ["alpha", "beta"].map((name) => tool("openai-chat", name)) as [string, string];
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [changer],
      config: `${providersAt(upstream.url)}\n[compression.dedup]\nenabled = true\n`,
    });
    for (const [turn, tools] of [
      [1, [a, b]],
      [2, [b, a]],
    ] as const) {
      const reply = await fetch(`${tokenman.proxy}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: "Bearer sk-test" },
        body: body("openai-chat", tools, turn),
      });
      await reply.arrayBuffer();
    }
    const out = upstream.requests.at(-1)!.body;
    const tools = parseIndex(out).get("tools")!.items();
    assert.deepEqual(
      [tools[0]!.raw(), tools[1]!.raw()],
      ['{"type":"function","function":{"name":"new"}}', a],
    );
  });
});
