import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import zlib from "node:zlib";
import { headerValue, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  chunkBytes,
  errorReply,
  FakeClock,
  headBytes,
  sendRequest,
  steps,
  streamReply,
  textReply,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { bodyWithout } from "../../plugins/cache/ignore.ts";
import { type Ask, BODY, bodyOf, cacheOf, newFolder, outcomes, rig } from "../support/cache-world.ts";
import { startTokenman } from "../support/kernel.ts";

const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
const DIALECTS = Object.keys(PATHS) as VendorDialect[];

const ID_HEADERS = ["request-id", "req_1", "x-request-id", "req_2", "X-Custom", "a", "x-custom", "b"];
const MOMENTARY = [
  "Set-Cookie",
  "session=secret",
  "anthropic-ratelimit-requests-remaining",
  "7",
  "x-ratelimit-remaining-tokens",
  "9",
  "Retry-After",
  "3",
  "Date",
  "Mon, 01 Jan 2024 00:00:00 GMT",
];

describe("cache: a replay is the reply it was", () => {
  for (const dialect of DIALECTS) {
    for (const stream of [false, true]) {
      for (const framing of ["length", "chunked"] as const) {
        it(`${dialect}, ${stream ? "streamed" : "whole"}, ${framing}: byte for byte, with lasting headers`, async () => {
          await using rigged = await rig();
          const made: ReplyInit = stream ? streamReply(dialect, ["é", "🙂 two"]) : textReply(dialect);
          const bytes = Buffer.from(made.body as Buffer);
          const headers = [...made.headers!, ...ID_HEADERS, ...MOMENTARY];
          rigged.upstream.script(
            framing === "length"
              ? wholeReply({ status: 200, headers, body: bytes })
              : steps(
                  headBytes(200, [...headers, "Transfer-Encoding", "chunked"]),
                  chunkBytes(bytes.subarray(0, 7)),
                  chunkBytes(bytes.subarray(7)),
                  chunkBytes(""),
                ),
          );
          // Without it TokenMan asks for the usage by itself, and takes it out again for the client.
          const options =
            dialect === "openai-chat" && stream ? { stream_options: { include_usage: true } } : {};
          const request = { path: PATHS[dialect], body: bodyOf(dialect, { stream, ...options }) };
          const first = await rigged.ask(request);
          const again = await rigged.ask(request);
          assert.equal(cacheOf(first), "MISS");
          assert.equal(cacheOf(again), "HIT");
          assert.deepEqual(again.body, first.body);
          assert.deepEqual(again.body, bytes);
          assert.equal(again.status, 200);
          for (const name of [
            "content-type",
            "request-id",
            "x-request-id",
            "content-length",
            "transfer-encoding",
          ])
            assert.equal(headerValue(again.headers, name), headerValue(first.headers, name), name);
          const custom = again.headers.filter((_, index) => /^x-custom$/i.test(again.headers[index & ~1]!));
          assert.deepEqual(custom, ["X-Custom", "a", "x-custom", "b"]);
          for (const name of [
            "set-cookie",
            "retry-after",
            "anthropic-ratelimit-requests-remaining",
            "x-ratelimit-remaining-tokens",
          ])
            assert.equal(headerValue(again.headers, name), undefined, name);
          assert.notEqual(headerValue(again.headers, "date"), headerValue(first.headers, "date"));
          assert.match(headerValue(again.headers, "age") ?? "", /^\d+$/);
          assert.notEqual(
            headerValue(again.headers, "x-tokenman-request-id"),
            headerValue(first.headers, "x-tokenman-request-id"),
          );
          assert.equal(rigged.upstream.requests.length, 1);
        });
      }
    }
  }

  it("keeps a coded reply in its coding", async () => {
    await using rigged = await rig();
    const made = textReply("anthropic-messages");
    const body = zlib.gzipSync(made.body as Buffer);
    rigged.upstream.script(
      wholeReply({ status: 200, headers: [...made.headers!, "Content-Encoding", "gzip"], body }),
    );
    const headers = ["Accept-Encoding", "gzip"];
    await rigged.ask({ headers });
    const again = await rigged.ask({ headers });
    assert.equal(cacheOf(again), "HIT");
    assert.deepEqual(again.body, body);
    assert.equal(headerValue(again.headers, "content-encoding"), "gzip");
    assert.equal(cacheOf(await rigged.ask()), "MISS", "a client that takes no coding is not given one");
  });

  it("counts tokens once, and makes embeddings once", async () => {
    await using rigged = await rig();
    rigged.upstream.script(
      wholeReply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: '{"input_tokens":3,"usage":{"prompt_tokens":3,"total_tokens":3},"data":[]}',
      }),
    );
    const count = { path: "/v1/messages/count_tokens" };
    const embed = { path: "/v1/embeddings", body: '{"model":"e","input":"hi"}' };
    assert.deepEqual(await outcomes(rigged, count, count, embed, embed), ["MISS", "HIT", "MISS", "HIT"]);
  });
});

