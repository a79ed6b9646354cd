import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { conversation, type PluginRun, recordingUpstream } from "@tokenman/plugin-sdk/testkit";
import { dedupPlugin } from "../../plugins/dedup/index.ts";
import { OPENAI_KEY } from "../support/client-heads.ts";
import { long, NAMED, start } from "../support/dedup-world.ts";
import { startTokenman } from "../support/kernel.ts";

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
