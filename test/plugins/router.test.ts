import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Attempt,
  type Candidate,
  type Exchange,
  type JsonPatch,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import router from "../../plugins/router/index.ts";
import { fakeExchange, validated } from "../support/fake-setup.ts";
import { CHAT, GROQ, MESSAGES, routing, shown } from "../support/router-world.ts";

describe("router: which provider", () => {
  it("serves both vendors without any configuration", async () => {
    const { ask } = await routing({});
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-5" })), ["!openai"]);
    assert.deepEqual(shown(await ask({ ...MESSAGES, model: "claude-opus-4-5" })), ["!anthropic"]);
    const [candidate] = (await ask({ ...CHAT, model: "gpt-5" })).candidates;
    assert.equal(candidate?.provider.apiBase, "https://api.openai.com");
    assert.deepEqual(candidate?.provider.timeouts, {
      connectMs: 10_000,
      headMs: 600_000,
      idleMs: undefined,
      totalMs: 0,
    });
  });

  it("gives mock models to the embedded provider, in every dialect and by path", async () => {
    const { ask } = await routing({});
    assert.equal(shown(await ask({ ...CHAT, model: "mock-tools" }))[0], "-mock");
    assert.equal(shown(await ask({ dialect: "anthropic-messages", model: "mock" }))[0], "-mock");
    assert.equal(shown(await ask({ dialect: "openai-models", path: "/v1/models/mock%2Decho" }))[0], "-mock");
  });

  it("prefers model_map, exact before glob, the longest glob first", async () => {
    const { ask } = await routing(
      { groq: GROQ, local: { api_base: "http://127.0.0.1:11434", auth: "none" } },
      {
        model_map: {
          "gpt-*": "groq",
          "gpt-5*": "local/llama3",
          "gpt-5-nano": "groq/org/tiny",
          "claude-*": "anthropic",
        },
      },
    );
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-4o" })), ["+groq"]);
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-5" })), ["-local=llama3"]);
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-5-nano" })), ["+groq=org/tiny"]);
    assert.deepEqual(shown(await ask({ ...MESSAGES, model: "claude-x" })), ["!anthropic"]);
  });

  it("then a provider that lists the model, by priority", async () => {
    const { ask } = await routing({
      late: { ...GROQ, models: ["llama-*"], priority: 5 },
      early: { ...GROQ, models: ["llama-3*"], priority: 1 },
    });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "llama-3.3" })), ["+early", "+late", "!openai"]);
    assert.deepEqual(shown(await ask({ ...CHAT, model: "llama-2" })), ["+late", "!openai"]);
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-5" })), ["!openai"]);
  });

  it("then the format's providers: default first among equals, then the vendor's own", async () => {
    const providers = { groq: GROQ, other: { ...GROQ, priority: -1 } };
    const { ask } = await routing(providers);
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["+other", "!openai", "+groq"]);
    const { ask: preferring } = await routing(providers, { default_provider: "groq" });
    assert.deepEqual(shown(await preferring({ ...CHAT, model: "x" })), ["+other", "+groq", "!openai"]);
  });

  it("gives everything to the embedded provider where that is the default", async () => {
    const { ask } = await routing({}, { default_provider: "mock", fallback_enabled: false });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-5" })), ["-mock"]);
    assert.deepEqual(shown(await ask({ ...MESSAGES, model: "claude-x" })), ["-mock"]);
    assert.deepEqual(shown(await ask({ format: undefined, key: "k" })), ["-mock"]);
  });

  it("offers one candidate only where fallback is off", async () => {
    const { ask } = await routing({ groq: GROQ }, { fallback_enabled: false });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["!openai"]);
  });

  it("takes the vendor's own for a model that its list does not have", async () => {
    const { ask } = await routing({ openai: { models: ["gpt-4o"] } });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "gpt-9" })), ["!openai"]);
  });

  it("refuses, and says what was tried, where nothing fits", async () => {
    const { ask } = await routing({ openai: { enabled: false }, local: { ...GROQ, models: ["llama*"] } });
    const { refused, candidates } = await ask({ ...CHAT, model: "gpt-5" });
    assert.equal(refused?.code, "TM_NO_PROVIDER");
    assert.match(refused!.message, /"gpt-5" \(openai-chat\)/);
    assert.match(refused!.message, /anthropic speaks the anthropic format, not openai/);
    assert.match(refused!.message, /local does not list the model/);
    assert.deepEqual(candidates, []);
  });

  it("does not send a mapped model elsewhere where its provider cannot take it", async () => {
    const { ask } = await routing(
      { off: { ...GROQ, enabled: false } },
      { model_map: { a: "off", b: "anthropic" } },
    );
    const disabled = await ask({ ...CHAT, model: "a" });
    assert.equal(disabled.refused?.code, "TM_NO_PROVIDER");
    assert.match(disabled.ruledOut[0]!.reason, /disabled/);
    const foreign = await ask({ ...CHAT, model: "b" });
    assert.equal(foreign.refused?.code, "TM_NO_PROVIDER");
    assert.match(foreign.refused!.message, /speaks the anthropic format, not openai/);
  });

  it("notes a provider that lists the model in another format", async () => {
    const { ask } = await routing({ bridge: { ...GROQ, models: ["claude-*"] } });
    const asked = await ask({ ...MESSAGES, model: "claude-x" });
    assert.deepEqual(shown(asked), ["!anthropic"]);
    assert.deepEqual(asked.ruledOut, [
      { provider: "bridge", reason: "speaks the openai format, not anthropic" },
    ]);
  });

  it("gives an opaque request to one provider of the vendor that claims it, else to the default", async () => {
    const { ask } = await routing({ groq: GROQ });
    assert.deepEqual(shown(await ask({ format: "openai", key: "sk-client" })), ["!openai"]);
    assert.deepEqual(shown(await ask({ format: "anthropic", key: "sk-ant-client" })), ["!anthropic"]);
    const { ask: local } = await routing(
      { ollama: { api_base: "http://127.0.0.1:11434", auth: "none" } },
      { default_provider: "ollama" },
    );
    assert.deepEqual(shown(await local({ format: undefined, key: "who-knows" })), ["-ollama"]);
  });

  it("tells a provider's format from its name, its host, its path", async () => {
    const { setup } = await routing({
      "anthropic-eu": { api_base: "https://eu.example" },
      a: { api_base: "https://api.anthropic.com/v1/" },
      b: { api_base: "https://api.deepseek.example/anthropic" },
      c: { api_base: "http://127.0.0.1:8000/v1" },
      d: { api_base: "https://x.example", format: "anthropic" },
    });
    assert.deepEqual(
      setup.contributed("provider").map(({ name, format, apiBase }) => [name, format, apiBase]),
      [
        ["anthropic-eu", "anthropic", "https://eu.example"],
        ["a", "anthropic", "https://api.anthropic.com"],
        ["b", "anthropic", "https://api.deepseek.example/anthropic"],
        ["c", "openai", "http://127.0.0.1:8000"],
        ["d", "anthropic", "https://x.example"],
        ["anthropic", "anthropic", "https://api.anthropic.com"],
        ["openai", "openai", "https://api.openai.com"],
      ],
    );
  });

  it("renames the model of an attempt, and only of that one", async () => {
    const { ask, pipeline } = await routing({ groq: GROQ }, { model_map: { fast: "groq/llama-3.1-8b" } });
    const { candidates } = await ask({ ...CHAT, model: "fast" });
    const patched = (candidate: Candidate, modelPointer: string | undefined) => {
      const patches: JsonPatch[] = [];
      const exchange = fakeExchange({ description: { modelPointer } as Exchange["description"] });
      const attempt = {
        candidate,
        headers: [],
        patch: (list: readonly JsonPatch[]) => void patches.push(...list),
      };
      for (const tap of pipeline.beforeUpstream) tap(exchange, attempt as unknown as Attempt);
      return patches;
    };
    assert.deepEqual(patched(candidates[0]!, "/model"), [
      { op: "replace", pointer: "/model", value: "llama-3.1-8b" },
    ]);
    assert.deepEqual(patched(candidates[0]!, undefined), []);
    assert.deepEqual(patched((await ask({ ...CHAT, model: "gpt-5" })).candidates[0]!, "/model"), []);
  });
});