describe("cache: what shares an answer", () => {
  it("fault 38: never two credentials, projects, versions, beta values, paths, queries or bodies", async () => {
    await using rigged = await rig();
    const different: Ask[] = [
      {},
      { key: "k2" },
      { headers: ["X-Tokenman-Project", "web"] },
      { path: "/p/shop/v1/messages" },
      { headers: ["anthropic-version", "2023-06-01"] },
      { headers: ["anthropic-version", "2026-10-21"] },
      { headers: ["anthropic-beta", "a"] },
      { headers: ["anthropic-beta", "a", "anthropic-beta", "b"] },
      { headers: ["anthropic-beta", "a,b"] },
      { headers: ["Accept-Encoding", "gzip"] },
      { headers: ["Content-Encoding", "identity"] },
      { headers: ["X-Tokenman-NoCompress", "1"] },
      { path: "/v1/messages?beta=true" },
      { path: "/v1/messages/count_tokens" },
      { body: bodyOf("anthropic-messages", { stream: true }) },
      { body: bodyOf("anthropic-messages", { stream: false }) },
      { body: `${BODY} ` },
      { body: BODY.replace('"hi"', '"h\\u0069"') },
    ];
    for (const each of different) assert.equal(cacheOf(await rigged.ask(each)), "MISS", JSON.stringify(each));
    for (const each of different) assert.equal(cacheOf(await rigged.ask(each)), "HIT", JSON.stringify(each));
  });

  it("fault 38: nor two in any header that may carry a credential, beside the one that is used", async () => {
    await using rigged = await rig();
    const auth = (path: string, ...headers: string[]) =>
      sendRequest(rigged.tokenman.proxy + path, {
        headers: ["Content-Type", "application/json", ...headers],
        body: bodyOf(path === PATHS["openai-chat"] ? "openai-chat" : "anthropic-messages"),
      });
    const messages = PATHS["anthropic-messages"];
    const chat = PATHS["openai-chat"];
    const different: [string, ...string[]][] = [
      [messages],
      [messages, "x-api-key", "k1"],
      [messages, "Authorization", "Bearer k1"],
      [messages, "x-api-key", "k1", "Authorization", "Bearer k2"],
      [messages, "x-api-key", "k1", "Authorization", "Bearer k3"],
      [messages, "Cookie", "session=one"],
      [messages, "cookie", "session=two"],
      [chat, "Authorization", "Bearer k1"],
      [chat, "Authorization", "Bearer k1", "ChatGPT-Account-ID", "one"],
      [chat, "Authorization", "Bearer k1", "ChatGPT-Account-ID", "two"],
      [chat, "Authorization", "Bearer k1", "api-key", "k2"],
      [chat, "Authorization", "Bearer k1", "x-portkey-api-key", "one"],
      [chat, "Authorization", "Bearer k1", "x-portkey-api-key", "two"],
      [chat, "Authorization", "Bearer k1", "Helicone-Auth", "Bearer one"],
      [chat, "Authorization", "Bearer k1", "cf-aig-authorization", "Bearer one"],
    ];
    for (const [path, ...headers] of different)
      assert.equal(cacheOf(await auth(path, ...headers)), "MISS", headers.join(" "));
    for (const [path, ...headers] of different) {
      const again = await auth(path, ...headers, "User-Agent", "another", "Idempotency-Key", "retry-2");
      assert.equal(cacheOf(again), "HIT", headers.join(" "));
    }
  });

  it("leaves out the fields that it is told to, wherever they are", async () => {
    await using rigged = await rig('[cache]\nignore_fields = ["metadata", "user"]');
    const body = (text: string): Ask => ({ body: text });
    assert.deepEqual(
      await outcomes(
        rigged,
        body('{"metadata":{"id":1},"model":"m","max_tokens":9,"messages":[]}'),
        body('{"model":"m","max_tokens":9,"messages":[],"metadata":{"id":2},"user":"x"}'),
        body('{"model":"m","max_tokens":9,"messages":[]}'),
        body('{"model":"m2","max_tokens":9,"messages":[]}'),
        body('{"model":"m","max_tokens":9,"messages":[],"metadata":'),
      ),
      ["MISS", "HIT", "HIT", "MISS", "BYPASS"],
    );
    assert.equal(bodyWithout(Buffer.from("[1]"), new Set(["a"])), undefined);
    assert.equal(String(bodyWithout(Buffer.from('{"a":1, "\\u0061":2,"b" : 3}'), new Set(["a"]))), '"b" : 3');
  });

  it("refuses to ignore what tells a stream from a whole reply", async () => {
    await assert.rejects(
      startTokenman({ also: ["cache"], config: '[cache]\nignore_fields = ["stream"]' }),
      /stream cannot be ignored/,
    );
  });

  it("asks anew when the way of requests has changed, and not when something else has", async () => {
    await using rigged = await rig();
    await rigged.ask();
    const file = rigged.tokenman.configFile;
    const config = readFileSync(file, "utf8");
    writeFileSync(file, `${config}\n[server]\nlog_level = "debug"\n`);
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    assert.equal(cacheOf(await rigged.ask()), "HIT", "a reload keeps what is stored");
    writeFileSync(file, `${config}\n[routing.model_map]\n"other" = "openai"\n`);
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    assert.equal(cacheOf(await rigged.ask()), "MISS");
  });
});

