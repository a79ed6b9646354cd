import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { faults, gate, type Script, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { modelListing as anthropicListing } from "../../plugins/anthropic/model-listing.ts";
import { modelListing as openaiListing } from "../../plugins/openai/model-listing.ts";
import { Catalogue, type Fetched } from "../../plugins/router/catalogue.ts";
import { provider, type Routed, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };
const JSON_TYPE = ["Content-Type", "application/json"];
const OPENAI = ["Authorization", "Bearer sk-client"];
const ANTHROPIC = ["anthropic-version", "2023-06-01", "x-api-key", "sk-ant-api03-client"];
process.env["ROUTER_MODELS_KEY"] = "sk-of-its-own";
const own = { auth: "key", key_ref: "env:ROUTER_MODELS_KEY" };
const noneConfigured = provider("openai", { enabled: false }) + provider("anthropic", { enabled: false });

const reply = (body: string): Script => wholeReply({ status: 200, headers: JSON_TYPE, body });
const openaiList = (...ids: readonly string[]) =>
  JSON.stringify({
    object: "list",
    data: ids.map((id) => ({ id, object: "model", created: 5, owned_by: "x" })),
  });
const entry = (id: string) =>
  `{"type":"model","id":"${id}","display_name":"The ${id}","created_at":"2026-01-02T03:04:05Z","max_tokens": 6.40e4}`;
const anthropicList = (ids: readonly string[], more?: string) =>
  `{"data":[${ids.map(entry).join(", ")}],"has_more":${more !== undefined},"last_id":${JSON.stringify(more ?? null)}}`;

interface Listed {
  readonly data: readonly { readonly id: string; readonly [key: string]: unknown }[];
  readonly object?: string;
  readonly has_more?: boolean;
  readonly first_id?: string | null;
  readonly last_id?: string | null;
}
async function list(it: Routed, headers: readonly string[] = [], query = ""): Promise<Listed> {
  const { status, body } = await it.get(`/v1/models${query}`, headers);
  assert.equal(status, 200, body.toString());
  return JSON.parse(body.toString()) as Listed;
}
const ids = ({ data }: Listed) => data.map(({ id }) => id).filter((id) => !id.startsWith("mock"));

describe("router: lists of models", () => {
  it(
    "have the models of all providers of the client's format, once each, and the embedded one's",
    limits,
    async () => {
      await using it = await startRouted(3, ([a, b, c]) =>
        [
          provider("openai", { api_base: a, auth: "client" }),
          provider("ollama", { format: "openai", api_base: b, auth: "none" }),
          provider("claude", { format: "anthropic", api_base: c, ...own }),
          provider("anthropic", { enabled: false }),
          '[routing]\ndefault_provider = "openai"\n',
        ].join(""),
      );
      it.upstreams[0]!.script(reply(openaiList("gpt-a", "shared")));
      it.upstreams[1]!.script(reply(openaiList("shared", "llama")));
      it.upstreams[2]!.script(reply(anthropicList(["claude-a"])));
      const listed = await list(it, OPENAI);
      assert.equal(listed.object, "list");
      assert.deepEqual(ids(listed), ["gpt-a", "shared", "llama"]);
      assert.ok(listed.data.some(({ id }) => id === "mock"));
      assert.deepEqual(it.counts(), [1, 1, 0]);
      // Each is asked with what belongs to it.
      assert.equal(it.upstreams[0]!.last().header("authorization"), "Bearer sk-client");
      assert.equal(it.upstreams[1]!.last().header("authorization"), undefined);

      const other = await list(it, ANTHROPIC);
      assert.deepEqual(ids(other), ["claude-a"]);
      const asked = it.upstreams[2]!.last();
      assert.equal(asked.target, "/v1/models?limit=1000");
      assert.equal(asked.header("x-api-key"), "sk-of-its-own");
      assert.ok(asked.header("anthropic-version"));
      assert.doesNotMatch(asked.head.toString(), /client/);
    },
  );

  it(
    "have the models of all formats where the config says so, each client's in its own shape",
    limits,
    async () => {
      await using it = await startRouted(2, ([a, b]) =>
        [
          "[routing]\nmodels_of_all_formats = true\n",
          provider("openai", { api_base: a, ...own }),
          provider("anthropic", { api_base: b, ...own }),
        ].join(""),
      );
      it.upstreams[0]!.script(reply(openaiList("gpt-a")));
      it.upstreams[1]!.script(reply(anthropicList(["claude-a"])));
      const openai = await list(it, OPENAI);
      assert.deepEqual(ids(openai), ["gpt-a", "claude-a"]);
      assert.deepEqual(
        openai.data.find(({ id }) => id === "claude-a"),
        { id: "claude-a", object: "model", created: 1_767_323_045, owned_by: "tokenman" },
      );
      const anthropic = await list(it, ANTHROPIC);
      assert.deepEqual(ids(anthropic), ["claude-a", "gpt-a"]);
      assert.deepEqual(
        anthropic.data.find(({ id }) => id === "gpt-a"),
        { type: "model", id: "gpt-a", display_name: "gpt-a", created_at: "1970-01-01T00:00:05Z" },
      );
      for (const { requests } of it.upstreams)
        for (const { head } of requests)
          assert.doesNotMatch(head.toString(), /sk-client|sk-ant-api03-client/);
    },
  );

  it("have entries as their provider wrote them, byte for byte", limits, async () => {
    await using it = await startRouted(1, ([url]) => provider("anthropic", { api_base: url, ...own }));
    const odd =
      '{"id":"odd",  "type":"model","big":12345678901234567890,"n":1.0,"é":"\\u00e9","id2":{"id":"x"}}';
    it.upstreams[0]!.script(reply(`{"data":[${odd}],"has_more":false}`));
    const { body } = await it.get("/v1/models", ANTHROPIC);
    assert.ok(body.includes(odd));
    assert.equal((await it.get("/v1/models/odd", ANTHROPIC)).body.toString(), odd);
  });

  it("are fetched page by page, and given in the pages that the client asks for", limits, async () => {
    await using it = await startRouted(1, ([url]) => provider("anthropic", { api_base: url, ...own }));
    it.upstreams[0]!.next(reply(anthropicList(["a", "b"], "b")), reply(anthropicList(["c", "d"])));
    const all = await list(it, ANTHROPIC, "?limit=1000");
    assert.deepEqual(ids(all), ["a", "b", "c", "d"]);
    assert.equal(it.upstreams[0]!.last().target, "/v1/models?limit=1000&after_id=b");
    const first = await list(it, ANTHROPIC, "?limit=3");
    assert.deepEqual(
      [ids(first), first.has_more, first.first_id, first.last_id],
      [["a", "b", "c"], true, "a", "c"],
    );
    const second = await list(it, ANTHROPIC, "?limit=1&after_id=c");
    assert.deepEqual([ids(second), second.has_more], [["d"], true]);
    const before = await list(it, ANTHROPIC, "?limit=2&before_id=d");
    assert.deepEqual([ids(before), before.has_more], [["b", "c"], true]);
    const beyond = await list(it, ANTHROPIC, "?after_id=nothing");
    assert.deepEqual([beyond.data, beyond.has_more, beyond.first_id], [[], false, null]);
    assert.equal(it.counts()[0], 2, "the provider was asked once");
  });

  it("are fetched once for all who ask at the same time, and again when they are old", limits, async () => {
    await using it = await startRouted(
      1,
      ([url]) => `[routing]\nmodels_ttl_seconds = 0\n${provider("openai", { api_base: url, ...own })}`,
    );
    const open = gate();
    it.upstreams[0]!.next(async (call) => {
      await open.opened;
      await reply(openaiList("a"))(call);
    });
    const lists = Array.from({ length: 20 }, () => list(it, OPENAI));
    await it.upstreams[0]!.arrival(1);
    open.open();
    for (const each of await Promise.all(lists)) assert.deepEqual(ids(each), ["a"]);
    const first = it.counts()[0]!;
    assert.ok(first < 20, `${first} for 20`);
    it.upstreams[0]!.script(reply(openaiList("b")));
    assert.deepEqual(ids(await list(it, OPENAI)), ["b"]);
  });

  it("go on without a provider that is down, and with what it had said before", limits, async () => {
    await using it = await startRouted(2, ([a, b]) =>
      [
        "[routing]\nmodels_ttl_seconds = 0\n",
        provider("openai", { api_base: a, ...own }),
        provider("spare", { format: "openai", api_base: b, ...own }),
      ].join(""),
    );
    it.upstreams[0]!.script(faults.reset());
    it.upstreams[1]!.script(reply(openaiList("b")));
    assert.deepEqual(ids(await list(it, OPENAI)), ["b"]);
    it.upstreams[0]!.script(reply(openaiList("a")));
    assert.deepEqual(ids(await list(it, OPENAI)), ["a", "b"]);
    for (const fault of [
      faults.reset(),
      faults.status(500),
      reply("<html>"),
      reply('{"data":5}'),
      reply("[]"),
    ]) {
      it.upstreams[0]!.script(fault);
      assert.deepEqual(ids(await list(it, OPENAI)), ["a", "b"]);
    }
  });

  it(
    "do not wait longer than the config says for one that says nothing, and have its list when it comes",
    limits,
    async () => {
      await using it = await startRouted(2, ([a, b]) =>
        [
          "[routing]\nmodels_wait_seconds = 0.05\n",
          provider("openai", { api_base: a, ...own }),
          provider("slow", { format: "openai", api_base: b, ...own }),
        ].join(""),
      );
      const open = gate();
      it.upstreams[0]!.script(reply(openaiList("a")));
      it.upstreams[1]!.script(async (call) => {
        await open.opened;
        await reply(openaiList("slow"))(call);
      });
      assert.ok(!ids(await list(it, OPENAI)).includes("slow"));
      assert.ok(!ids(await list(it, OPENAI)).includes("slow"));
      open.open();
      while (!ids(await list(it, OPENAI)).includes("slow"));
      assert.equal(it.counts()[1], 1);
    },
  );

  it("are answered without a key, a version header or a provider", limits, async () => {
    await using it = await startRouted(1, ([url]) => provider("openai", { api_base: url, auth: "client" }));
    const bare = await list(it);
    assert.equal(bare.object, "list");
    assert.ok(bare.data.length > 0 && bare.data.every(({ id }) => id.startsWith("mock")));
    assert.equal((await it.get("/models/mock")).status, 200);
    assert.equal((await it.get("/v1/models/mock-tools-7")).status, 200, "a model that is not listed");
    const unknown = await it.get("/v1/models/gpt-x");
    assert.equal(unknown.status, 404);
    assert.match(unknown.body.toString(), /"error":\{"message":"there is no model \\"gpt-x\\""/);
    assert.deepEqual(it.counts(), [0], "nobody was asked without a key");
  });

  it("ask a provider for a model that is not listed, with the client's key", limits, async () => {
    await using it = await startRouted(1, ([url]) => provider("openai", { api_base: url, auth: "client" }));
    it.upstreams[0]!.next(reply(openaiList("gpt-a")), reply('{"id":"gpt-hidden"}'));
    assert.equal((await it.get("/v1/models/gpt-hidden", OPENAI)).body.toString(), '{"id":"gpt-hidden"}');
    assert.equal(it.upstreams[0]!.last().target, "/v1/models/gpt-hidden");
    assert.equal((await it.get("/v1/models/gpt-a", OPENAI)).status, 200);
    assert.equal(it.counts()[0], 2);
  });

  it(
    "give the provider's own refusal of the client's key where nobody else has a model",
    limits,
    async () => {
      const refused = faults.status(401, { headers: JSON_TYPE, body: '{"error":{"message":"bad key"}}' });
      await using it = await startRouted(2, ([a, b]) =>
        [
          provider("openai", { api_base: a, auth: "client" }),
          provider("local", { format: "openai", api_base: b, auth: "none", priority: 1 }),
          '[routing]\nmodels_ttl_seconds = 0\ndefault_provider = "openai"\n',
        ].join(""),
      );
      it.upstreams[0]!.script(refused);
      it.upstreams[1]!.script(reply(openaiList("llama")));
      assert.deepEqual(ids(await list(it, OPENAI)), ["llama"]);
      it.upstreams[1]!.script(reply(openaiList()));
      const reply401 = await it.get("/v1/models", OPENAI);
      assert.deepEqual([reply401.status, reply401.body.toString()], [401, '{"error":{"message":"bad key"}}']);
    },
  );

  it("differ with the client's key, and do not mix", limits, async () => {
    await using it = await startRouted(1, ([url]) => provider("openai", { api_base: url, auth: "client" }));
    it.upstreams[0]!.script((call) =>
      reply(openaiList(`for-${call.request.header("authorization")?.slice(7)}`))(call),
    );
    for (const key of ["one", "two", "one"])
      assert.deepEqual(ids(await list(it, ["Authorization", `Bearer sk-${key}`])), [`for-sk-${key}`]);
    assert.equal(it.counts()[0], 2);
  });

  it("never show a key of one vendor to another, whatever the headers look like", limits, async () => {
    await using it = await startRouted(2, ([a, b]) =>
      [
        provider("openai", { api_base: a, auth: "client" }),
        provider("anthropic", { api_base: b, auth: "client" }),
      ].join(""),
    );
    it.upstreams[0]!.script(reply(openaiList("gpt-a")));
    it.upstreams[1]!.script(reply(anthropicList(["claude-a"])));
    // No version header tells whose this is, but the key does.
    const listed = await list(it, ["Authorization", "Bearer sk-ant-api03-x"]);
    assert.deepEqual(ids(listed), ["claude-a"]);
    assert.equal(listed.has_more, false);
    await list(it, ["User-Agent", "OpenAI/JS 6.1", "Authorization", "Bearer sk-ant-api03-x"]);
    assert.equal(it.counts()[0], 0);
  });

  it("have the names that the map gives, and those that the config lists", limits, async () => {
    await using it = await startRouted(2, ([a, b]) =>
      [
        noneConfigured,
        provider("listed", { format: "openai", api_base: a, ...own, models: ["llama-*", "named"] }),
        provider("any", { format: "anthropic", api_base: b, ...own }),
        provider("keyless", { format: "openai", api_base: b }),
        '[routing]\ndefault_provider = "any"\n',
        '[routing.model_map]\nfast = "listed/llama-1"\nquick = "fast"\nclaude = "any/claude-a"\nlost = "keyless/x"\n"gpt-*" = "listed"\n',
      ].join(""),
    );
    it.upstreams[0]!.script(reply(openaiList("llama-1", "other")));
    it.upstreams[1]!.script(reply(anthropicList(["claude-a"])));
    const openai = await list(it, OPENAI);
    assert.deepEqual(ids(openai), ["llama-1", "named", "fast", "quick"]);
    assert.deepEqual(
      openai.data.find(({ id }) => id === "fast"),
      { id: "fast", object: "model", created: 5, owned_by: "x" },
    );
    assert.deepEqual(ids(await list(it, ANTHROPIC)), ["claude-a", "claude"]);
    assert.equal(
      (await it.get("/v1/models/claude", ANTHROPIC)).body.toString(),
      entry("claude-a").replace('"id":"claude-a"', '"id":"claude"'),
    );
  });

  it("are fetched in full whatever the client's request was about, and decoded", limits, async () => {
    await using it = await startRouted(1, ([url]) =>
      provider("anthropic", { api_base: url, auth: "client" }),
    );
    it.upstreams[0]!.next(
      wholeReply({
        status: 200,
        headers: [...JSON_TYPE, "Content-Encoding", "gzip"],
        body: gzipSync(anthropicList(["a"])),
      }),
    );
    const beta = ["anthropic-beta", "oauth-2025-04-20,x"];
    const oauth = ["anthropic-version", "2026-10-21", "Authorization", "Bearer sk-ant-oat01-x", ...beta];
    const more = [
      "If-None-Match",
      '"x"',
      "Range",
      "bytes=0-1",
      "Accept-Encoding",
      "br",
      "X-Tokenman-Project",
      "p",
    ];
    assert.deepEqual(ids(await list(it, [...oauth, ...more], "?beta=true&limit=5")), ["a"]);
    const { target, headers } = it.upstreams[0]!.last();
    assert.equal(target, "/v1/models?limit=1000");
    const sent = headers.map((each) => each.toLowerCase());
    for (const name of ["if-none-match", "range", "x-tokenman-project"])
      assert.ok(!sent.includes(name), name);
    for (const value of oauth) assert.ok(headers.includes(value), value);
    assert.equal(sent.filter((each) => each === "anthropic-version").length, 1);
  });

  it("are bounded in what a provider may answer", limits, async () => {
    await using it = await startRouted(
      1,
      ([url]) => `[routing]\nmodels_ttl_seconds = 0\n${provider("anthropic", { api_base: url, ...own })}`,
    );
    it.upstreams[0]!.script(reply(`{"data":[${entry("a")}],"pad":"${"x".repeat(9_000_000)}"}`));
    assert.deepEqual(ids(await list(it, ANTHROPIC)), []);
    // Pages without end.
    let page = 0;
    it.upstreams[0]!.script((call) => reply(anthropicList([`m${page}`], `m${page++}`))(call));
    assert.equal(ids(await list(it, ANTHROPIC, "?limit=1000")).length, 20);
    // The same page over and over.
    it.upstreams[0]!.script(reply(anthropicList(["same"], "same")));
    assert.deepEqual(ids(await list(it, ANTHROPIC)), ["same"]);
  });
});

describe("router: what is known of lists", () => {
  it("is fetched anew after its time, or sooner where it could not be had", async () => {
    let now = 0;
    const catalogue = new Catalogue(() => now);
    const fetched = (value: Fetched) => catalogue.refresh("k", 60_000, () => Promise.resolve(value));
    await fetched({ models: [{ id: "a" }] });
    now = 59_999;
    assert.equal(fetched({ models: [] }), undefined);
    now = 60_000;
    await fetched({ refusal: undefined });
    assert.deepEqual(catalogue.known("k").models, [{ id: "a" }], "the last good one");
    now = 69_999;
    assert.equal(fetched({ models: [] }), undefined);
    now = 70_000;
    await fetched({ models: [] });
    assert.deepEqual(catalogue.known("k").models, []);
  });

  it("is of a bounded number of accounts", async () => {
    const catalogue = new Catalogue(() => 0);
    const at = (key: string) => catalogue.refresh(key, 1, async () => ({ models: [{ id: key }] }));
    for (let index = 0; index <= 200; index++) await at(`${index}`);
    assert.equal(catalogue.known("0").models, undefined);
    assert.equal(catalogue.known("200").models?.length, 1);
  });
});

describe("lists of models in the vendors' shapes", () => {
  it("are read leniently, and what is none is none", () => {
    for (const listing of [anthropicListing, openaiListing]) {
      for (const body of ["", "x", "null", "[]", "{}", '{"data":null}', '{"data":{}}', '{"data":[']) {
        assert.equal(listing.read(Buffer.from(body)), undefined, body);
      }
      const odd =
        '{"data":[1,null,[],{},{"id":5},{"id":""},{"id":"a","created":"x","created_at":5}],"has_more":1}';
      const page = listing.read(Buffer.from(odd));
      assert.deepEqual(
        page?.models.map(({ id }) => id),
        ["a"],
      );
      assert.equal(page?.after, undefined);
      assert.equal(page?.models[0]?.createdAt, undefined);
    }
  });
});
