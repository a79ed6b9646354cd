import assert from "node:assert/strict";
import { describe, it } from "node:test";
import zlib from "node:zlib";
import { definePlugin, type EventTransform, type Plugin, type SseEvent } from "@tokenman/plugin-sdk";
import { assertSameBytes, chunked, endToEnd, requestBytes, startRelay } from "../support/relay.ts";

const ENCODERS: Readonly<Record<string, ((body: Buffer) => Buffer) | undefined>> = {
  identity: undefined,
  gzip: zlib.gzipSync,
  br: zlib.brotliCompressSync,
  zstd: zlib.zstdCompressSync,
};

const NEW_TEXT = 'new "text"\n\u2028 €\\ \ud83d\ude00 \u0001';

/** Edits the one segment that says so. */
const editor = definePlugin({
  name: "editor",
  version: "1.0.0",
  apiVersion: 1,
  setup(ctx) {
    ctx.pipeline((_config, hooks) => {
      hooks.request.tap((exchange) => {
        for (const segment of exchange.segments)
          if (segment.text.includes("EDIT ME")) exchange.edit(segment, NEW_TEXT);
      });
    });
  },
});

/** Odd spellings of everything, with a marker where the edited string stands. */
const ODD =
  '"a":1,"a":2 ,\r\n"big":123456789012345678901234567890, "one":1.0,"exp":1E+2, "__proto__":{"x":"\\u0041\\/"}';
const EDITED = '"EDIT \\u004dE"';
const DIALECTS: readonly (readonly [target: string, bodies: Readonly<Record<string, string>>])[] = [
  [
    "/v1/messages",
    {
      "a system string": `{${ODD},"system":@,"messages":[{"role":"user","content":"x"}],"model":"m"}`,
      "a system block": `{"model":"m","system":[{"type":"text","text":"keep \\ud800"},{"cache_control":{"type":"ephemeral"},"text": @,"type":"text"}],"messages":[],${ODD}}`,
      "a message's string": `{"model":"m",${ODD},"messages":[{"content" : @,"role":"user"},{"role":"assistant","content":"y\\u00e9"}]}`,
      "a block": `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":@},{"type":"image","source":{"data":"QUJD"}}]},{"role":"assistant","content":[{"type":"thinking","thinking":"EDIT not","signature":"sig"}]}],${ODD}}`,
      "a tool result's string": `{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{${ODD}}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":@}]}]}`,
      "a tool result's block": `{"model":"m","messages":[{"role":"user","content":[{"tool_use_id":"t","type":"tool_result","content":[{"type":"text","text":@ }],${ODD}}]}]}`,
    },
  ],
  [
    "/v1/chat/completions",
    {
      "a system message": `{"model":"m","messages":[{"role":"system","content":@},{"role":"user","content":"x"}],${ODD}}`,
      "a message's part": `{${ODD},"model":"m","messages":[{"role":"user","content":[{"type":"text","text":@},{"type":"image_url","image_url":{"url":"data:,x"}}]}]}`,
      "a tool message": `{"model":"m","messages":[{"role":"tool","tool_call_id":"t","content":\t@}],${ODD}}`,
    },
  ],
  [
    "/v1/responses",
    {
      instructions: `{"model":"m","instructions":@,"input":"x",${ODD}}`,
      "a string input": `{"model":"m","input":@,${ODD}}`,
      "an item's part": `{"model":"m",${ODD},"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":@}]}]}`,
      "a function's output": `{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":@},{"type":"reasoning","encrypted_content":"EDIT not"}],${ODD}}`,
    },
  ],
];

describe("an edited segment", () => {
  for (const [target, bodies] of DIALECTS) {
    it(`leaves every other byte as it was: ${target}`, async () => {
      await using relay = await startRelay({ plugins: [editor] });
      using client = await relay.client();
      for (const [place, template] of Object.entries(bodies)) {
        const [before, behind] = template.split("@").map((part) => Buffer.from(part));
        const body = Buffer.concat([before!, Buffer.from(EDITED), behind!]);
        for (const [coding, encode] of Object.entries(ENCODERS)) {
          const kept = [
            "x-api-key: k",
            "authorization: Bearer k",
            "content-type: application/json",
            "x-a: 1",
          ];
          const lines =
            encode === undefined
              ? kept
              : [...kept, `Content-Encoding: ${coding}`, "Content-MD5: x", "x-b: 2"];
          const reply = await client.ask(requestBytes({ target, lines, body: encode?.(body) ?? body }));
          assert.equal(reply.status, 200, place);
          const sent = relay.upstream.last();
          assertSameBytes(sent.body.subarray(0, before!.length), before!, `before ${place}`);
          assertSameBytes(sent.body.subarray(sent.body.length - behind!.length), behind!, `behind ${place}`);
          const text = sent.body.subarray(before!.length, sent.body.length - behind!.length).toString();
          assert.equal(JSON.parse(text), NEW_TEXT, place);
          assert.equal(sent.header("content-length"), String(sent.body.length));
          assert.deepEqual(endToEnd(sent.headers), encode === undefined ? kept : [...kept, "x-b: 2"]);
        }
      }
    });
  }

  it("leaves a request alone in which there is nothing to edit, coded or not", async () => {
    await using relay = await startRelay({ plugins: [editor] });
    using client = await relay.client();
    const body = zlib.gzipSync(`{${ODD},"model":"m","messages":[{"role":"user","content":"x"}]}`);
    await client.ask(requestBytes({ lines: ["x-api-key: k", "Content-Encoding: gzip"], body }));
    assertSameBytes(relay.upstream.last().body, body, "gzip");
    assert.equal(relay.upstream.last().header("content-encoding"), "gzip");
  });
});