describe("cache: a plugin that is edited", () => {
  it("is not answered for by what it had made before, and its reload otherwise takes nothing away", async () => {
    const folder = newFolder();
    const file = join(folder, "shout.ts");
    const text = (word: string) =>
      `import { definePlugin } from "@tokenman/plugin-sdk";
       export default definePlugin({ name: "shout", version: "1.0.0", apiVersion: 1, setup: (ctx) =>
         ctx.pipeline((_, hooks) => hooks.response.tap((reply) => {
           reply.headers = [...reply.headers, "X-Shout", "${word}"];
         })) });`;
    writeFileSync(file, text("one"));
    await using rigged = await rig(
      `[plugins]\norder = ["cache", "shout"]\ndir = ${JSON.stringify(folder)}\n[cache]\nttl_seconds = 60\n`,
    );
    const asked = async () => {
      const reply = await rigged.ask();
      return [cacheOf(reply), headerValue(reply.headers, "x-shout")];
    };
    assert.deepEqual(
      [await asked(), await asked()],
      [
        ["MISS", "one"],
        ["HIT", "one"],
      ],
    );
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    assert.deepEqual(await asked(), ["HIT", "one"]);
    writeFileSync(file, text("two"));
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    assert.deepEqual(
      [await asked(), await asked()],
      [
        ["MISS", "two"],
        ["HIT", "two"],
      ],
    );
  });
});

describe("cache: policy", () => {
  const messages = (more: object): Ask => ({ body: bodyOf("anthropic-messages", more) });
  const chat = (more: object): Ask => ({
    path: PATHS["openai-chat"],
    body: bodyOf("openai-chat", more),
  });
  const search = { tools: [{ type: "web_search_20250305", name: "web_search" }] };
  const cases: readonly [what: string, request: Ask, auto: string, all: string, deterministic: string][] = [
    ["says nothing", messages({}), "MISS", "MISS", "BYPASS"],
    ["temperature 0", messages({ temperature: 0 }), "MISS", "MISS", "MISS"],
    ["temperature 0.7", messages({ temperature: 0.7 }), "BYPASS", "MISS", "BYPASS"],
    ["a seed", chat({ seed: 1, temperature: 1 }), "MISS", "MISS", "MISS"],
    ["several choices", chat({ n: 2 }), "BYPASS", "MISS", "BYPASS"],
    ["one token", messages({ max_tokens: 1 }), "BYPASS", "MISS", "BYPASS"],
    ["the provider's tools", messages(search), "BYPASS", "MISS", "BYPASS"],
    ["the client's tools", messages({ tools: [{ name: "t", input_schema: {} }] }), "MISS", "MISS", "BYPASS"],
    [
      "a conversation kept at the provider",
      { path: PATHS["openai-responses"], body: bodyOf("openai-responses", { conversation: "c" }) },
      "BYPASS",
      "BYPASS",
      "BYPASS",
    ],
    ["no JSON", { body: "{" }, "BYPASS", "BYPASS", "BYPASS"],
    ["an empty body", { body: "" }, "BYPASS", "BYPASS", "BYPASS"],
    ["models", { path: "/v1/models", body: undefined }, "BYPASS", "BYPASS", "BYPASS"],
  ];
  it("decides by temperature, seed, tools and path, in each project as it says", async () => {
    await using rigged = await rig(
      '[projects.all.cache]\npolicy = "all"\n[projects.deterministic.cache]\npolicy = "deterministic"\n[projects.off]\ndisable = ["cache"]\n[projects.disabled.cache]\nenabled = false',
    );
    rigged.upstream.script(wholeReply(errorReply("anthropic-messages", 400)));
    for (const [what, request, ...expected] of cases) {
      for (const [index, project] of ["default", "all", "deterministic", "off", "disabled"].entries()) {
        const headers = ["X-Tokenman-Project", project, "anthropic-version", "2023-06-01"];
        const reply = await rigged.ask({ ...request, headers });
        if (what === "models" && cacheOf(reply) === undefined) continue;
        assert.equal(cacheOf(reply), expected[index], `${what} in ${project}`);
      }
    }
  });
});

