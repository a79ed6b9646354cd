import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecisionMemory, definePlugin, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  conversation,
  conversations,
  type PluginRun,
  type PluginSettings,
  providersAt,
  Random,
  recordingUpstream,
  requestProblems,
  rewriteProblems,
  runPlugin,
  type Turn,
} from "@tokenman/plugin-sdk/testkit";
import { firstParty } from "../../cli/registry.ts";
import { dedupPlugin } from "../../plugins/dedup/index.ts";
import { lifetimeFor, NO_GAPS, withGap } from "../../plugins/dedup/lifetime.ts";
import { minimumOf } from "../../plugins/dedup/minimums.ts";
import { planAnthropic } from "../../plugins/mock/anthropic-cache.ts";
import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { PromptCache } from "../../plugins/mock/prompt-cache.ts";
import { startTokenman } from "../support/kernel.ts";

/** Loaded without being asked for. */
const NAMED = new Set(firstParty.names());

const KEY = [
  "Content-Type",
  "application/json",
  "x-api-key",
  "sk-ant-api03-test",
  "Authorization",
  "Bearer sk-test",
];
const ANTHROPIC_KEY = ["Content-Type", "application/json", "x-api-key", "sk-ant-api03-test"];
const OPENAI_KEY = ["Content-Type", "application/json", "Authorization", "Bearer sk-test"];
const MINUTE = 60_000;

/** A TokenMan of nothing but the plugin, with a clock that the test moves. */
async function start(settings: PluginSettings = {}) {
  const clock = { ms: Date.UTC(2026, 10, 24) };
  const run = await runPlugin(dedupPlugin({ now: () => clock.ms }), {
    ...settings,
    config: { min_tokens: { "claude-test": 300 }, ...settings.config },
    services: { decisions: new DecisionMemory(), ...settings.services },
  });
  return { run, clock, [Symbol.asyncDispose]: () => run.stop() };
}

function usage(input: number, read: number): ReplyInit {
  const body = {
    type: "message",
    model: "claude-test",
    usage: { input_tokens: input - read, cache_read_input_tokens: read, output_tokens: 1 },
    stop_reason: "end_turn",
  };
  return { status: 200, headers: ["content-type", "application/json"], body: JSON.stringify(body) };
}

async function sent(
  run: PluginRun,
  body: unknown,
  headers: readonly string[] = ANTHROPIC_KEY,
): Promise<Buffer> {
  const { upstream } = await run.send({ path: "/v1/messages", headers, body });
  assert.equal(upstream.length, 1);
  return upstream[0]!.body;
}

const long = (word: string): string => `${word} `.repeat(400);

/** The requests of a conversation with texts as strings, where a block array is not needed. */
function plain(turns: number, seed = "a"): object {
  const messages = Array.from({ length: 2 * turns - 1 }, (_, index) => ({
    role: index % 2 === 0 ? "user" : "assistant",
    content: `${seed}${index} ${long("text")}`,
  }));
  return { model: "claude-test", max_tokens: 9, system: long("system"), messages };
}

/** Pointers of all marks, with their lifetimes. */
function marks(body: Buffer): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (value: unknown, at: string): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, member] of Object.entries(value)) {
      if (key === "cache_control") found[at] = (member as { ttl?: string }).ttl ?? "5m";
      else walk(member, `${at}/${key}`);
    }
  };
  walk(JSON.parse(body.toString("utf8")), "");
  return found;
}

/** Without the client's own marks, and without those on tools and system, which come once and stay. */
function unmarked(body: Buffer): Buffer {
  return Buffer.from(body.toString("utf8").replace(/, ?"cache_control": ?\{[^}]*\}/g, ""));
}

const withoutHints = (turns: readonly Turn[]): readonly Turn[] =>
  turns.map((turn) => ({ ...turn, body: unmarked(turn.body) }));

