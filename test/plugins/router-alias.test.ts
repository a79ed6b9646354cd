import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { headerValue, SseSplitter } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  streamReply,
  textEvents,
  textReply,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { restoring } from "../../plugins/router/alias.ts";
import { provider, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };
const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};
const DIALECTS = Object.keys(PATHS) as VendorDialect[];

const aliased = () =>
  startRouted(1, ([url]) =>
    [
      provider("anthropic", { api_base: url, auth: "none" }),
      provider("openai", { api_base: url, auth: "none" }),
      '[routing.model_map]\n"a \\"fast\\" one" = "quick"\n"quick" = "openai/test-model"\n',
      '"claude-*" = "anthropic/test-model"\n',
    ].join(""),
  );
const nameFor = (dialect: VendorDialect) => (dialect === "anthropic-messages" ? "claude-x" : 'a "fast" one');
const renamed = (body: Buffer, dialect: VendorDialect) =>
  Buffer.from(body.toString().replaceAll('"test-model"', JSON.stringify(nameFor(dialect))));

describe("router: an alias", () => {
  for (const dialect of DIALECTS) {
    it(
      `${dialect}: goes out as what it stands for, and comes back as the client's name`,
      limits,
      async () => {
        await using it = await aliased();
        const text = 'The "model" is {"model":"test-model"}, isn\'t it?';
        it.upstreams[0]!.script(wholeReply(textReply(dialect, text)));
        const body = `{ "x":1.0,"model" : ${JSON.stringify(nameFor(dialect))} , "messages":[],"input":"é" }`;
        const reply = await it.post(PATHS[dialect], JSON.parse(body), ["Accept-Encoding", "gzip, br"]);
        const sent = it.upstreams[0]!.last();
        assert.equal((sent.json() as { model: string }).model, "test-model");
        assert.equal(sent.header("accept-encoding"), "identity");
        const expected = renamed(Buffer.from(textReply(dialect, text).body as string), dialect);
        assertBytesEqual(reply.body, expected);
        assert.equal(headerValue(reply.headers, "content-length"), String(expected.length));
        // What the model said about models is the model's.
        assert.match(reply.body.toString(), /\{\\"model\\":\\"test-model\\"\}/);
      },
    );

    it(
      `${dialect}: comes back in every event of a stream that has it, and no other byte differs`,
      limits,
      async () => {
        await using it = await aliased();
        const events = Buffer.concat([
          Buffer.from(": hello\n\n"),
          ...textEvents(dialect, ['"model"', "é\n"]),
        ]);
        it.upstreams[0]!.script(
          wholeReply({ status: 200, headers: ["Content-Type", "text/event-stream"], body: events }),
        );
        const reply = await it.post(PATHS[dialect], { model: nameFor(dialect), stream: true, messages: [] });
        assertBytesEqual(reply.body, renamed(events, dialect));
      },
    );
  }

  it("comes back out of replies that are compressed all the same", limits, async () => {
    await using it = await aliased();
    const bytes = Buffer.from(textReply("openai-chat").body as string);
    const stream = streamReply("openai-chat").body as Buffer;
    for (const [coding, encode] of [
      ["gzip", gzipSync],
      ["br", brotliCompressSync],
      ["zstd", zstdCompressSync],
    ] as const) {
      const headers = (type: string) => ["Content-Type", type, "Content-Encoding", coding];
      it.upstreams[0]!.next(
        wholeReply({ status: 200, headers: headers("application/json"), body: encode(bytes) }),
        wholeReply({ status: 200, headers: headers("text/event-stream"), body: encode(stream) }),
      );
      const whole = await it.post("/v1/chat/completions", { model: "quick", messages: [] });
      assertBytesEqual(whole.body, Buffer.from(bytes.toString().replaceAll('"test-model"', '"quick"')));
      assert.equal(headerValue(whole.headers, "content-encoding"), undefined);
      const streamed = await it.post("/v1/chat/completions", { model: "quick", messages: [], stream: true });
      assertBytesEqual(streamed.body, Buffer.from(stream.toString().replaceAll('"test-model"', '"quick"')));
    }
  });

  it("leaves replies that cannot be decoded, are no JSON, or are errors, as they came", limits, async () => {
    await using it = await aliased();
    const error = '{"error":{"message":"no test-model","model":"test-model"},"model":"test-model"}';
    for (const [status, headers, body] of [
      [200, ["Content-Type", "application/json", "Content-Encoding", "x-odd"], '{"model":"test-model"}'],
      [200, ["Content-Type", "text/event-stream", "Content-Encoding", "x-odd"], 'data: {"model":"m"}\n\n'],
      [200, ["Content-Type", "application/json"], '{"model":"test-model"'],
      [200, ["Content-Type", "application/json"], '{"model":{"model":"test-model"},"models":["model"]}'],
      [200, ["Content-Type", "text/plain"], ""],
      [404, ["Content-Type", "application/json"], error],
    ] as const) {
      it.upstreams[0]!.next(wholeReply({ status, headers, body }));
      const reply = await it.post("/v1/chat/completions", { model: "quick", messages: [] });
      assert.equal(reply.status, status);
      assertBytesEqual(reply.body, body);
    }
  });

  it("touches no request and no reply of a model that has none", limits, async () => {
    await using it = await aliased();
    const body = gzipSync(textReply("openai-chat").body as string);
    it.upstreams[0]!.next(
      wholeReply({
        status: 200,
        headers: ["Content-Type", "application/json", "Content-Encoding", "gzip"],
        body,
      }),
    );
    const encoding = ["Accept-Encoding", "gzip, deflate"];
    const reply = await it.post("/v1/chat/completions", { model: "test-model", messages: [] }, encoding);
    assertBytesEqual(reply.body, body);
    assert.equal(it.upstreams[0]!.last().header("accept-encoding"), "gzip, deflate");
    assertBytesEqual(it.upstreams[0]!.last().body, '{"model":"test-model","messages":[]}');
  });

  it("stays visibly broken where the provider breaks off a reply that is being read", limits, async () => {
    await using it = await aliased();
    it.upstreams[0]!.next(async (call) => {
      await call.received;
      await call.write(
        'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"model":"t',
      );
      call.reset();
    });
    await assert.rejects(
      it.post("/v1/chat/completions", { model: "quick", messages: [] }).then((reply) => {
        assert.equal(reply.complete, false);
        throw new Error("broken, as it must be");
      }),
    );
  });

  it("comes back as it was asked for, whatever it is called", limits, async () => {
    await using it = await startRouted(
      1,
      ([url]) =>
        `${provider("openai", { api_base: url, auth: "none" })}[routing.model_map]\n"*" = "openai/test-model"\n`,
    );
    const long = "x".repeat(1_000_000);
    for (const model of ["\ud800", long, "__proto__", "a\u0000b", "*", "/", "openai/x", "é\n", '"', "$&"]) {
      const body = { model, messages: [] };
      const whole = await it.post("/v1/chat/completions", body);
      assert.equal((JSON.parse(whole.body.toString()) as { model: string }).model, model);
      const stream = await it.post("/v1/chat/completions", { ...body, stream: true });
      const name = JSON.stringify(model);
      const events = Buffer.concat(textEvents("openai-chat")).toString();
      // By parts: a replacement's own dollars would mean something.
      assertBytesEqual(stream.body, Buffer.from(events.split('"test-model"').join(name)));
      assert.equal((it.upstreams[0]!.last().json() as { model: string }).model, "test-model");
    }
    assert.deepEqual(
      it.tokenman.log.filter(({ level }) => level === "error"),
      [],
    );
  });

  it("goes to whom its target's own route leads, under the target's name", limits, async () => {
    await using it = await startRouted(2, (urls) =>
      [
        provider("one", { format: "openai", api_base: urls[0], auth: "none", models: ["llama-*"] }),
        provider("two", { format: "openai", api_base: urls[1], auth: "none" }),
        '[routing]\ndefault_provider = "two"\n',
        '[routing.model_map]\nsmall = "llama-3"\nsmaller = "small"\n"gpt-*" = "gpt-5"\n',
      ].join(""),
    );
    const asked = async (model: string) => {
      const before = it.counts();
      await it.post("/v1/chat/completions", { model, messages: [] });
      const at = it.counts().findIndex((count, index) => count > before[index]!);
      return [at, (it.upstreams[at]!.last().json() as { model: string }).model];
    };
    assert.deepEqual(await asked("small"), [0, "llama-3"]);
    assert.deepEqual(await asked("smaller"), [0, "llama-3"]);
    assert.deepEqual(await asked("gpt-4o"), [1, "gpt-5"]);
    assert.deepEqual(await asked("gpt-5"), [1, "gpt-5"]);
  });

  it("comes back in each event by itself, however alike they begin", () => {
    const transform = restoring(Buffer.from('"mine"'));
    const events = [
      '{"id":1,"model":"x","a":1}',
      '{"id":1,"model":"x","a":"model"}',
      '{"id":1,"model":"x","model":"y"}',
      '{"id":1,"model":"x","response":{"model":"y"}}',
      '{"id":1,"model":"xy"}',
      '{"id":1,"model":"x\\"","b":2}',
      '{"id":1,"models":["model"],"model":"x"}',
      '{"id":12,"model":"x"}',
      '{"id":1,"tool":{"model":"x"}}',
      '{"id":1,"model":"x","a":1',
      '{"id":1,"model":"x"}',
    ];
    const splitter = new SseSplitter({ maxEventBytes: 1_000 });
    const seen: string[] = [];
    splitter.push(Buffer.from(events.map((data) => `data: ${data}\n\n`).join("")), (event) => {
      const result = transform.event(event);
      seen.push((Buffer.isBuffer(result) ? result : (result as typeof event).raw).toString().slice(6, -2));
    });
    assert.deepEqual(seen, [
      '{"id":1,"model":"mine","a":1}',
      '{"id":1,"model":"mine","a":"model"}',
      '{"id":1,"model":"x","model":"mine"}',
      '{"id":1,"model":"mine","response":{"model":"mine"}}',
      '{"id":1,"model":"mine"}',
      '{"id":1,"model":"mine","b":2}',
      '{"id":1,"models":["model"],"model":"mine"}',
      '{"id":12,"model":"mine"}',
      '{"id":1,"tool":{"model":"x"}}',
      '{"id":1,"model":"x","a":1',
      '{"id":1,"model":"mine"}',
    ]);
  });

  it("comes back out of events in any chunks and line ends, however they are cut", () => {
    const name = Buffer.from('"client\'s"');
    const transform = restoring(name);
    for (const lineEnd of ["\n", "\r\n", "\r"]) {
      const text = [
        "id: 1",
        'data: {"model":"x",',
        'data: "message":{"model":"y","a":"\\"model\\""}}',
        "",
        "",
      ];
      const bytes = Buffer.from(text.join(lineEnd));
      for (let cut = 1; cut < bytes.length; cut++) {
        const splitter = new SseSplitter({ maxEventBytes: 1_000 });
        const out: Buffer[] = [];
        const push = (piece: Buffer) =>
          splitter.push(piece, (event) => {
            const result = transform.event(event);
            out.push(Buffer.isBuffer(result) ? result : (result as typeof event).raw);
          });
        push(bytes.subarray(0, cut));
        push(bytes.subarray(cut));
        const seen = Buffer.concat(out).toString();
        assert.match(seen, /"model":"client's",/);
        assert.match(seen, /"message":\{"model":"client's","a":"\\"model\\""\}/);
      }
    }
  });
});

