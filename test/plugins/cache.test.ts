import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import zlib from "node:zlib";
import { definePlugin, headerValue, type Plugin, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  type ClientReply,
  chunkBytes,
  errorReply,
  FakeClock,
  headBytes,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  steps,
  streamReply,
  textEvents,
  textReply,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { bodyWithout } from "../../plugins/cache/ignore.ts";
import { startTokenman, type Tokenman } from "../support/kernel.ts";
import { startLedgered } from "../support/ledgered.ts";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cache-"));
  folders.push(folder);
  return folder;
}

const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
const DIALECTS = Object.keys(PATHS) as VendorDialect[];

function bodyOf(dialect: VendorDialect, more: object = {}): string {
  const content = [{ role: "user", content: "hi" }];
  return JSON.stringify({
    model: "m",
    ...(dialect === "openai-responses" ? { input: content } : { max_tokens: 9, messages: content }),
    ...more,
  });
}
const BODY = bodyOf("anthropic-messages");

interface Ask {
  readonly path?: string;
  readonly body?: string | Buffer | undefined;
  readonly headers?: readonly string[];
  readonly key?: string;
  readonly method?: string;
}
interface Rig extends AsyncDisposable {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  ask(options?: Ask): Promise<ClientReply>;
}

function configFor(upstream: RecordingUpstream, config: string): string {
  const provider = (name: string): string =>
    `[providers.${name}]\napi_base = "${upstream.url}"\nauth = "client"\n`;
  return `${config}\n${provider("anthropic")}${provider("openai")}`;
}