describe("hints for Anthropic's prompt cache", () => {
  it("are not given to the first request of its kind", async () => {
    await using made = await start();
    const body = JSON.stringify(plain(1));
    assertBytesEqual(await sent(made.run, body), body);
  });

  it("mark system and the newest message from the second turn on, and nothing but marks moves", async () => {
    await using made = await start();
    const bodies: Buffer[] = [];
    for (let turn = 1; turn <= 5; turn++) bodies.push(await sent(made.run, plain(turn)));
    assert.deepEqual(
      bodies.map((body) => Object.keys(marks(body))),
      [
        [],
        ["/system/0", "/messages/2/content/0"],
        ["/system/0", "/messages/4/content/0"],
        ["/system/0", "/messages/6/content/0"],
        ["/system/0", "/messages/8/content/0"],
      ],
    );
    const last = JSON.parse(String(bodies[4])) as { messages: { role: string; content: unknown }[] };
    assert.deepEqual(
      last.messages.map(({ content }) => (typeof content === "string" ? "text" : "blocks")),
      ["text", "text", "blocks", "text", "blocks", "text", "blocks", "text", "blocks"],
      "what was marked once stays a block, what never was stays as it came",
    );
    const bare = bodies.map((body) => String(unmarked(body)));
    for (let turn = 2; turn < 5; turn++)
      assert.ok(bare[turn]!.startsWith(bare[turn - 1]!.slice(0, -2)), `turn ${turn + 1}`);
  });

  it("mark a system prompt and tools that come again in other sessions, and not the messages", async () => {
    await using made = await start();
    const tools = [
      { name: "read", description: long("tool"), input_schema: { type: "object" } },
      { name: "later", defer_loading: true, input_schema: { type: "object" } },
    ];
    const one = { ...plain(1, "one"), tools };
    const two = { ...plain(1, "two"), tools };
    assert.deepEqual(marks(await sent(made.run, one)), {});
    made.clock.ms += MINUTE;
    assert.deepEqual(marks(await sent(made.run, two)), { "/tools/0": "5m", "/system/0": "5m" });
    made.clock.ms += 10 * MINUTE;
    assert.deepEqual(
      marks(await sent(made.run, { ...one, model: "claude-test-2" })),
      {},
      "another model's cache",
    );
    assert.deepEqual(marks(await sent(made.run, { ...plain(1, "three"), tools })), {}, "too late");
  });

  it("leave every request alone in which the client marks anything anywhere", async () => {
    await using made = await start();
    const mark = { type: "ephemeral" };
    const block = (text: string) => [{ type: "text", text, cache_control: mark }];
    const base = plain(2) as { messages: { content: unknown }[] };
    const bodies = [
      { ...base, cache_control: mark },
      { ...base, system: block(long("system")) },
      { ...base, tools: [{ name: "t", input_schema: {}, cache_control: mark }] },
      { ...base, messages: [...base.messages.slice(0, 2), { role: "user", content: block("x") }] },
      {
        ...base,
        messages: [
          ...base.messages.slice(0, 2),
          { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: block("nested") }] },
        ],
      },
    ].map((body) => JSON.stringify(body));
    for (let round = 0; round < 3; round++)
      for (const body of bodies) assertBytesEqual(await sent(made.run, body), body);
    const quoting = { ...plain(2), system: `${long("the field")} "cache_control" is written so` };
    await sent(made.run, { ...quoting, messages: base.messages.slice(0, 1) });
    assert.equal(Object.keys(marks(await sent(made.run, quoting))).length, 2, "a text about marks is none");
  });

  it("are not given to a subscription, to whoever asks for none, and where the guard says no", async () => {
    let touch: "new" | "known" | "none" = "known";
    await using made = await start({ services: { guard: { touch: () => touch } } });
    const bodies = [1, 2, 3].map((turn) => JSON.stringify(plain(turn)));
    for (const body of bodies) assertBytesEqual(await sent(made.run, body), body);
    touch = "new";
    for (const more of [
      ["x-tokenman-nocompress", "1"],
      ["anthropic-beta", "oauth-2025-04-20"],
    ])
      for (const body of bodies)
        assertBytesEqual(await sent(made.run, body, [...ANTHROPIC_KEY, ...more]), body);
  });

  it("bridge what a turn added beyond the provider's look-back", async () => {
    await using made = await start();
    const block = (text: string) => ({ type: "text", text });
    const first = { role: "user", content: [block(long("task"))] };
    const calls = Array.from({ length: 30 }, (_, index) => `call_${index}`);
    const answer = {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "hm", signature: "c2ln" },
        ...calls.map((id) => ({ type: "tool_use", id, name: "read", input: {} })),
      ],
    };
    const results = {
      role: "user",
      content: calls.map((tool_use_id) => ({ type: "tool_result", tool_use_id, content: "ok" })),
    };
    const more = [
      { role: "assistant", content: [block("done")] },
      { role: "user", content: [block("go on"), block(" ")] },
    ];
    const base = { model: "claude-test", max_tokens: 9, system: long("system") };
    const second = [
      first,
      { role: "assistant", content: "yes" },
      { role: "user", content: [block("really")] },
    ];
    const cache = new PromptCache(() => made.clock.ms);
    const read: number[] = [];
    const written: Buffer[] = [];
    for (const messages of [
      [first],
      second,
      [...second, answer, results],
      [...second, answer, results, ...more],
    ]) {
      const body = await sent(made.run, { ...base, messages });
      assert.deepEqual(
        requestProblems("anthropic-messages", body).filter(({ message }) => /cache_control/.test(message)),
        [],
      );
      const plan = planAnthropic(readAnthropic(JSON.parse(String(body)), 4), cache, "", 100);
      plan.commit();
      read.push(plan.readTokens);
      written.push(body);
    }
    assert.deepEqual(Object.keys(marks(written[2]!)), [
      "/system/0",
      "/messages/2/content/0",
      "/messages/4/content/29",
    ]);
    assert.deepEqual(
      Object.keys(marks(written[3]!)),
      ["/system/0", "/messages/6/content/0"],
      "never on empty text",
    );
    assert.deepEqual(
      read.map((tokens) => tokens > 0),
      [false, false, true, true],
    );
  });

  it("ask for an hour where pauses make it the cheaper one, in the right order", async () => {
    await using made = await start({ config: { ttl_seconds: 86_400 } });
    const tools = [{ name: "read", description: long("tool"), input_schema: { type: "object" } }];
    const lifetimes: string[][] = [];
    for (let turn = 1; turn <= 5; turn++) {
      lifetimes.push(Object.values(marks(await sent(made.run, { ...plain(turn), tools }))));
      made.clock.ms += 12 * MINUTE;
    }
    assert.deepEqual(lifetimes.at(-1), ["1h", "1h", "1h"]);
    for (const [index, list] of lifetimes.entries())
      assert.ok(
        list.indexOf("5m") === -1 || list.lastIndexOf("1h") < list.indexOf("5m"),
        `turn ${index + 1}`,
      );
    await using without = await start({ config: { one_hour: false } });
    for (let turn = 1; turn <= 6; turn++) {
      assert.equal(Object.values(marks(await sent(without.run, plain(turn)))).includes("1h"), false);
      without.clock.ms += 12 * MINUTE;
    }
  });

  it("end where nothing comes back in time, and where the history is another each turn", async () => {
    await using made = await start();
    for (let turn = 1; turn <= 6; turn++) {
      const body = await sent(made.run, plain(turn));
      if (turn > 2) assert.deepEqual(marks(body), {}, `turn ${turn}`);
      made.clock.ms += 26 * 60 * MINUTE;
    }
    const window = plain(9) as { messages: object[] };
    const [first, ...rest] = window.messages;
    for (let turn = 0; turn < 4; turn++) {
      const body = await sent(made.run, {
        ...window,
        system: `short ${turn}`,
        messages: [
          first,
          ...rest.slice(2 * turn + 1, 2 * turn + 2),
          ...rest.slice(2 * turn + 1, 2 * turn + 3),
        ],
      });
      if (turn > 1)
        assert.equal(
          Object.keys(marks(body)).some((at) => at.startsWith("/messages")),
          false,
        );
    }
  });

  it("keep what other plugins made of a text that becomes a block", async () => {
    const redact = definePlugin({
      name: "redact",
      version: "1.0.0",
      apiVersion: 1,
      stage: "guard",
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) =>
          hooks.request.tap((exchange) => {
            for (const segment of exchange.segments)
              if (segment.text.includes("secret"))
                exchange.edit(segment, segment.text.replaceAll("secret", "[gone]"));
          }),
        ),
    });
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [redact, ...(NAMED.has("dedup") ? [] : [dedupPlugin()])],
      config: `${providersAt(upstream.url)}\n[compression.dedup]\nmin_tokens = { claude-test = 300 }\n`,
    });
    for (let turn = 1; turn <= 2; turn++) {
      const body = { ...plain(turn, "secret"), system: `secret ${long("system")}` };
      const headers = { "content-type": "application/json", "x-api-key": "sk-ant-api03-test" };
      const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      await reply.arrayBuffer();
    }
    const second = upstream.requests[1]!.body;
    assert.deepEqual(Object.keys(marks(second)), ["/system/0", "/messages/2/content/0"]);
    assert.equal(second.includes("secret"), false);
    assert.equal(tokenman.status().plugins.find(({ name }) => name === "dedup")?.failures, 0);
  });
});