describe("router: mistakes in the config", () => {
  const failing = async (config: string): Promise<string> => {
    try {
      await using _ = await startRouted(0, () => config);
    } catch (error) {
      return (error as Error).message;
    }
    return assert.fail("it starts");
  };

  it("shows where aliases go in a circle, each circle once", limits, async () => {
    const message = await failing(
      '[routing]\n\n[routing.model_map]\nfine = "b"\na = "b"\nb = "c"\nc = "a"\nown = "own"\n',
    );
    assert.match(
      message,
      /tokenman\.toml:5:5: TM_CONFIG_INVALID routing\.model_map\."a": the aliases go in a circle: "a" → "b" → "c" → "a"/,
    );
    assert.match(
      message,
      /tokenman\.toml:8:7: TM_CONFIG_INVALID routing\.model_map\."own": .* "own" → "own"/,
    );
    assert.equal(message.match(/go in a circle/g)?.length, 2);
  });

  it("shows where a provider is named that does not exist", limits, async () => {
    const message = await failing(
      '[routing]\ndefault_provider = "antropic"\n[routing.model_map]\n"*" = "opnai"\ny = "opnai/m"\n',
    );
    for (const place of ["2:20", "4:7", "5:5"])
      assert.ok(message.includes(`.toml:${place}: TM_CONFIG_INVALID`), place);
    assert.match(message, /"\*": expected the name of a provider, found "opnai" \(did you mean "openai"\?\)/);
    const overlaid = await failing('[projects.p.routing.model_map]\n"a.b" = "opnai"\n');
    assert.match(overlaid, /tokenman\.toml:2:9: TM_CONFIG_INVALID routing\.model_map\."a\.b": expected/);
    assert.match(await failing('[routing.model_map]\nx = "nobody"\n'), /:2:5: .*found "nobody" \(there are/);
  });

  it("warns of a provider to which no request comes", limits, async () => {
    const idle = provider("idle", { format: "openai", api_base: "http://127.0.0.1:9", auth: "none" });
    const warned = async (config: string) => {
      await using it = await startRouted(0, () => config);
      return it.tokenman.log
        .filter(({ message }) => message?.includes("no request comes"))
        .map(({ message }) => message);
    };
    assert.match(
      (await warned(`[routing]\nfallback_enabled = false\n${idle}`)).join(),
      /the provider idle: it lists no models/,
    );
    assert.deepEqual(await warned(idle), []);
    assert.deepEqual(
      await warned(`[routing]\nfallback_enabled = false\n[routing.model_map]\nx = "idle"\n${idle}`),
      [],
    );
    assert.deepEqual(await warned(`[routing]\nfallback_enabled = false\n${idle}models = ["x"]\n`), []);
  });
});
