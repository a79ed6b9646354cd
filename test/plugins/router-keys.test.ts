import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { headerValue, Secret } from "@tokenman/plugin-sdk";
import {
  faults,
  recordingUpstream,
  type Script,
  sendRequest,
  textScript,
} from "@tokenman/plugin-sdk/testkit";
import { CoolDowns } from "../../plugins/router/cool-downs.ts";
import { startTokenman } from "../support/kernel.ts";
import { provider, type Routed, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };
const KEYS = ["ROUTER_KEY_ONE", "ROUTER_KEY_TWO", "ROUTER_KEY_THREE"];
for (const name of KEYS) process.env[name] = `sk-${name.toLowerCase()}`;
const refs = KEYS.map((name) => `env:${name}`);
const retries = "[resilience]\nretry_base_delay_ms = 1\nretry_max_delay_ms = 1\n";

/** Providers of the OpenAI format: "many" with several keys, then "spare" with one. */
const keyed = (more = "", spare = true): Promise<Routed> =>
  startRouted(2, ([many, other]) =>
    [
      more,
      retries,
      provider("openai", { enabled: false }),
      provider("many", { format: "openai", api_base: many, auth: "key", key_ref: refs }),
      spare
        ? provider("spare", { format: "openai", api_base: other, auth: "key", key_ref: refs[0], priority: 1 })
        : "",
    ].join(""),
  );

/** Answers each key with its own status; those that are not listed with a text. */
function byKey(statuses: Readonly<Record<string, number>>, headers: readonly string[] = []): Script {
  return async (call) => {
    const key = call.request.header("authorization")?.replace("Bearer sk-router_key_", "") ?? "";
    const status = statuses[key];
    await (status === undefined ? textScript() : faults.status(status, { headers }))(call);
  };
}
let prompt = 0;
const ask = (it: Routed, content = `prompt ${prompt++}`) =>
  it.post("/v1/chat/completions", { model: "m", messages: [{ role: "user", content }] }, [
    "Authorization",
    "Bearer sk-of-the-client",
  ]);
const used = (it: Routed) =>
  it.upstreams.flatMap(({ requests }) =>
    requests.map((request) => request.header("authorization")?.replace("Bearer sk-router_key_", "")),
  );

