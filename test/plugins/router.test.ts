import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import {
  type Attempt,
  type Candidate,
  type ClientCredential,
  type Dialect,
  type ErrorCode,
  type Exchange,
  type Format,
  type JsonPatch,
  type Provider,
  type ReplyInit,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import openai from "../../plugins/openai/index.ts";
import router from "../../plugins/router/index.ts";
import { fakeExchange, setUp, validated } from "../support/fake-setup.ts";

const vendors = await Promise.all([setUp(anthropic), setUp(openai)]);
const formats = vendors.flatMap((setup) => setup.contributed("format")) as Format[];
const dialects = vendors.flatMap((setup) => setup.contributed("dialect")) as Dialect[];

/** Stands for the embedded provider: answers in-process, in both formats. */
const MOCK = {
  name: "mock",
  format: "openai",
  formats: ["openai", "anthropic"],
  apiBase: undefined,
  models: ["mock", "mock-*"],
  priority: 0,
  timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
  auth: "none",
  answer: () => ({ status: 200 }),
} satisfies Provider;

const folder = mkdtempSync(join(tmpdir(), "tokenman-router-"));
after(() => rmSync(folder, { recursive: true }));

interface Asked {
  readonly candidates: readonly Candidate[];
  readonly ruledOut: readonly { readonly provider: string; readonly reason: string }[];
  readonly refused: { readonly code: ErrorCode; readonly message: string } | undefined;
}

interface Ask {
  readonly dialect?: string;
  /** Of an opaque request. */
  readonly format?: string | undefined;
  readonly model?: string | undefined;
  readonly key?: string;
  readonly subscription?: boolean;
  readonly path?: string;
  readonly target?: string;
  readonly session?: string;
}

async function routing(providers: object, config: object = {}) {
  const setup = await setUp(router, {
    config,
    sections: { providers },
    registry: { format: formats, provider: [MOCK] },
  });
  const pipeline = setup.pipeline();
  for (const ready of pipeline.lifecycle.ready ?? []) await ready();
  const ask = async (request: Ask): Promise<Asked> => {
    const { key } = request;
    const dialect = dialects.find((one) => one.name === request.dialect);
    const format = formats.find((one) => one.name === (dialect?.format ?? request.format));
    const credential: ClientCredential | undefined =
      key === undefined ? undefined : { kind: "key", header: "authorization", secret: key };
    let refused: Asked["refused"];
    const exchange = fakeExchange({
      dialect,
      format,
      credential,
      subscription: request.subscription ?? false,
      session: request.session ?? "s",
      request: {
        path: request.path ?? "/v1/x",
        target: request.target ?? "/v1/x",
        headers: [],
      } as unknown as Exchange["request"],
      description: {
        model: request.model,
        modelPointer: request.model === undefined ? undefined : "/model",
        stream: false,
        maxOutputTokens: undefined,
        tools: "none",
      },
      candidates: [],
      ruledOut: [],
      refuse(error): ReplyInit {
        refused = error;
        return { status: error.status ?? 500 };
      },
    });
    for (const tap of pipeline.request)
      assert.equal((await tap(exchange)) !== undefined, refused !== undefined);
    return { candidates: exchange.candidates, ruledOut: exchange.ruledOut, refused };
  };
  return { ask, pipeline, setup };
}

/** "name", "name=model", and "!" for the client's credential, "+" for a key of its own, "-" for none. */
const shown = ({ candidates }: Asked) =>
  candidates.map(({ provider, model, credential }) => {
    const mark = { client: "!", key: "+", none: "-" }[credential.kind];
    return `${mark}${provider.name}${model === undefined ? "" : `=${model}`}`;
  });

const CHAT = { dialect: "openai-chat", key: "sk-client" } as const;
const MESSAGES = { dialect: "anthropic-messages", key: "sk-ant-client" } as const;

process.env["ROUTER_TEST_KEY"] = "sk-own";
const KEYED = { key_ref: "env:ROUTER_TEST_KEY" };
const GROQ = { format: "openai", api_base: "https://api.groq.com/openai/v1", ...KEYED };

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

describe("router: whose credential", () => {
  it("never gives a client's key to a foreign host that the user did not vouch for", async () => {
    const { ask } = await routing(
      { foreign: { format: "openai", api_base: "https://api.example" } },
      { default_provider: "foreign" },
    );
    const asked = await ask({ ...CHAT, model: "x" });
    assert.deepEqual(shown(asked), ["!openai"]);
    assert.match(asked.ruledOut[0]!.reason, /no key of its own .* belongs to openai/);
  });

  it("gives it to a vouched-for server only as the very first choice, and then to nobody else", async () => {
    const gateway = { format: "openai", api_base: "https://gw.example", auth: "client" };
    const { ask } = await routing({ gateway }, { default_provider: "gateway" });
    const first = await ask({ ...CHAT, model: "x" });
    assert.deepEqual(shown(first), ["!gateway"]);
    assert.match(first.ruledOut[0]!.reason, /openai|no key of its own/);
    const { ask: second } = await routing({ gateway });
    const behind = await second({ ...CHAT, model: "x" });
    assert.deepEqual(shown(behind), ["!openai"]);
    assert.equal(behind.ruledOut[0]?.provider, "gateway");
  });

  it("does not take plain HTTP, another port or another spelling of the vendor's host for the vendor", async () => {
    for (const api_base of [
      "http://api.openai.com",
      "https://api.openai.com:8443",
      "https://api.openai.com.evil.example",
      "https://evil.example/api.openai.com",
      "https://api.openai.com.",
    ]) {
      const { ask } = await routing({ openai: { api_base, format: "openai" } });
      const asked = await ask({ ...CHAT, model: "x" });
      assert.deepEqual(shown(asked), [], api_base);
      assert.equal(asked.refused?.code, "TM_NO_CREDENTIAL", api_base);
    }
  });

  it("does not give an Anthropic client's key to a server of the other vendor's format", async () => {
    const { ask } = await routing({
      bridge: { format: "openai", api_base: "https://gw.example", auth: "client" },
    });
    assert.deepEqual(shown(await ask({ ...MESSAGES, model: "claude-x" })), ["!anthropic"]);
  });

  it("does not give a vendor a key that is plainly another's, on whatever path it came", async () => {
    const chat = { dialect: "openai-chat", key: "sk-ant-api03-x", model: "claude-x" } as const;
    const messages = { dialect: "anthropic-messages", key: "sk-proj-x", model: "claude-x" } as const;
    const { ask } = await routing({ groq: { ...GROQ, priority: 1 } });
    const asked = await ask(chat);
    assert.deepEqual(shown(asked), ["+groq"]);
    assert.match(asked.ruledOut[0]!.reason, /by its shape of the anthropic format/);
    const refused = await ask(messages);
    assert.equal(refused.refused?.code, "TM_NO_CREDENTIAL");
    assert.match(refused.refused.message, /by its shape of the openai format/);
    assert.deepEqual(shown(await ask({ ...messages, key: "sk-ant-x" })), ["!anthropic"]);
    assert.deepEqual(shown(await ask({ ...chat, key: "any-other" })), ["!openai", "+groq"]);
    const compatible = { format: "openai", api_base: "https://api.anthropic.com", auth: "client" };
    const { ask: vouched } = await routing({ compatible }, { default_provider: "compatible" });
    assert.deepEqual(shown(await vouched(chat)), ["!compatible"]);
  });

  it("gives it to one of two accounts at the vendor, the other needs its own", async () => {
    const second = { format: "openai", api_base: "https://api.openai.com" };
    const { ask } = await routing({ second: { ...second, ...KEYED } });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["!openai", "+second"]);
    const { ask: keyless } = await routing({ second });
    const asked = await keyless({ ...CHAT, model: "x" });
    assert.deepEqual(shown(asked), ["!openai"]);
    assert.equal(asked.ruledOut[0]?.provider, "second");
  });

  it("never gives it to anybody for an opaque request that no vendor claims", async () => {
    const { ask } = await routing({});
    const asked = await ask({ format: undefined, key: "AIza-google" });
    assert.deepEqual(shown(asked), []);
    assert.equal(asked.refused?.code, "TM_NO_CREDENTIAL");
    const { ask: vouched } = await routing(
      { gateway: { format: "openai", api_base: "https://gw.example", auth: "client" } },
      { default_provider: "gateway" },
    );
    assert.deepEqual(shown(await vouched({ format: undefined, key: "AIza-google" })), []);
  });

  it("asks nobody but the owner where the query carries a credential", async () => {
    const { ask } = await routing({ groq: { ...GROQ, priority: -1 } });
    const target = "/v1/chat/completions?key=AIza-google";
    const asked = await ask({ ...CHAT, model: "x", target });
    assert.deepEqual(shown(asked), ["!openai"]);
    assert.match(asked.ruledOut[0]!.reason, /query/);
    assert.deepEqual(shown(await ask({ format: undefined, target: "/v1beta/models/m?key=AIza-google" })), []);
    assert.equal(
      shown(await ask({ ...CHAT, model: "x", target: "/v1/chat/completions?monkey=1" }))[0],
      "+groq",
    );
  });

  it("takes every header that may carry a credential off an attempt that is not the owner's", async () => {
    const { ask, pipeline } = await routing({ groq: { ...GROQ, priority: -1 } });
    const { candidates } = await ask({ ...CHAT, model: "x" });
    const sent = (candidate: Candidate) => {
      const headers = [
        "Accept",
        "*/*",
        "X-Goog-Api-Key",
        "AIza",
        "Authorization",
        "Bearer sk",
        "COOKIE",
        "a=b",
        "X-Other",
        "1",
      ];
      const attempt = { candidate, headers, patch() {} } as unknown as Attempt;
      for (const tap of pipeline.beforeUpstream) tap(fakeExchange({}), attempt);
      return attempt.headers;
    };
    assert.deepEqual(shown({ candidates, ruledOut: [], refused: undefined }), ["+groq", "!openai"]);
    assert.deepEqual(sent(candidates[0]!), ["Accept", "*/*", "X-Other", "1"]);
    assert.equal(sent(candidates[1]!).length, 10);
  });

  it("does not let a conversation decide whose credential it is, where weights let it decide who goes first", async () => {
    const gateway = { format: "openai", api_base: "https://gw.example", auth: "client", weight: 1 };
    const { ask } = await routing({
      one: gateway,
      two: { ...gateway, ...KEYED },
      three: { ...GROQ, weight: 1 },
    });
    const orders = new Set<string>();
    for (let session = 0; session < 50; session++) {
      const order = shown(await ask({ ...CHAT, model: "x", session: `${session}` }));
      orders.add(order.join());
      assert.deepEqual(order.toSorted(), ["!one", "+three", "+two"]);
    }
    assert.equal(orders.size, 6);
    for (const order of orders) assert.ok(!order.includes("!two"));
  });

  it("uses the stored key only where the client sent none", async () => {
    const { ask } = await routing({ openai: KEYED });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["!openai"]);
    const none = await ask({ dialect: "openai-chat", model: "x" });
    assert.deepEqual(shown(none), ["+openai"]);
    const { credential } = none.candidates[0]!;
    assert.equal(credential.kind === "key" && credential.secret.reveal(), "sk-own");
  });

  it("always uses the stored key where the provider says so", async () => {
    const { ask } = await routing({ openai: { ...KEYED, auth: "key" } });
    assert.deepEqual(shown(await ask({ ...CHAT, model: "x" })), ["+openai"]);
    const { ask: keyless } = await routing({ openai: { auth: "key" } });
    const asked = await keyless({ ...CHAT, model: "x" });
    assert.equal(asked.refused?.code, "TM_NO_CREDENTIAL");
    assert.match(asked.refused!.message, /auth = "key", but no key_ref/);
  });

  it("lets the vendor itself refuse a request without any credential", async () => {
    const { ask } = await routing({});
    assert.deepEqual(shown(await ask({ dialect: "openai-chat", model: "x" })), ["-openai"]);
  });

  it("does not rename the model of a subscription's traffic", async () => {
    const { ask } = await routing({}, { model_map: { "claude-*": "anthropic/claude-haiku-4-5" } });
    const paid = await ask({ ...MESSAGES, model: "claude-x" });
    assert.deepEqual(shown(paid), ["!anthropic=claude-haiku-4-5"]);
    const subscribed = await ask({ ...MESSAGES, model: "claude-x", subscription: true });
    assert.deepEqual(shown(subscribed), []);
    assert.match(subscribed.refused!.message, /subscription is not changed/);
  });

  it("does not quietly take another provider where the mapped one lacks a key", async () => {
    const { ask } = await routing(
      {
        keyless: { format: "openai", api_base: "https://api.example" },
        other: { ...GROQ, models: ["gpt-5"] },
      },
      { model_map: { "gpt-*": "keyless" } },
    );
    const asked = await ask({ ...CHAT, model: "gpt-5" });
    assert.deepEqual(shown(asked), []);
    assert.equal(asked.refused?.code, "TM_NO_CREDENTIAL");
  });

  it("holds for random providers, maps and clients: one owner at most, of the client's format", async () => {
    let seed = 20261124;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
    const bases = [
      "https://api.openai.com",
      "https://api.anthropic.com",
      "https://gw.example",
      "http://127.0.0.1:1",
      "",
    ];
    for (let round = 0; round < 300; round++) {
      const providers: Record<string, object> = {};
      for (const name of ["anthropic", "openai", "alpha", "beta", "gamma"].slice(0, 2 + random(4))) {
        const isVendors = name === "anthropic" || name === "openai";
        providers[name] = {
          format: isVendors ? name : pick(["anthropic", "openai"]),
          api_base: pick(isVendors ? bases : bases.slice(0, 4)),
          ...pick([{}, {}, { auth: "client" }, { auth: "key" }, { auth: "none" }]),
          ...pick([{}, KEYED, { key_ref: [KEYED.key_ref, KEYED.key_ref] }]),
          weight: pick([0, 0, 1, 5]),
          models: pick([[], ["m*"], ["other"]]),
          priority: random(3),
        };
      }
      const names = Object.keys(providers);
      const { ask } = await routing(providers, {
        default_provider: pick([...names, "mock"]),
        fallback_enabled: pick([true, false]),
        model_map: pick([{}, {}, { m1: pick(names) }, { "m*": `${pick(names)}/renamed` }]),
      });
      const dialect = pick([undefined, "openai-chat", "anthropic-messages", "openai-responses"]);
      const format = dialect === undefined ? pick([undefined, "openai", "anthropic"]) : undefined;
      const key = pick([undefined, "sk-client"]);
      const asked = await ask({
        ...(dialect !== undefined && { dialect }),
        format,
        model: pick([undefined, "m1", "other", "x"]),
        ...(key !== undefined && { key }),
      });
      const family = dialects.find((one) => one.name === dialect)?.format ?? format;
      const owners = asked.candidates.filter(({ credential }) => credential.kind === "client");
      assert.ok(owners.length <= 1);
      for (const { provider } of owners) {
        assert.equal(provider.format, family);
        const host = new URL(provider.apiBase!).host;
        const isVendor = host === `api.${family}.com`;
        const isVouched = (providers[provider.name] as { auth?: string }).auth === "client";
        const isFirst = asked.candidates[0]?.provider === provider;
        const isSpread = (providers[provider.name] as { weight: number }).weight > 0;
        assert.ok(isVendor || (isVouched && (isFirst || isSpread)), inspect(providers));
        assert.ok(key !== undefined);
      }
      for (const { provider, credential } of asked.candidates) {
        if (provider.auth === "none") assert.equal(credential.kind, "none");
        if (provider.auth === "key") assert.equal(credential.kind, "key");
      }
    }
  });
});