const EVENTS = [
  "\ufeff: hello\r\n\r\n",
  "event: a\rdata: 1\r\r",
  "event: ping\ndata: {}\n\n",
  'data: {"text":"EDIT ME"}\nid: 5\n\n',
  "data:1.0  \ndata: \u00e9\n\n",
  "\n",
  "data: half an event",
];

function mapping(name: string, event: EventTransform["event"]): Plugin {
  return definePlugin({
    name,
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.response.tap((reply) => reply.mapEvents({ event }));
      });
    },
  });
}

describe("a stream in which a plugin changes one event", () => {
  const isOurs = (event: SseEvent): boolean => event.data?.includes("EDIT ME") === true;
  const REPLACEMENTS: Readonly<Record<string, readonly [written: string, event: EventTransform["event"]]>> = {
    "an event": ["data: x\n\n", (event) => (isOurs(event) ? Buffer.from("data: x\n\n") : event)],
    nothing: ["", (event) => (isOurs(event) ? undefined : event)],
    "two events": [
      "data: x\n\ndata: y\r\n\r\n",
      (event) => (isOurs(event) ? [Buffer.from("data: x\n\n"), Buffer.from("data: y\r\n\r\n")] : event),
    ],
    "an event and itself": [
      `: before\n\n${EVENTS[3]}`,
      (event) => (isOurs(event) ? [Buffer.from(": before\n\n"), event] : event),
    ],
    "half an event, which the next one completes": [
      "data: x\n",
      (event) => (isOurs(event) ? Buffer.from("data: x\n") : event),
    ],
  };
  for (const [what, [written, event]] of Object.entries(REPLACEMENTS)) {
    it(`has all others as they were: replaced by ${what}`, async () => {
      // A second transform behind the first one sees what that wrote, and lets it be.
      await using relay = await startRelay({
        plugins: [mapping("behind", (one) => one), mapping("changing", event)],
      });
      using client = await relay.client();
      const expected = EVENTS.map((text) => (text === EVENTS[3] ? written : text)).join("");
      for (const [coding, encode] of Object.entries(ENCODERS)) {
        for (const size of [1, 13, 1_000]) {
          const stream = Buffer.from(EVENTS.join(""));
          const body = encode?.(stream) ?? stream;
          const head = [
            "Content-Type: text/event-stream",
            `Content-Encoding: ${coding}`,
            "Content-Digest: x",
            "X-A: 1",
          ];
          relay.upstream.next(async (call) => {
            await call.received;
            await call.write(`HTTP/1.1 200 OK\r\n${head.join("\r\n")}\r\nTransfer-Encoding: chunked\r\n\r\n`);
            await call.write(chunked(body, [size]));
          });
          const reply = await client.ask(requestBytes({ lines: ["x-api-key: k"], body: "{}" }));
          assert.equal(reply.whole, true);
          assertSameBytes(reply.body, Buffer.from(expected), `${what}, ${coding}, ${size}`);
          assert.deepEqual(reply.values("content-encoding"), []);
          assert.deepEqual(reply.values("content-length"), []);
          assert.deepEqual(reply.values("content-digest"), []);
          assert.deepEqual(reply.values("x-a"), ["1"]);
        }
      }
    });
  }

  it("passes at a cut all that came, the half event too, and breaks off", async () => {
    await using relay = await startRelay({ plugins: [mapping("same", (event) => event)] });
    for (const [coding, encode] of Object.entries(ENCODERS)) {
      using client = await relay.client();
      const stream = Buffer.from(EVENTS.join(""));
      const body = encode?.(stream) ?? stream;
      relay.upstream.next(async (call) => {
        await call.received;
        const head = `Content-Type: text/event-stream\r\nContent-Encoding: ${coding}\r\nTransfer-Encoding: chunked`;
        await call.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n`);
        await call.write(chunked(body, [7]).subarray(0, -5));
        await call.end();
      });
      const reply = await client.ask(requestBytes({ lines: ["x-api-key: k"], body: "{}" }));
      assert.equal(reply.broken, true, coding);
      assertSameBytes(reply.body, stream, coding);
    }
  });
});