describe("the prefix", () => {
  it("stays the same over turns, a reload and a restart, in every dialect", async () => {
    let hinted = 0;
    for (const turns of conversations(30, { turns: 8, seed: 100, texts: [long("lorem"), long("ipsum")] })) {
      const decisions = new DecisionMemory();
      let made = await start({ services: { decisions } });
      const originals = withoutHints(turns);
      try {
        await assertPrefixStable(originals, async ({ number, path, body }) => {
          if (number === 4) assert.equal((await made.run.reload("test")).ok, true);
          if (number === 6) {
            await made.run.stop();
            made = await start({ services: { decisions } });
          }
          const dialect = turns[0]!.dialect;
          const { upstream } = await made.run.send({
            path,
            headers: dialect.startsWith("anthropic")
              ? [...ANTHROPIC_KEY, "x-claude-code-session-id", "one"]
              : [...OPENAI_KEY, "x-session-id", "one"],
            body,
          });
          const out = upstream[0]!.body;
          assert.deepEqual(rewriteProblems(dialect, body, out), []);
          if (!out.equals(body)) hinted++;
          if (dialect === "anthropic-messages" && number > 2 && originals[1]!.body.length > 6_000)
            assert.ok(Object.keys(marks(out)).length > 0, "marked after the restart, too");
          return unmarked(out);
        });
      } finally {
        await made.run.stop();
      }
    }
    assert.ok(hinted > 100, `${hinted} requests had hints`);
  });
});

