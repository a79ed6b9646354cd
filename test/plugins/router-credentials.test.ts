import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import type { Attempt, Candidate } from "@tokenman/plugin-sdk";
import { fakeExchange } from "../support/fake-setup.ts";
import { CHAT, dialects, GROQ, KEYED, MESSAGES, routing, shown } from "../support/router-world.ts";

const folder = mkdtempSync(join(tmpdir(), "tokenman-router-"));
after(() => rmSync(folder, { recursive: true }));

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

  it("tells how to vouch for a gateway, where that is what is missing, and that does it", async () => {
    const gateway = { format: "openai", api_base: "https://gw.example", models: ["m"] };
    const mapped = { default_provider: "gateway", model_map: { m: "gateway" } };
    const { ask } = await routing({ gateway }, mapped);
    const asked = await ask({ ...CHAT, model: "m" });
    assert.equal(asked.refused?.code, "TM_NO_CREDENTIAL");
    assert.match(
      asked.refused.message,
      /set auth = "client" under \[providers\.gateway\] to vouch for its server$/,
    );
    const { ask: vouched } = await routing({ gateway: { ...gateway, auth: "client" } }, mapped);
    assert.deepEqual(shown(await vouched({ ...CHAT, model: "m" })), ["!gateway"]);
    const { refused } = await ask({ dialect: "openai-chat", model: "m" });
    assert.match(refused!.message, /and the client sent none$/);
    const { ask: opaque } = await routing({ gateway });
    const unclaimed = await opaque({ format: undefined, key: "AIza-google" });
    assert.doesNotMatch(unclaimed.refused!.message, /vouch/, "it would not help there");
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