async function rig(config = "", dataDir?: string): Promise<Rig> {
  const upstream = await recordingUpstream();
  const tokenman = await startTokenman({
    also: ["cache"],
    config: configFor(upstream, config),
    ...(dataDir !== undefined && { dataDir }),
  });
  let asking = 0;
  return {
    upstream,
    tokenman,
    async ask(options) {
      asking++;
      const reply = await ask(tokenman, options).finally(() => asking--);
      // The client has all of it a moment before the exchange has settled, and its answer is stored.
      while (asking === 0 && tokenman.kernel.status().activeExchanges > 0) await nextTurn();
      return reply;
    },
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(upstream.failures, []);
      assert.deepEqual(
        tokenman.log.filter(({ level }) => level === "error"),
        [],
      );
    },
  };
}
function ask(tokenman: Tokenman, options: Ask = {}): Promise<ClientReply> {
  const { path = "/v1/messages", key = "k1", headers = [], method } = options;
  const body = "body" in options ? options.body : BODY;
  const auth = path.includes("messages") ? ["x-api-key", key] : ["Authorization", `Bearer ${key}`];
  return sendRequest(tokenman.proxy + path, {
    headers: ["Content-Type", "application/json", ...auth, ...headers],
    ...(body !== undefined && { body }),
    ...(method !== undefined && { method }),
  });
}
const cacheOf = (reply: ClientReply): string | undefined => headerValue(reply.headers, "x-tokenman-cache");
async function outcomes(rigged: Rig, ...asks: readonly Ask[]): Promise<(string | undefined)[]> {
  const found: (string | undefined)[] = [];
  for (const each of asks) found.push(cacheOf(await rigged.ask(each)));
  return found;
}

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
  it("never two credentials, projects, versions, beta values, paths, queries or bodies", async () => {
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

  it("nor two in any header that may carry a credential, beside the one that is used", async () => {
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

describe("cache: after a restart", () => {
  it("does not answer with what other plugins had made of it", async () => {
    const dataDir = newFolder();
    await using upstream = await recordingUpstream();
    const config = configFor(upstream, "");
    const stamp = (version: string) =>
      definePlugin({ name: "stamp", version, apiVersion: 1, setup: (ctx) => ctx.pipeline(() => undefined) });
    const outcomeWith = async (...plugins: Plugin[]): Promise<string | undefined> => {
      await using tokenman = await startTokenman({ also: ["cache"], config, dataDir, plugins });
      return cacheOf(await ask(tokenman));
    };
    assert.equal(await outcomeWith(stamp("1.0.0")), "MISS");
    assert.equal(await outcomeWith(stamp("1.0.0")), "HIT");
    assert.equal(await outcomeWith(stamp("1.1.0")), "MISS");
    assert.equal(await outcomeWith(), "MISS");
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

describe("cache: what is stored", () => {
  const twice: readonly [what: string, first: ReplyInit | undefined][] = [
    ["an error", errorReply("anthropic-messages", 529)],
    ["a redirect", { status: 302, headers: ["Location", "/x"], body: "" }],
    ["another success", { status: 201, headers: ["Content-Type", "application/json"], body: "{}" }],
    [
      "an error in a 200",
      { status: 200, headers: ["Content-Type", "application/json"], body: '{"error":{}}' },
    ],
    [
      "nothing at all",
      {
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: '{"content":[],"usage":{"input_tokens":3,"output_tokens":0}}',
      },
    ],
    [
      "what its sender says is not to be stored",
      {
        ...textReply("anthropic-messages"),
        headers: ["Content-Type", "application/json", "Cache-Control", "private, no-store"],
      },
    ],
    [
      "what a second header says is not to be stored",
      {
        ...textReply("anthropic-messages"),
        headers: [
          "Content-Type",
          "application/json",
          "Cache-Control",
          "no-cache",
          "cache-control",
          "No-Store",
        ],
      },
    ],
    [
      "what varies by something that requests are not told apart by",
      {
        ...textReply("anthropic-messages"),
        headers: [
          "Content-Type",
          "application/json",
          "Vary",
          "Origin",
          "Vary",
          "accept-encoding, User-Agent",
        ],
      },
    ],
    [
      "what varies by anything",
      { ...textReply("anthropic-messages"), headers: ["Content-Type", "application/json", "Vary", "*"] },
    ],
  ];
  for (const [what, first] of twice) {
    it(`not ${what}`, async () => {
      await using rigged = await rig();
      rigged.upstream.next(wholeReply(first!));
      assert.deepEqual(await outcomes(rigged, {}, {}, {}), ["MISS", "MISS", "HIT"]);
    });
  }

  const stream = { body: bodyOf("anthropic-messages", { stream: true }) };
  const SSE = ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"];
  const events = textEvents("anthropic-messages");
  it("not a stream that broke, nor one without its end, nor one with an error in it", async () => {
    await using rigged = await rig();
    const error = Buffer.from(
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n',
    );
    rigged.upstream.next(
      steps(headBytes(200, SSE), chunkBytes(events[0]!), (call) => call.reset()),
      steps(headBytes(200, SSE), chunkBytes(Buffer.concat(events.slice(0, -1))), chunkBytes("")),
      steps(headBytes(200, SSE), chunkBytes(Buffer.concat([...events.slice(0, -1), error])), chunkBytes("")),
    );
    const first = await rigged.ask(stream);
    assert.equal(first.complete, false, "the break is seen");
    assert.deepEqual(first.body, events[0]);
    assert.deepEqual(await outcomes(rigged, stream, stream, stream, stream), ["MISS", "MISS", "MISS", "HIT"]);
  });

  it("not what is larger than an entry may be, and the client has all of it", async () => {
    await using rigged = await rig("[cache]\nmax_entry_bytes = 10000");
    const text = "x".repeat(20_000);
    rigged.upstream.next(
      wholeReply(textReply("anthropic-messages", text)),
      wholeReply(textReply("anthropic-messages", text)),
    );
    const first = await rigged.ask();
    assert.ok(first.complete && first.body.includes(text));
    assert.deepEqual(await outcomes(rigged, {}, {}, {}), ["MISS", "MISS", "HIT"]);
  });

  it("not what the copy of it was cut of by server.max_response_size", async () => {
    await using rigged = await rig("[server]\nmax_response_size = 500");
    rigged.upstream.next(
      steps(
        headBytes(200, SSE),
        chunkBytes(Buffer.concat([Buffer.from(`: ${"x".repeat(600)}\n\n`), ...events])),
        chunkBytes(""),
      ),
    );
    assert.deepEqual(await outcomes(rigged, stream), ["MISS"]);
    rigged.upstream.script(wholeReply(errorReply("anthropic-messages", 500)));
    assert.deepEqual(await outcomes(rigged, stream), ["MISS"]);
  });

  it("not what a client left in the middle of, alone", async () => {
    await using rigged = await rig();
    const leaving = new AbortController();
    rigged.upstream.next(async (call) => {
      await call.received;
      await call.write(headBytes(200, SSE));
      await call.write(chunkBytes(events[0]!));
      leaving.abort();
      await call.closed;
    });
    await assert.rejects(
      sendRequest(`${rigged.tokenman.proxy}/v1/messages`, {
        headers: ["Content-Type", "application/json", "x-api-key", "k1"],
        body: stream.body,
        signal: leaving.signal,
      }).then((reply) => {
        if (!reply.complete) throw new Error("left");
      }),
    );
    assert.deepEqual(await outcomes(rigged, stream, stream), ["MISS", "HIT"]);
  });
});

describe("cache: what is stored all the same", () => {
  it("what varies by what requests are told apart by, whatever is to be done with it later", async () => {
    await using rigged = await rig();
    rigged.upstream.next(
      wholeReply({
        ...textReply("anthropic-messages"),
        headers: [
          ...["Content-Type", "application/json", "Cache-Control", "no-cache, must-revalidate, max-age=0"],
          ...["Vary", "Origin, Accept-Encoding,, x-api-key", "Vary", "anthropic-version"],
        ],
      }),
    );
    assert.deepEqual(await outcomes(rigged, {}, {}), ["MISS", "HIT"]);
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

describe("cache: on disk", () => {
  it("outlives a restart, with its headers and bytes, in a file for nobody else", async () => {
    const dataDir = newFolder();
    let first: ClientReply;
    await using upstream = await recordingUpstream();
    {
      await using tokenman = await startTokenman({
        also: ["cache"],
        config: configFor(upstream, ""),
        dataDir,
      });
      first = await ask(tokenman);
      assert.equal(cacheOf(first), "MISS");
    }
    const file = join(dataDir, "cache.db");
    assert.equal(statSync(file).mode & 0o777, 0o600);
    {
      await using tokenman = await startTokenman({
        also: ["cache"],
        config: configFor(upstream, ""),
        dataDir,
      });
      const again = await ask(tokenman);
      assert.equal(cacheOf(again), "HIT", "the very first request after the start");
      assert.deepEqual(again.body, first.body);
      assert.equal(headerValue(again.headers, "content-type"), headerValue(first.headers, "content-type"));
      const purged = await fetch(`${tokenman.dashboard}/api/cache/purge`, { method: "POST", body: "{}" });
      assert.deepEqual(await purged.json(), { purged: 1 });
      assert.equal(readFileSync(file).includes(first.body), false, "overwritten");
      assert.equal(cacheOf(await ask(tokenman)), "MISS");
    }
  });

  it("a file that is damaged, a newer version's or another program's is set aside, and a new one begun", async () => {
    await using upstream = await recordingUpstream();
    const spoil: readonly ((file: string) => void)[] = [
      (file) => writeFileSync(file, "no database at all"),
      (file) =>
        writeFileSync(file, Buffer.concat([Buffer.from("SQLite format 3\0"), Buffer.alloc(4_000, 7)])),
      (file) => {
        const db = new DatabaseSync(file);
        db.exec("PRAGMA application_id = 1953196899; PRAGMA user_version = 99");
        db.close();
      },
      (file) => {
        const db = new DatabaseSync(file);
        db.exec("CREATE TABLE mine (a); PRAGMA user_version = 3");
        db.close();
      },
    ];
    for (const [index, make] of spoil.entries()) {
      const dataDir = newFolder();
      const file = join(dataDir, "cache.db");
      make(file);
      const before = readFileSync(file);
      for (const expected of ["MISS", "HIT"]) {
        await using tokenman = await startTokenman({
          also: ["cache"],
          config: configFor(upstream, ""),
          dataDir,
        });
        assert.equal(cacheOf(await ask(tokenman)), expected, `case ${index}`);
        if (expected === "MISS")
          assert.ok(
            tokenman.log.some(({ message }) => /set aside/.test(message ?? "")),
            `case ${index}: told`,
          );
      }
      assert.ok(existsSync(`${file}.unusable`));
      assert.deepEqual(readFileSync(`${file}.unusable`).subarray(0, 16), before.subarray(0, 16));
    }
  });

  it("a disk that takes nothing leaves the cache in memory, and requests as they are", async () => {
    const dataDir = newFolder();
    await using upstream = await recordingUpstream();
    // A folder in the place of the file: nothing can be opened there, not even by root.
    const { mkdirSync } = await import("node:fs");
    mkdirSync(join(dataDir, "cache.db", "sub"), { recursive: true });
    await using tokenman = await startTokenman({ also: ["cache"], config: configFor(upstream, ""), dataDir });
    assert.equal(cacheOf(await ask(tokenman)), "MISS");
    assert.equal(cacheOf(await ask(tokenman)), "HIT");
    const stats = (await (await fetch(`${tokenman.dashboard}/api/cache`)).json()) as {
      disk: { failing: string | null };
    };
    assert.equal(typeof stats.disk.failing, "string");
    const purged = await fetch(`${tokenman.dashboard}/api/cache`, { method: "DELETE" });
    assert.deepEqual(await purged.json(), { purged: 1 }, "there is nothing of it on disk");
  });
});

describe("cache: purge and figures", () => {
  it("drops a project's answers or all; what is not understood drops none", async () => {
    await using rigged = await rig();
    const web = { headers: ["X-Tokenman-Project", "web"] };
    await outcomes(rigged, {}, web);
    const api = `${rigged.tokenman.dashboard}/api/cache`;
    const post = (body: string) => fetch(`${api}/purge`, { method: "POST", body });
    for (const body of ["null", "[]", '{"projet":"web"}', '{"project":7}', "{", '{"project":"web","x":1}'])
      assert.equal((await post(body)).status, 400, body);
    assert.equal(
      (await fetch(`${api}/purge`, { method: "POST", headers: { Origin: "https://evil.example" } })).status,
      403,
    );
    assert.deepEqual(await (await post('{"project":"web"}')).json(), { purged: 1 });
    assert.deepEqual(await outcomes(rigged, {}, web), ["HIT", "MISS"]);
    assert.deepEqual(await (await fetch(`${api}?project=nobody`, { method: "DELETE" })).json(), {
      purged: 0,
    });
    assert.deepEqual(await (await fetch(api, { method: "DELETE" })).json(), { purged: 2 });
    assert.deepEqual(await outcomes(rigged, {}), ["MISS"]);
  });

  it("keeps what is under way from being stored, and from being shared with whoever comes later", async () => {
    await using rigged = await rig();
    const api = `${rigged.tokenman.dashboard}/api/cache`;
    for (const [project, meanwhile, after] of [
      ["", undefined, "MISS"],
      ["?project=web", undefined, "MISS"],
      ["?project=web", "MISS", "HIT"],
      ["?project=shop", undefined, "HIT"],
    ] as const) {
      const body = bodyOf("anthropic-messages", { stream: true, metadata: { user_id: project + meanwhile } });
      const asked: Ask = { body, headers: ["X-Tokenman-Project", "web"] };
      const begun = Promise.withResolvers<void>();
      const purged = Promise.withResolvers<void>();
      rigged.upstream.next(async (call) => {
        await call.received;
        await call.write(
          headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]),
        );
        begun.resolve();
        await purged.promise;
        await call.write(chunkBytes(Buffer.concat(textEvents("anthropic-messages"))));
        await call.write(chunkBytes(""));
      });
      const first = rigged.ask(asked);
      await begun.promise;
      assert.equal((await fetch(api + project, { method: "DELETE" })).status, 200);
      if (meanwhile !== undefined) assert.equal(cacheOf(await rigged.ask(asked)), meanwhile);
      purged.resolve();
      assert.equal((await first).complete, true);
      assert.equal(cacheOf(await rigged.ask(asked)), after, project);
    }
  });

  it("a hit is in the ledger as one, with what it saved, and makes no attempt", async () => {
    await using upstream = await recordingUpstream();
    await using tokenman = await startLedgered({ also: ["cache"], config: configFor(upstream, "") });
    const body = bodyOf("anthropic-messages", { model: "claude-sonnet-4-5" });
    upstream.script(
      wholeReply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: JSON.stringify({
          model: "claude-sonnet-4-5",
          content: [{ type: "text", text: "x" }],
          usage: { input_tokens: 100, output_tokens: 10, cache_read_input_tokens: 50 },
        }),
      }),
    );
    await ask(tokenman, { body });
    const [first] = await tokenman.ended();
    await ask(tokenman, { body });
    const [second] = await tokenman.ended();
    assert.equal(first!.cache, "MISS");
    assert.equal(second!.cache, "HIT");
    assert.deepEqual(second!.attempts, []);
    const paid = first!.attempts[0]!.cost!.total;
    assert.ok(paid > 0);
    assert.deepEqual(
      second!.savings.map(({ kind, plugin, tokens, nanoUsd }) => ({ kind, plugin, tokens, nanoUsd })),
      [{ kind: "response-cache", plugin: "cache", tokens: 160, nanoUsd: paid }],
    );
    const metrics = await (await fetch(`${tokenman.dashboard}/metrics`)).text();
    assert.match(metrics, /^tokenman_cache_hits_total 1$/m);
    assert.match(metrics, /^tokenman_cache_misses_total 1$/m);
    assert.match(metrics, /^tokenman_cache_entries\{tier="memory"\} 1$/m);
  });
});
