import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import zlib from "node:zlib";
import {
  assertSameBytes,
  endToEnd,
  looking,
  type Relay,
  requestBytes,
  startRelay,
  WAYS,
} from "../support/relay.ts";
import type { WireClient } from "../support/wire-client.ts";

const ANTHROPIC = ["anthropic-version: 2023-06-01", "x-api-key: sk-ant-1", "content-type: application/json"];
const OPENAI = ["Authorization: Bearer sk-1", "Content-Type: application/json"];

const plain =
  '{"model":"m","max_tokens":9,"stream":false,"messages":[{"role":"user","content":"hello"}],"x":[1,2,3]}';
const BODIES: readonly (readonly [name: string, body: Buffer, lines?: readonly string[]])[] = [
  [
    "duplicate keys",
    Buffer.from('{"model":"a","model":"b","messages":[],"messages":[{"role":"user"}],"a":1,"a":2}'),
  ],
  [
    "numbers beyond doubles",
    Buffer.from('{"model":"m","seed":123456789012345678901234567890,"t":1.0,"e":1E+02,"z":-0}'),
  ],
  [
    "escapes as they were spelled",
    Buffer.from('{"model":"\\u006d","messages":[{"role":"user","content":"\\/\\u00e9\\ud83d\\ude00"}]}'),
  ],
  ["odd white space", Buffer.from(' \r\n\t{ "model"\t:\n"m" ,"messages" : [ ]\r\n} \n\n')],
  [
    "lone surrogates",
    Buffer.from('{"model":"\\ud800","messages":[{"role":"user","content":"\\udfff\\ud800x"}]}'),
  ],
  ["bytes that are not UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x22, 0xc3, 0x22, 0x7d])],
  ["a byte order mark", Buffer.from(`\ufeff${plain}`)],
  ["__proto__", Buffer.from('{"__proto__":{"model":"x"},"constructor":{"prototype":{"y":1}},"model":"m"}')],
  ["10,000-deep nesting", Buffer.from(`{"model":"m","messages":${"[".repeat(10_000)}${"]".repeat(10_000)}}`)],
  ["what is not JSON", Buffer.from("model=m&stream=true\0\x01")],
  ["half a document", Buffer.from('{"model":"m","messages":[{"role":"user","content":"')],
  ["gzip", zlib.gzipSync(plain), ["Content-Encoding: gzip"]],
  ["br", zlib.brotliCompressSync(plain), ["content-encoding: br"]],
  ["zstd", zlib.zstdCompressSync(plain), ["Content-Encoding: ZSTD"]],
  ["an unknown coding", Buffer.from("\x01\x02\x03"), ["Content-Encoding: snappy"]],
  ["a coding that it is not of", Buffer.from(plain), ["Content-Encoding: gzip"]],
  ["a list of codings", zlib.gzipSync(zlib.gzipSync(plain)), ["Content-Encoding: gzip, gzip"]],
];

describe("a request that no plugin changes", () => {
  let relay: Relay;
  let client: WireClient;
  before(async () => {
    const { plugin, config } = looking();
    relay = await startRelay({ plugins: [plugin], config });
    client = await relay.client();
  });
  after(async () => {
    client[Symbol.dispose]();
    await relay[Symbol.asyncDispose]();
  });

  const PATHS = [
    ["/v1/messages", ANTHROPIC],
    ["/v1/messages/count_tokens", ANTHROPIC],
    ["/v1/chat/completions", OPENAI],
    ["/v1/responses", OPENAI],
    ["/v1/embeddings", OPENAI],
  ] as const;
  for (const [name, body, extra = []] of BODIES) {
    it(`arrives as it was sent: a body with ${name}`, async () => {
      for (const [target, lines] of PATHS) {
        for (const chunks of [undefined, [1, 7, 64]]) {
          const reply = await client.ask(
            requestBytes({ target, lines: [...lines, ...extra], body, ...(chunks && { chunks }) }),
          );
          assert.equal(reply.status, 200);
          const { body: arrived, headers, target: arrivedAt } = relay.upstream.last();
          assert.equal(arrivedAt, target);
          assertSameBytes(arrived, body, target);
          assert.deepEqual(endToEnd(headers), [...lines, ...extra]);
        }
      }
    });
  }

  it("arrives as it was sent: 30 MB, whichever way plugins look", async () => {
    const body = Buffer.from(
      `{"model":"m","messages":[{"role":"user","content":"${"0123456789abcdef".repeat(1_900_000)}"}]}`,
    );
    for (const way of WAYS) {
      const lines = [...OPENAI, `X-Tokenman-Project: ${way}`];
      const reply = await client.ask(requestBytes({ target: "/v1/chat/completions", lines, body }));
      assert.equal(reply.status, 200);
      assertSameBytes(relay.upstream.last().body, body, way);
    }
  });

  it("stays without a body where it has none, whether or not it says so", async () => {
    for (const body of [undefined, ""]) {
      for (const method of ["POST", "GET", "DELETE"]) {
        await client.ask(
          requestBytes({ method, lines: ANTHROPIC, ...(body !== undefined && { body }) }),
          method,
        );
        const last = relay.upstream.last();
        assert.equal(last.body.length, 0);
        assert.ok([undefined, "0"].includes(last.header("content-length")));
        assert.equal(last.header("transfer-encoding"), undefined);
        assert.deepEqual(endToEnd(last.headers), ANTHROPIC);
      }
    }
  });

  it("keeps every header's case, order, duplicates and bytes, and adds none", async () => {
    const lines = [
      "anthropic-version: 2023-06-01",
      "ACCEPT: a/b",
      "accept: c/d",
      "anthropic-beta: context-1m-2025-08-07,  interleaved-thinking-2025-05-14",
      "Anthropic-Beta: files-api-2025-04-14",
      "anthropic-beta: oauth-2025-04-20",
      "X-Empty:",
      "X-Empty: ",
      "x-latin1: caf\xe9 \xff\x80",
      "x-spaces: a  b\tc",
      "Cookie: a=1; b=2",
      "Cookie: a=3",
      "Authorization: Bearer sk-ant-oat01-x",
      "Accept-Encoding: gzip, deflate, br, zstd",
      "User-Agent: claude-cli/2.1.330 (external, cli)",
      "x-stainless-retry-count: 0",
      "X-Claude-Code-Session-Id: 6f0b",
      "priority: u=1",
      "Trailer: x-nothing",
      "!#$%&'*+-.^_`|~: odd name",
      "date: Tue, 24 Nov 2026 10:00:00 GMT",
      "via: 1.1 me",
    ];
    await client.ask(requestBytes({ target: "/v1/messages?beta=true", lines, body: plain }));
    const { head, headers } = relay.upstream.last();
    assert.deepEqual(
      endToEnd(headers),
      lines.map((line) => line.replace(/^([^:]+):\s*(.*)$/, "$1: $2")),
    );
    assert.ok(head.includes("POST /v1/messages?beta=true HTTP/1.1\r\n"));
  });

  it("loses what belongs to the hop, what Connection names, and what is TokenMan's", async () => {
    const lines = [
      "x-a: 1",
      "Connection: keep-alive, X-Named, ,x-other",
      "Keep-Alive: timeout=5",
      "x-named: goes",
      "X-OTHER: goes",
      "TE: trailers",
      "Proxy-Authorization: Basic eA==",
      "Proxy-Connection: keep-alive",
      "X-Tokenman-Project: plain",
      "x-tokenman-nocompress: 1",
      "X-TOKENMAN-CACHE: no-store",
      "x-b: 2",
      "x-api-key: k",
    ];
    await client.ask(requestBytes({ lines, body: plain }));
    assert.deepEqual(endToEnd(relay.upstream.last().headers), ["x-a: 1", "x-b: 2", "x-api-key: k"]);
  });

  it("waits for 100 Continue where the client does", async () => {
    client.expect("POST");
    const bytes = requestBytes({ lines: [...ANTHROPIC, "Expect: 100-continue"], body: plain });
    const head = bytes.indexOf("\r\n\r\n") + 4;
    const { socket } = client;
    const informed = new Promise((resolve) => socket.once("data", resolve));
    await client.send(bytes.subarray(0, head));
    await informed;
    assert.equal(client.information.at(-1)?.status, 100);
    await client.send(bytes.subarray(head));
    assert.equal((await client.reply()).status, 200);
    assertSameBytes(relay.upstream.last().body, Buffer.from(plain), "after 100");
    assert.equal(relay.upstream.last().header("expect"), undefined);
  });
});

describe("a path that no dialect claims", () => {
  let relay: Relay;
  let client: WireClient;
  before(async () => {
    const { plugin, config } = looking();
    relay = await startRelay({ plugins: [plugin], config });
    client = await relay.client();
  });
  after(async () => {
    client[Symbol.dispose]();
    await relay[Symbol.asyncDispose]();
  });

  const big = Buffer.alloc(3_000_000, "upload\0");
  for (const [method, target, body] of [
    ["POST", "/v1/files", big],
    ["PUT", "/v1/files/1?x=%20", Buffer.from("{}")],
    ["PATCH", "/v1/files/1", Buffer.from('{"a":1,"a":2}')],
    ["DELETE", "/v1/files/1", undefined],
    ["DELETE", "/v1/files/2", Buffer.from("why")],
    ["GET", "/v1/skills?limit=1000&after=a%2Fb", undefined],
    ["GET", "/v1/messages/batches/b1/results", undefined],
    ["HEAD", "/api/hello", undefined],
    ["HEAD", "/", undefined],
    ["OPTIONS", "/v1/messages", undefined],
    ["GET", "/v1/organizations/usage_report/messages", undefined],
  ] as const) {
    it(`passes: ${method} ${target}${body === undefined ? "" : ` with ${body.length} bytes`}`, async () => {
      const lines = [...ANTHROPIC, "x-odd: \xe9"];
      for (const chunks of body === undefined ? [undefined] : [undefined, [1, 5, 40_000]]) {
        const reply = await client.ask(
          requestBytes({ method, target, lines, ...(body && { body }), ...(chunks && { chunks }) }),
          method,
        );
        assert.equal(reply.status, 200);
        const last = relay.upstream.last();
        assert.equal(`${last.method} ${last.target}`, `${method} ${target}`);
        assertSameBytes(last.body, body ?? Buffer.alloc(0), target);
        assert.deepEqual(endToEnd(last.headers), lines);
        if (body !== undefined && chunks === undefined)
          assert.equal(last.header("content-length"), String(body.length));
      }
    });
  }

  it("streams an upload: the upstream has its beginning before the client sends the end", async () => {
    client.expect("POST");
    const bytes = requestBytes({ target: "/v1/files", lines: ANTHROPIC, body: big });
    const next = relay.upstream.requests.length + 1;
    await client.send(bytes.subarray(0, 1_000_000));
    const arrived = await relay.upstream.arrival(next);
    assert.equal(arrived.complete, false);
    await client.send(bytes.subarray(1_000_000));
    assert.equal((await client.reply()).status, 200);
    assertSameBytes(relay.upstream.last().body, big, "upload");
  });
});

describe("a request's target", () => {
  const TARGETS = [
    "/v1/messages",
    "/v1/messages?beta=true",
    "/v1/messages?",
    '/v1/messages?a=b?c&&=&%zz&x=[1]{2}|"<>^`\\',
    "/v1/messages?q=%2F..%2F&q=%00",
    "/v1/files/a%2Fb%20c/%E2%82%AC",
    "/v1//files///x/",
    "/v1/files/../models/./x;v=1",
    "/v1/files/a+b~c!$&'()*,=:@",
    "/files/1",
  ];
  for (const prefix of ["", "/gateway/eu"]) {
    it(`is kept to the byte, behind a base ${prefix === "" ? "without" : "with"} a path`, async () => {
      await using relay = await startRelay({ prefix });
      using client = await relay.client();
      for (const target of TARGETS) {
        // Behind a base with a path, dots could lead out of it: that is refused.
        if (prefix !== "" && target.includes("/../")) continue;
        for (const project of ["", "/p/side.project_1-x"]) {
          const method = target.startsWith("/v1/messages") ? "POST" : "GET";
          const body = method === "POST" ? { body: plain } : {};
          const reply = await client.ask(
            requestBytes({ method, target: project + target, lines: ANTHROPIC, ...body }),
          );
          assert.equal(reply.status, 200, target);
          assert.equal(relay.upstream.last().target, prefix + target);
        }
      }
    });
    it(`gets the /v1 that a dialect's client left out, behind a base ${prefix === "" ? "without" : "with"} a path`, async () => {
      await using relay = await startRelay({ prefix });
      using client = await relay.client();
      for (const [target, lines] of [
        ["/messages?beta=true", ANTHROPIC],
        ["/messages/count_tokens", ANTHROPIC],
        ["/chat/completions", OPENAI],
        ["/responses?x=%20", OPENAI],
        ["/embeddings", OPENAI],
      ] as const) {
        await client.ask(requestBytes({ target: `/p/x${target}`, lines, body: plain }));
        assert.equal(relay.upstream.last().target, `${prefix}/v1${target}`);
        assertSameBytes(relay.upstream.last().body, Buffer.from(plain), target);
      }
    });
  }
  it("may be absolute: its path counts", async () => {
    await using relay = await startRelay();
    using client = await relay.client();
    await client.ask(
      requestBytes({ target: "http://localhost/v1/messages?x=1", lines: ANTHROPIC, body: plain }),
    );
    assert.equal(relay.upstream.last().target, "/v1/messages?x=1");
  });
});
