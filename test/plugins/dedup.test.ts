import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DecisionMemory, definePlugin, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  conversations,
  type PluginRun,
  providersAt,
  Random,
  recordingUpstream,
  requestProblems,
  rewriteProblems,
  type Turn,
} from "@tokenman/plugin-sdk/testkit";
import { dedupPlugin } from "../../plugins/dedup/index.ts";
import { planAnthropic } from "../../plugins/mock/anthropic-cache.ts";
import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { PromptCache } from "../../plugins/mock/prompt-cache.ts";
import { ANTHROPIC_KEY, OPENAI_KEY } from "../support/client-heads.ts";
import { long, MINUTE, NAMED, plain, start } from "../support/dedup-world.ts";
import { startTokenman } from "../support/kernel.ts";

const KEY = [
  "Content-Type",
  "application/json",
  "x-api-key",
  "sk-ant-api03-test",
  "Authorization",
  "Bearer sk-test",
];
async function sent(
  run: PluginRun,
  body: unknown,
  headers: readonly string[] = ANTHROPIC_KEY,
): Promise<Buffer> {
  const { upstream } = await run.send({ path: "/v1/messages", headers, body });
  assert.equal(upstream.length, 1);
  return upstream[0]!.body;
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