describe("router: keys", () => {
  it("finds a key in its classic variable where no key_ref is set", async () => {
    process.env["TOKENMAN_KEY_OPENAI"] = "sk-classic";
    try {
      const { ask } = await routing({});
      const { candidates } = await ask({ dialect: "openai-chat", model: "x" });
      const credential = candidates[0]!.credential;
      assert.equal(credential.kind === "key" && credential.secret.reveal(), "sk-classic");
    } finally {
      delete process.env["TOKENMAN_KEY_OPENAI"];
    }
  });

  it("reads a key file again when it changed, trimmed", async () => {
    const path = join(folder, "key");
    writeFileSync(path, "  sk-one\n", { mode: 0o600 });
    const { ask, setup } = await routing({ openai: { key_ref: pathToFileURL(path).href } });
    const key = async () => {
      const credential = (await ask({ dialect: "openai-chat", model: "x" })).candidates[0]?.credential;
      return credential?.kind === "key" ? credential.secret.reveal() : undefined;
    };
    assert.equal(await key(), "sk-one");
    assert.equal(await key(), "sk-one");
    writeFileSync(path, "sk-two-longer\n");
    assert.equal(await key(), "sk-two-longer");
    assert.deepEqual(setup.logged, []);
    chmodSync(path, 0o644);
    assert.equal(await key(), "sk-two-longer");
    assert.deepEqual(
      setup.logged.map(({ level }) => level),
      ["warn"],
    );
    writeFileSync(path, "\n");
    const emptied = await ask({ dialect: "openai-chat", model: "x" });
    assert.equal(emptied.refused?.code, "TM_KEY_UNAVAILABLE");
  });

  it("refuses clearly where a key cannot be had, and shows no key and no place", async () => {
    const path = join(folder, "multi-line");
    writeFileSync(path, "sk-secret-a\nsk-secret-b\n", { mode: 0o600 });
    for (const key_ref of [
      "env:ROUTER_TEST_UNSET",
      "keyring://tokenman/openai",
      "keychain:tokenman/openai",
      pathToFileURL(path).href,
      "file:///nowhere/key",
    ]) {
      const { ask, setup } = await routing({ openai: { key_ref } });
      const asked = await ask({ dialect: "openai-chat", model: "x" });
      assert.equal(asked.refused?.code, "TM_KEY_UNAVAILABLE", key_ref);
      assert.doesNotMatch(asked.refused!.message, /nowhere|multi-line|ROUTER_TEST|sk-secret/);
      const [logged] = setup.logged.filter(({ level }) => level === "error");
      const { err } = logged!.facts as { err: Error };
      assert.match(err.message, /^providers\.openai: /);
      assert.doesNotMatch(inspect(err, { depth: 9 }), /sk-secret/);
    }
  });

  it("lets another provider serve where one key cannot be had", async () => {
    const { ask } = await routing({ broken: { ...GROQ, key_ref: "env:ROUTER_TEST_UNSET", priority: -1 } });
    const asked = await ask({ ...CHAT, model: "x" });
    assert.deepEqual(shown(asked), ["!openai"]);
    assert.deepEqual(asked.ruledOut, [{ provider: "broken", reason: "its key_ref could not be resolved" }]);
  });

  it("shows no key when a candidate is logged", async () => {
    const { ask } = await routing({ openai: { ...KEYED, auth: "key" } });
    const asked = await ask({ ...CHAT, model: "x" });
    const text = inspect(asked.candidates, { depth: 9, showHidden: true }) + JSON.stringify(asked.candidates);
    assert.doesNotMatch(text, /sk-own/);
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