describe("router: wrong configuration", () => {
  const messages = (error: unknown) =>
    error instanceof TokenmanErrors ? error.errors.map((one) => one.message) : [(error as Error).message];

  it("names each route to a provider that does not exist, with the nearest one", async () => {
    const config = { default_provider: "antropic", model_map: { "gpt-*": "opnai/gpt-5", fine: "openai" } };
    await assert.rejects(routing({}, config), (error) => {
      assert.deepEqual(messages(error), [
        'routing.model_map."gpt-*": expected the name of a provider, found "opnai" (did you mean "openai"?)',
        'routing.default_provider: expected the name of a provider, found "antropic" (did you mean "anthropic"?)',
      ]);
      return true;
    });
  });

  it("names an unknown format", async () => {
    await assert.rejects(routing({ x: { format: "opeanai", api_base: "https://x.example" } }), (error) => {
      assert.match(
        messages(error)[0]!,
        /^providers\.x\.format: expected the name of a format, found "opeanai" \(did you mean "openai"\?\)/,
      );
      return true;
    });
  });

  it("accepts a provider by its second name", async () => {
    const { ask } = await routing({ groq: { ...GROQ, name: "Fast" } }, { model_map: { x: "Fast" } });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["+groq"]);
  });

  const issues = (providers: object) => {
    try {
      validated(router.extraSections?.["providers"], providers);
      return [];
    } catch (error) {
      return (error as { issues: { path: unknown[]; message: string }[] }).issues.map(({ path, message }) => [
        path.join("."),
        message,
      ]);
    }
  };

  it("finds wrong values where they stand", () => {
    assert.deepEqual(issues({ x: { models: ["a"] } }), [
      ["x.api_base", "expected the URL of the server, found none"],
    ]);
    assert.equal(issues({ x: { api_base: "ftp://x" } })[0]?.[0], "x.api_base");
    assert.equal(issues({ x: { api_base: "https://user:secret@x.example" } })[0]?.[0], "x.api_base");
    assert.equal(issues({ x: { api_base: "https://x.example?key=1" } })[0]?.[0], "x.api_base");
    const pasted = issues({ openai: { key_ref: "sk-proj-secret" } });
    assert.equal(pasted[0]?.[0], "openai.key_ref");
    assert.doesNotMatch(pasted[0]![1]!, /sk-proj-secret/);
    assert.equal(issues({ openai: { timeout: -1 } })[0]?.[0], "openai.timeout");
    assert.equal(issues({ "a/b": { api_base: "https://x.example" } }).length, 1);
    assert.deepEqual(issues({ openai: { api_base: "", key_ref: "", format: "", name: "" } }), []);
  });
});