describe("OpenAI's cache key", () => {
  const turnsOf = (seed: number) =>
    conversation({ dialect: "openai-chat", seed, turns: 3, texts: [long("lorem")] });
  const agent = (session: string, more: object = {}): object => ({
    model: "gpt-test",
    tools: [{ type: "function", function: { name: "read", parameters: {} } }],
    messages: [{ role: "user", content: `${session} ${long("task")}${long("more")}` }],
    ...more,
  });
  const named = (session: string, key = "sk-test"): string[] => [
    "Content-Type",
    "application/json",
    "Authorization",
    `Bearer ${key}`,
    "X-Session-Id",
    session,
  ];
  async function keyOf(
    run: PluginRun,
    body: unknown,
    headers: readonly string[],
    path = "/v1/chat/completions",
  ): Promise<string | undefined> {
    const { upstream } = await run.send({ path, headers, body });
    return (upstream[0]!.json() as { prompt_cache_key?: string }).prompt_cache_key;
  }

  it("is the same for a session's turns, and another for each session and credential", async () => {
    await using made = await start({ providers: ["openai"] });
    const keys = new Set<string | undefined>();
    for (const { body } of turnsOf(3).filter(({ body }) => body.length > 3_072))
      keys.add(await keyOf(made.run, body, named("mine")));
    assert.equal(keys.size, 1);
    // The history was compacted: it begins otherwise, and is the same session.
    keys.add(await keyOf(made.run, agent("a summary"), named("mine")));
    assert.equal(keys.size, 1);
    keys.add(await keyOf(made.run, agent("one"), named("yours")));
    keys.add(await keyOf(made.run, agent("one"), named("yours", "sk-other")));
    assert.equal(keys.size, 3);
    for (const key of keys) assert.match(key ?? "", /^tm-[\w-]{24}$/);
  });

  it("is added at the end, and nothing else changes", async () => {
    await using made = await start({ providers: ["openai"] });
    const body = JSON.stringify(agent("one"));
    const { upstream } = await made.run.send({ path: "/v1/chat/completions", headers: named("one"), body });
    const out = String(upstream[0]!.body);
    assert.ok(out.startsWith(body.slice(0, -1)) && /,"prompt_cache_key":"tm-[\w-]+"\}$/.test(out));
  });

  it("is the client's where it has one, and nobody's where no session is named, or a prompt is short", async () => {
    await using made = await start({ providers: ["openai"] });
    assert.equal(await keyOf(made.run, agent("one", { prompt_cache_key: "mine" }), named("one")), "mine");
    const short = { model: "gpt-test", tools: [{}], messages: [{ role: "user", content: "hi" }] };
    assert.equal(await keyOf(made.run, short, named("one")), undefined);
    for (const { body } of turnsOf(3)) {
      const { upstream } = await made.run.send({ path: "/v1/chat/completions", headers: OPENAI_KEY, body });
      assert.deepEqual(upstream[0]!.body, body, "as it came, from the first turn to the last");
    }
    const input = [{ type: "message", role: "user", content: long("task") + long("more") }];
    const responses = { model: "gpt-test", tools: [{ type: "function", name: "t", parameters: {} }], input };
    assert.notEqual(await keyOf(made.run, responses, named("one"), "/v1/responses"), undefined);
    assert.equal(await keyOf(made.run, responses, OPENAI_KEY, "/v1/responses"), undefined);
  });

  it("is given only to providers that are known to take it", async () => {
    await using upstream = await recordingUpstream();
    const provider = (name: string) =>
      `[providers.${name}]\nformat = "openai"\napi_base = "${upstream.url}"\nauth = "none"\n`;
    for (const [names, expected] of [
      [
        `${provider("local")}[routing]\ndefault_provider = "local"\n[providers.openai]\nenabled = false\n`,
        false,
      ],
      [
        `${provider("local")}[routing]\ndefault_provider = "local"\n[providers.openai]\nenabled = false\n[compression.dedup]\nprompt_cache_key_providers = ["local"]\n`,
        true,
      ],
    ] as const) {
      await using tokenman = await startTokenman({
        plugins: NAMED.has("dedup") ? [] : [dedupPlugin()],
        config: names,
      });
      const body = JSON.stringify(agent("one"));
      const reply = await fetch(`${tokenman.proxy}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-session-id": "one" },
        body,
      });
      await reply.arrayBuffer();
      assert.equal(upstream.requests.at(-1)!.body.includes("prompt_cache_key"), expected);
    }
  });
});

describe("a provider that refuses hints", () => {
  it("gets none for a while, unless it took some before", async () => {
    await using made = await start();
    const refusal: ReplyInit = { status: 400, headers: ["content-type", "application/json"], body: "{}" };
    const send = async (turn: number, answer?: ReplyInit) =>
      (await made.run.send({ path: "/v1/messages", headers: ANTHROPIC_KEY, body: plain(turn) }, answer))
        .upstream[0]!.body;
    await send(1);
    assert.equal(Object.keys(marks(await send(2, refusal))).length, 2);
    assert.deepEqual(marks(await send(2)), {});
    assert.ok(
      made.run.log.some(({ message }) => message?.includes("refused the first request with cache hints")),
    );
    await using other = await start();
    for (let turn = 1; turn <= 3; turn++)
      await other.run.send({ path: "/v1/messages", headers: ANTHROPIC_KEY, body: plain(turn) });
    await other.run.send({ path: "/v1/messages", headers: ANTHROPIC_KEY, body: plain(4) }, refusal);
    const { upstream } = await other.run.send({
      path: "/v1/messages",
      headers: ANTHROPIC_KEY,
      body: plain(4),
    });
    assert.equal(Object.keys(marks(upstream[0]!.body)).length, 2);
  });
});

describe("what comes of it", () => {
  it("is measured from the usage, with the cause where the cache had nothing", async () => {
    const track = definePlugin({
      name: "track",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) => hooks.request.tap((exchange) => exchange.trackUsage())),
    });
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [track, ...(NAMED.has("dedup") ? [] : [dedupPlugin()])],
      config: `${providersAt(upstream.url)}\n[compression.dedup]\nmin_tokens = { claude-test = 300 }\n`,
    });
    const send = async (body: object, input: number, read: number): Promise<void> => {
      upstream.next((connection) => connection.reply(usage(input, read)));
      const headers = {
        "content-type": "application/json",
        "x-api-key": "sk-ant-api03-test",
        "x-claude-code-session-id": "s",
      };
      const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      await reply.arrayBuffer();
    };
    await send(plain(1), 1_000, 0);
    await send(plain(2), 1_500, 0);
    await send(plain(3), 2_000, 1_500);
    await send({ ...plain(4), system: long("other") }, 2_500, 0);
    await send({ ...plain(5), system: long("other") }, 3_000, 2_500);
    await send({ ...plain(6), system: long("other"), model: "claude-test-b" }, 3_000, 0);
    await send({ ...plain(7), system: long("other"), model: "claude-test-b" }, 3_500, 0);
    const tools = [{ name: "read", input_schema: { type: "object" } }];
    await send({ ...plain(8), system: long("other"), model: "claude-test-b", tools }, 3_500, 0);
    const changed = plain(9) as { messages: { content: string }[] };
    changed.messages[2]!.content = "rewritten";
    await send({ ...changed, system: long("other"), model: "claude-test-b", tools }, 3_500, 0);
    const report = (await (await fetch(`${tokenman.dashboard}/api/prompt-cache?session=s`)).json()) as {
      turns: { result: string; hit_rate: number }[];
      turns_by_result: Record<string, number>;
    };
    assert.deepEqual(report.turns.map(({ result }) => result).reverse(), [
      "first",
      "first",
      "hit",
      "system",
      "hit",
      "model",
      "provider",
      "tools",
      "history",
    ]);
    assert.equal(report.turns.at(-3)?.hit_rate, 0.75);
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /tokenman_prompt_cache_turns_total\{result="hit"\} 2/);
    assert.match(metrics, /tokenman_cache_hints_total\{outcome="hinted"\} 8/);
  });
});

describe("what comes of a client's own hints", () => {
  it("is measured from the usage, with the cause, wherever its marks move, and nothing is changed", async () => {
    const track = definePlugin({
      name: "track",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) => hooks.request.tap((exchange) => exchange.trackUsage())),
    });
    const clock = { ms: Date.UTC(2026, 10, 24) };
    await using upstream = await recordingUpstream();
    await using tokenman = await startTokenman({
      plugins: [track, dedupPlugin({ now: () => clock.ms })],
      config: `${providersAt(upstream.url)}\n`,
    });
    const mark = { cache_control: { type: "ephemeral" } };
    /** As clients do it: the newest message is a block with a mark, those before are texts again. */
    const hinted = (turns: number, more: object = {}, old = "a"): object => {
      const { messages, ...rest } = plain(turns, old) as { messages: { role: string; content: string }[] };
      const [last] = messages.slice(-1);
      const marked = { role: "user", content: [{ type: "text", text: last!.content, ...mark }] };
      const system = [{ type: "text", text: long("system"), ...mark }];
      return { ...rest, system, messages: [...messages.slice(0, -1), marked], ...more };
    };
    const send = async (
      body: object,
      read: number,
      written: number,
      { afterMs = MINUTE, oauth = false, hour = false } = {},
    ): Promise<void> => {
      clock.ms += afterMs;
      const cacheCreation = {
        ephemeral_5m_input_tokens: hour ? 0 : written,
        ephemeral_1h_input_tokens: hour ? written : 0,
      };
      const said = {
        type: "message",
        model: "claude-test",
        usage: {
          input_tokens: 10,
          cache_read_input_tokens: read,
          cache_creation_input_tokens: written,
          cache_creation: cacheCreation,
          output_tokens: 1,
        },
        stop_reason: "end_turn",
      };
      const headers = ["content-type", "application/json"];
      upstream.next((connection) => connection.reply({ status: 200, headers, body: JSON.stringify(said) }));
      const bytes = JSON.stringify(body);
      const reply = await fetch(`${tokenman.proxy}/v1/messages`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "x-claude-code-session-id": "s",
          ...(oauth
            ? { authorization: "Bearer sk-ant-oat01-x", "anthropic-beta": "oauth-2025-04-20" }
            : { "x-api-key": "sk-ant-api03-test" }),
        },
        body: bytes,
      });
      await reply.arrayBuffer();
      assert.equal(String(upstream.requests.at(-1)!.body), bytes);
    };
    await send(hinted(1), 0, 1_000);
    await send(hinted(2), 1_000, 500);
    await send(hinted(3), 1_500, 500, { oauth: true });
    await send(hinted(4), 0, 2_500, { afterMs: 6 * MINUTE });
    await send(hinted(5), 0, 3_000);
    await send(hinted(6, { model: "claude-other" }), 0, 3_500);
    await send(hinted(7, { model: "claude-other", tools: [{ name: "t", input_schema: {} }] }), 0, 4_000);
    const tools = [{ name: "t", input_schema: {} }];
    const system = [{ type: "text", text: long("another"), ...mark }];
    await send(hinted(8, { model: "claude-other", tools, system }), 0, 4_500, { hour: true });
    const changed = hinted(9, { model: "claude-other", tools, system }) as {
      messages: { content: unknown }[];
    };
    changed.messages[2]!.content = "rewritten";
    await send(changed, 0, 5_000, { hour: true });
    // An hour's entries outlive six minutes: then it is the provider that had it no more.
    changed.messages.push(
      { role: "assistant", content: "x" } as never,
      { role: "user", content: [{ type: "text", text: "y", ...mark }] } as never,
    );
    await send(changed, 0, 5_500, { afterMs: 6 * MINUTE, hour: true });
    const report = (await (await fetch(`${tokenman.dashboard}/api/prompt-cache?session=s`)).json()) as {
      turns: { result: string; hints: string; expected_tokens: number }[];
    };
    assert.deepEqual(report.turns.map(({ result }) => result).reverse(), [
      "first",
      "hit",
      "hit",
      "expired",
      "provider",
      "model",
      "tools",
      "system",
      "history",
      "provider",
    ]);
    assert.ok(report.turns.every(({ hints }) => hints === "client"));
    assert.equal(report.turns.at(-3)?.expected_tokens, 1_500);
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /tokenman_cache_hints_total\{outcome="client"\} 10/);
  });
});

describe("odd requests", () => {
  it("pass untouched, and never are a failure", async () => {
    await using made = await start();
    const pad = long("x").repeat(3);
    const many = Array.from({ length: 10_000 }, (_, index) => ({
      role: index % 2 ? "assistant" : "user",
      content: "m",
    }));
    const bodies: unknown[] = [
      Buffer.from("not json at all ".repeat(300)),
      Buffer.from(`{"messages": [${"1,".repeat(2_000)}`),
      [pad],
      `"${pad}"`,
      { messages: pad },
      { messages: [], pad },
      { messages: [null, 1, "x", [], pad] },
      { messages: {}, pad },
      { messages: [{ role: "wizard", content: pad }] },
      { messages: [{ content: pad }], system: 7, tools: "none" },
      { messages: [{ role: "user" }, { role: "user", content: null }, { role: "user", content: [] }], pad },
      { messages: [{ role: "user", content: [{ type: "hologram", data: pad }] }] },
      {
        messages: [{ role: "user", content: [null, "text", { type: 5, text: pad }] }],
        system: [null],
        tools: [null],
      },
      { messages: [{ role: "user", content: "" }], system: "", pad },
      { model: { not: "a name" }, messages: many },
    ];
    for (const path of [
      "/v1/messages",
      "/v1/chat/completions",
      "/v1/responses",
      "/v1/embeddings",
      "/v1/other",
    ])
      for (let round = 0; round < 3; round++)
        for (const body of bodies) {
          const { upstream } = await made.run.send({ path, headers: KEY.slice(0, 4), body });
          const bytes = Buffer.isBuffer(body)
            ? body
            : Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
          const out = upstream[0]!.body;
          if (path !== "/v1/messages" || !out.includes("cache_control")) {
            assert.deepEqual(out, bytes, `${path} ${String(bytes).slice(0, 80)}`);
            continue;
          }
          const problems = rewriteProblems("anthropic-messages", bytes, out);
          assert.deepEqual(problems, [], String(bytes).slice(0, 80));
        }
    const random = new Random(5);
    const base = JSON.stringify(plain(3));
    for (let round = 0; round < 300; round++) {
      const at = random.below(base.length);
      const broken =
        base.slice(0, at) +
        random.pick(["", "{", '"', "]", "null", "\\", "\u0000"]) +
        base.slice(at + random.below(3));
      await made.run.send({ path: "/v1/messages", headers: ANTHROPIC_KEY, body: Buffer.from(broken) });
    }
    for (const plugin of made.run.status().plugins) assert.equal(plugin.failures, 0, plugin.name);
  });
});

describe("its figures", () => {
  it("choose a lifetime by what a turn costs", () => {
    const after = (gaps: readonly (number | undefined)[]) => gaps.reduce(withGap, NO_GAPS);
    assert.equal(lifetimeFor(after([MINUTE]), 100, 5, true), "5m");
    assert.equal(lifetimeFor(after([20 * MINUTE]), 100, 5, true), "1h");
    assert.equal(lifetimeFor(after([120 * MINUTE]), 100, 5, true), undefined);
    assert.equal(lifetimeFor(after([undefined, undefined]), 100, 5, true), undefined);
    assert.equal(lifetimeFor(after(Array(50).fill(MINUTE)), 100, 2, true), "5m");
    assert.equal(
      lifetimeFor(after([...Array(20).fill(MINUTE), ...Array(6).fill(20 * MINUTE)]), 100, 2, true),
      "1h",
    );
    assert.equal(
      lifetimeFor(after([...Array(20).fill(MINUTE), ...Array(6).fill(20 * MINUTE)]), 100, 2, false),
      "5m",
    );
  });

  it("know the shortest prompt that a model caches", () => {
    assert.equal(minimumOf("claude-opus-4-5-20251101", {}), 4_096);
    assert.equal(minimumOf("anthropic/claude-haiku-4-5", {}), 4_096);
    assert.equal(minimumOf("us.anthropic.claude-haiku-4-5-20251001-v1:0", {}), 4_096);
    assert.equal(minimumOf("claude-sonnet-4-20250514", {}), 1_024);
    assert.equal(minimumOf("somebody-else", {}), 1_024);
    assert.equal(minimumOf("claude-opus-4-5", { claude: 7, "claude-opus": 9 }), 9);
  });
});