describe("router: several keys of a provider", () => {
  for (const status of [401, 429]) {
    it(`takes the next one after a ${status}, at once, and leaves the first alone`, limits, async () => {
      await using it = await keyed();
      it.upstreams[0]!.script(byKey({ one: status }));
      for (let request = 0; request < 3; request++) assert.equal((await ask(it)).status, 200);
      assert.deepEqual(used(it), ["one", "two", "two", "two"]);
      const [warned] = it.tokenman.log.filter(
        ({ level, message }) => level === "warn" && message?.includes("many#1"),
      );
      assert.match(warned!.message!, /many answered \d+ to its key many#1/);
      assert.doesNotMatch(JSON.stringify(it.tokenman.log), /sk-router|sk-of-the-client/);
    });
  }

  it("takes the next one after a quota is over, and no other provider when all are", limits, async () => {
    await using it = await keyed();
    const over = JSON.stringify({
      error: { message: "no", type: "insufficient_quota", code: "insufficient_quota" },
    });
    const spent =
      (...keys: readonly string[]): Script =>
      async (call) => {
        const key = call.request.header("authorization")?.replace("Bearer sk-router_key_", "") ?? "";
        const refused = faults.status(429, { headers: ["Content-Type", "application/json"], body: over });
        await (keys.includes(key) ? refused : textScript())(call);
      };
    it.upstreams[0]!.script(spent("one", "two"));
    assert.equal((await ask(it)).status, 200);
    assert.deepEqual(used(it), ["one", "two", "three"]);
    it.upstreams[0]!.script(spent("three"));
    const refused = await ask(it);
    assert.equal(refused.status, 429);
    assert.match(refused.body.toString(), /insufficient_quota/);
    assert.deepEqual(it.counts(), [4, 0]);
  });

  it(
    "leaves the provider out while all of them are left alone, and says so and until when",
    limits,
    async () => {
      await using it = await keyed("", false);
      it.upstreams[0]!.script(byKey({ one: 429, two: 429, three: 401 }, ["Retry-After", "120"]));
      assert.equal((await ask(it)).status, 401, "the last key's own answer");
      const refused = await ask(it);
      assert.equal(it.counts()[0], 3);
      assert.equal(refused.status, 503);
      const { error } = JSON.parse(refused.body.toString()) as { error: { message: string; code: string } };
      assert.equal(error.code, "TM_ALL_SKIPPED");
      assert.match(error.message, /its key many#1 is at its limit \(429\); it is tried again in 1[12]\d s/);
      assert.match(error.message, /its key many#3 was refused \(401\)/);
      assert.match(headerValue(refused.headers, "retry-after") ?? "", /^(119|120)$/);
    },
  );

  it("goes to the next provider where all of them are left alone", limits, async () => {
    await using it = await keyed();
    it.upstreams[0]!.script(byKey({ one: 429, two: 429, three: 429 }));
    assert.equal((await ask(it)).status, 200);
    assert.equal((await ask(it)).status, 200);
    assert.deepEqual(it.counts(), [3, 2]);
  });

  it("does not try the others where the key is not what is wrong", limits, async () => {
    await using it = await keyed();
    it.upstreams[0]!.script(faults.status(529));
    assert.equal((await ask(it)).status, 200);
    assert.deepEqual(used(it), ["one", "one"]);
    assert.deepEqual(it.counts(), [1, 1]);
  });

  it("does not send a request around that no key can mend", limits, async () => {
    await using it = await keyed();
    it.upstreams[0]!.script(faults.status(400));
    assert.equal((await ask(it)).status, 400);
    assert.deepEqual(it.counts(), [1, 0]);
  });

  it("takes turns within one provider where fallback is off", limits, async () => {
    await using it = await keyed("[routing]\nfallback_enabled = false\n");
    it.upstreams[0]!.script(byKey({ one: 401, two: 429 }));
    assert.equal((await ask(it)).status, 200);
    assert.deepEqual(used(it), ["one", "two", "three"]);
  });

  it(
    "keeps what it knows of them over a reload, and forgets it of a key that was replaced",
    limits,
    async () => {
      await using it = await startRouted(1, () => "");
      const file = join(it.tokenman.dataDir, "key");
      writeFileSync(file, "sk-router_key_old\n", { mode: 0o600 });
      writeFileSync(
        it.tokenman.configFile,
        retries +
          provider("openai", { enabled: false }) +
          provider("many", {
            format: "openai",
            api_base: it.upstreams[0]!.url,
            auth: "key",
            key_ref: [pathToFileURL(file).href, refs[1]],
          }),
      );
      assert.equal((await it.tokenman.reload("the test's keys")).error, undefined);
      it.upstreams[0]!.script(byKey({ old: 401 }));
      await ask(it);
      await it.tokenman.reload("the test");
      await ask(it);
      assert.deepEqual(used(it), ["old", "two", "two"]);
      writeFileSync(file, "sk-router_key_new-one\n", { mode: 0o600 });
      await ask(it);
      assert.equal(used(it).at(-1), "new-one");
    },
  );

  it("goes on with those that can be had", limits, async () => {
    await using it = await startRouted(1, ([url]) =>
      [
        provider("openai", { enabled: false }),
        provider("many", {
          format: "openai",
          api_base: url,
          auth: "key",
          key_ref: ["env:ROUTER_KEY_NONE", refs[1]],
        }),
      ].join(""),
    );
    assert.equal((await ask(it)).status, 200);
    assert.deepEqual(used(it), ["two"]);
  });

  it("never sends the client's credential with any of them", limits, async () => {
    await using it = await keyed();
    it.upstreams[0]!.script(byKey({ one: 401, two: 429, three: 401 }));
    assert.equal((await ask(it)).status, 200);
    for (const { head } of it.upstreams.flatMap(({ requests }) => requests))
      assert.doesNotMatch(head.toString("latin1"), /sk-of-the-client/);
  });

  it("come from the environment too, as one reference or a list", limits, async () => {
    for (const [value, keys] of [
      [refs[1]!, ["two"]],
      [JSON.stringify(refs.slice(1)), ["two", "three"]],
    ] as const) {
      const upstream = await recordingUpstream({ script: byKey({ two: 401 }) });
      await using tokenman = await startTokenman({
        config: retries + provider("openai", { api_base: upstream.url, auth: "key" }),
        env: { TOKENMAN_PROVIDERS_OPENAI_KEY_REF: value },
        pluginsFlag: "retry",
        also: ["retry"],
      });
      const body = JSON.stringify({ model: "m", messages: [] });
      await sendRequest(`${tokenman.proxy}/v1/chat/completions`, { body });
      const sent = upstream.requests.map((request) => request.header("authorization"));
      assert.deepEqual(
        sent,
        keys.map((key) => `Bearer sk-router_key_${key}`),
      );
      await upstream.stop();
    }
  });

  it("refuses references that are keys, in a list too, and shows none", limits, async () => {
    for (const key_ref of [["sk-secret-key"], [refs[0], ""], []]) {
      const started = startRouted(0, () => provider("openai", { key_ref }));
      await assert.rejects(started, (error: Error) => {
        assert.match(error.message, /tokenman\.toml:2:\d+: TM_CONFIG_INVALID providers\.openai\.key_ref/);
        assert.doesNotMatch(error.message, /sk-secret-key/);
        return true;
      });
    }
  });
});

describe("router: how long a key is left alone", () => {
  it("is what the provider said, within bounds, else by what it answered", () => {
    let now = 5;
    const coolDowns = new CoolDowns(() => now);
    const secret = new Secret("k");
    const after = (status: number, toldMs: number | undefined) =>
      coolDowns.refused("p", secret, status, toldMs).forMs;
    assert.deepEqual(
      [undefined, 0, 1_500, 86_400_000, Number.POSITIVE_INFINITY].map((told) => after(429, told)),
      [30_000, 1_000, 1_500, 600_000, 600_000],
    );
    assert.equal(after(401, undefined), 60_000);
    assert.deepEqual(coolDowns.find("p", new Secret("k")), { status: 401, forMs: 60_000 });
    assert.equal(coolDowns.find("other", secret), undefined);
    assert.equal(coolDowns.find("p", new Secret("other")), undefined);
    now += 59_999;
    assert.equal(coolDowns.find("p", secret)?.forMs, 1);
    now += 1;
    assert.equal(coolDowns.find("p", secret), undefined);
  });
});