describe("cache: what a client asks", () => {
  it("refresh, no-store, and the directives of Cache-Control", async () => {
    await using rigged = await rig();
    const with_ = (...headers: string[]): Ask => ({ headers });
    assert.deepEqual(
      await outcomes(
        rigged,
        with_("X-Tokenman-Cache", "no-store"),
        with_(),
        with_("Cache-Control", "No-Store"),
        with_("X-Tokenman-Cache", "refresh"),
        with_("Cache-Control", "no-cache"),
        with_("Pragma", "no-cache"),
        with_("Cache-Control", "max-age=0"),
        with_("Cache-Control", "max-age=60, min-fresh=1"),
        with_("Cache-Control", "min-fresh=86400"),
        with_("Cache-Control", "max-age=60", "Pragma", "no-cache"),
        with_("Cache-Control", "only-if-cached"),
      ),
      ["BYPASS", "MISS", "BYPASS", "MISS", "MISS", "MISS", "MISS", "HIT", "MISS", "HIT", "HIT"],
    );
    const none = await rigged.ask({ body: `${BODY} `, headers: ["Cache-Control", "only-if-cached"] });
    assert.equal(none.status, 504);
    assert.equal(JSON.parse(String(none.body)).type, "error");
    const sent = rigged.upstream.requests;
    assert.equal(
      sent.some((request) => request.header("x-tokenman-cache") !== undefined),
      false,
    );
    assert.equal(sent.at(-1)!.header("cache-control"), "min-fresh=86400", "forwarded as it came");
  });

  it("a refresh takes the old answer's place", async () => {
    await using rigged = await rig();
    let count = 0;
    rigged.upstream.script((call) => wholeReply(textReply("anthropic-messages", `answer ${++count}`))(call));
    await rigged.ask();
    await rigged.ask({ headers: ["X-Tokenman-Cache", "refresh"] });
    assert.match(String((await rigged.ask()).body), /answer 2/);
  });
});

describe("cache: time and room", () => {
  it("answers are kept for the TTL of metrics, of cache, of the project; a reload changes it at once", async () => {
    await using rigged = await rig(
      "[metrics]\ncache_ttl_seconds = 100\n[projects.short.cache]\nttl_seconds = 10\n[projects.none.cache]\nttl_seconds = 0",
    );
    using clock = new FakeClock();
    const short = { headers: ["X-Tokenman-Project", "short"] };
    const none = { headers: ["X-Tokenman-Project", "none"] };
    assert.deepEqual(await outcomes(rigged, {}, short, none, none), ["MISS", "MISS", "MISS", "MISS"]);
    clock.jump(-3_600_000);
    await clock.advance(9_000);
    const young = await rigged.ask(short);
    assert.equal(
      headerValue(young.headers, "age"),
      "9",
      "a clock that is set makes nothing older or younger",
    );
    await clock.advance(2_000);
    assert.deepEqual(await outcomes(rigged, {}, short), ["HIT", "MISS"]);
    const file = rigged.tokenman.configFile;
    writeFileSync(
      file,
      readFileSync(file, "utf8").replace("cache_ttl_seconds = 100", "cache_ttl_seconds = 5"),
    );
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    assert.deepEqual(await outcomes(rigged, {}), ["MISS"], "by the TTL of now");
  });
});
