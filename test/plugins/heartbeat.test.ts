import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { headerValue } from "@tokenman/plugin-sdk";
import {
  type ClientReply,
  FakeClock,
  gate,
  Random,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";
import { withoutMoments } from "../../plugins/heartbeat/moments.ts";
import type { Tokenman } from "../support/kernel.ts";
import { type Ledgered, startLedgered } from "../support/ledgered.ts";

const NOW = Date.parse("2026-11-24T10:00:00Z");
const A = "6f1c0a52-94d1-4f5e-8b35-1f0a0c6f8f11";
const B = "0f2a7a52-94d1-4f5e-8b35-1f0a0c6f8f22";

interface Rig extends AsyncDisposable {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Ledgered;
  say(text: string, options?: Say): Promise<ClientReply>;
}
interface Say {
  readonly dialect?: VendorDialect;
  readonly more?: object;
  readonly headers?: readonly string[];
}
const PATHS: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
};

async function rig(config: string, cache = false): Promise<Rig> {
  const upstream = await recordingUpstream();
  const provider = (name: string): string =>
    `[providers.${name}]\napi_base = "${upstream.url}"\nauth = "client"\n`;
  const tokenman = await startLedgered({
    also: ["cache"],
    config: `[cache]\nenabled = ${cache}\n[compression.heartbeat]\nenabled = true\n${config}\n${provider("anthropic")}${provider("openai")}`,
  });
  return {
    upstream,
    tokenman,
    say: (text, options) => say(tokenman, text, options),
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(upstream.failures, []);
    },
  };
}
function say(tokenman: Tokenman, text: string, options: Say = {}): Promise<ClientReply> {
  const { dialect = "anthropic-messages", more = {}, headers = [] } = options;
  const messages = [{ role: "user", content: text }];
  const conversation = dialect === "openai-responses" ? { input: messages } : { max_tokens: 99, messages };
  const auth = dialect === "anthropic-messages" ? ["x-api-key", "k"] : ["Authorization", "Bearer k"];
  return sendRequest(tokenman.proxy + PATHS[dialect], {
    headers: ["Content-Type", "application/json", ...auth, ...headers],
    body: JSON.stringify({ model: "big", ...conversation, ...more }),
  });
}
const shared = (reply: ClientReply): string | undefined => headerValue(reply.headers, "x-tokenman-cache");

describe("heartbeat: moments and one-time ids", () => {
  const taken = (text: string, body = text): string | undefined => withoutMoments(text, body, NOW);
  it("takes out the present time, in the spellings that there are", () => {
    for (const time of [
      "2026-11-24T10:00:00Z",
      "2026-11-24T10:01:59.123456Z",
      "2026-11-24T11:00:10+01:00",
      "2026-11-24T05:00:10-0500",
      "2026-11-24 09:58:30Z",
      "Tue, 24 Nov 2026 10:00:00 GMT",
      "1795514400",
      "1795514400123",
    ])
      assert.equal(taken(`now: ${time}.`), "now: \0now\0.", time);
  });
  it("leaves other times and all other numbers alone", () => {
    for (const text of [
      "What happened at 2026-11-23T10:00:00Z?",
      "In 2026-11-24T10:03:00Z?",
      "Is 12 prime? Is 1234567890?",
      "Check #12",
      "at 10:00",
      "2026-11-24",
      "12026-11-24T10:00:00Z1",
      "call 17955144001234",
      "",
    ])
      assert.equal(taken(text), undefined, text);
  });
  it("takes out an id that is nowhere else in the request", () => {
    assert.equal(taken(`id ${A}`), "id \0id\0");
    assert.equal(taken(`status of ${A}`, `order ${A.toUpperCase()} is ${A}`), undefined);
  });
  it("takes linear time on hostile text", () => {
    for (const piece of ["1", "2026-", "2026-11-24T10:00:00", "a-", "Tue, ", "\0"])
      assert.doesNotThrow(() => taken(piece.repeat(8_192)));
    const random = new Random(3);
    for (let round = 0; round < 200; round++) {
      const text = Array.from({ length: 60 }, () => "0123-:TZ.+ af"[random.below(13)]).join("");
      assert.doesNotThrow(() => taken(text));
    }
  });
});

describe("heartbeat", () => {
  for (const dialect of Object.keys(PATHS) as VendorDialect[]) {
    it(`polls that differ in their time share one answer: ${dialect}`, async () => {
      await using rigged = await rig("");
      const at = (ms: number): string => `Anything new? It is ${new Date(Date.now() + ms).toISOString()}`;
      for (const stream of [false, true]) {
        const first = await rigged.say(at(0), { dialect, more: { stream } });
        const second = await rigged.say(at(1_500), { dialect, more: { stream } });
        assert.equal(shared(first), undefined);
        assert.equal(shared(second), "HIT");
        assert.deepEqual(second.body, first.body);
        assert.notEqual(shared(await rigged.say(at(3_600_000), { dialect, more: { stream } })), "HIT");
      }
      assert.equal(rigged.upstream.requests.length, 4);
      const rows = await rigged.tokenman.ended(6);
      const saved = rows.filter(({ savings }) => savings.some(({ plugin }) => plugin === "heartbeat"));
      assert.equal(saved.length, 2);
      assert.deepEqual(
        saved.map(({ savings }) => [savings[0]!.kind, savings[0]!.tokens > 0]),
        [
          ["response-cache", true],
          ["response-cache", true],
        ],
      );
    });
  }

  it("nothing else may differ: key, project, other text, other fields, tools, length", async () => {
    await using rigged = await rig("");
    const now = (): string => new Date().toISOString();
    await rigged.say(`New? ${now()}`);
    const others: readonly [string, Say?][] = [
      [`Old? ${now()}`],
      [`New? ${now()}`, { more: { system: "s" } }],
      [`New? ${now()}`, { more: { max_tokens: 98 } }],
      [`New? ${now()}`, { headers: ["X-Tokenman-Project", "web"] }],
      [`New? ${now()}`, { headers: ["anthropic-beta", "b"] }],
      [`New? ${now()}`, { headers: ["X-Tokenman-NoCompress", "1"] }],
      [`New? ${now()}`, { headers: ["X-Tokenman-Cache", "no-store"] }],
      [`New? ${now()}`, { headers: ["Cache-Control", "no-cache"] }],
      [`New? ${now()} ${"x".repeat(5_000)}`],
      [`New? ${now()}`, { more: { tools: [{ name: "t", input_schema: {} }] } }],
    ];
    for (const [text, options] of others)
      assert.equal(
        shared(await rigged.say(text, options)),
        undefined,
        JSON.stringify([text.slice(0, 40), options]),
      );
    assert.equal(rigged.upstream.requests.length, 11);
    assert.equal(shared(await rigged.say(`New? ${now()}`)), "HIT");
  });

  it("an id that the conversation knows is what it asks about", async () => {
    await using rigged = await rig("");
    const more = { system: `orders: ${A} sent, ${B} lost` };
    await rigged.say(`What of ${A}?`, { more });
    assert.equal(shared(await rigged.say(`What of ${B}?`, { more })), undefined);
    await rigged.say(`ping ${A}`);
    assert.equal(shared(await rigged.say(`ping ${B}`)), "HIT");
  });

  it("patterns say what a poll is; what they leave open makes no difference", async () => {
    await using rigged = await rig('patterns = ["Status check #* please", "*HEARTBEAT*"]\nautomatic = false');
    const tools = { more: { tools: [{ name: "t", input_schema: {} }] } };
    await rigged.say("Status check #1 please");
    assert.equal(shared(await rigged.say(" Status check #2 please\n")), "HIT");
    assert.equal(shared(await rigged.say("HEARTBEAT now", tools)), undefined);
    assert.equal(shared(await rigged.say("one more HEARTBEAT", tools)), "HIT");
    assert.equal(shared(await rigged.say("Status check 2 please")), undefined);
    const now = new Date().toISOString();
    await rigged.say(`New? ${now}`);
    assert.equal(shared(await rigged.say(`New? ${now}`)), undefined, "not automatic");
  });

  it("the window ends", async () => {
    await using rigged = await rig('patterns = ["ping *"]\ndedup_window_seconds = 20');
    using clock = new FakeClock();
    await rigged.say("ping 1");
    await clock.advance(19_000);
    assert.equal(headerValue((await rigged.say("ping 2")).headers, "age"), "19");
    await clock.advance(2_000);
    assert.equal(shared(await rigged.say("ping 3")), undefined);
  });

  it("polls at the same time make one call", async () => {
    await using rigged = await rig('patterns = ["ping *"]');
    const goOn = gate();
    const came = gate();
    rigged.upstream.next(async (call) => {
      await call.received;
      came.open();
      await goOn.opened;
      await call.reply({
        status: 200,
        headers: ["Content-Type", "application/json"],
        body: '{"model":"big","content":[{"type":"text","text":"x"}],"usage":{"input_tokens":3,"output_tokens":4}}',
      });
    });
    const first = rigged.say("ping 0");
    await came.opened;
    const others = Array.from({ length: 20 }, (_, index) => rigged.say(`ping ${index + 1}`));
    while (rigged.tokenman.status().activeExchanges !== 21) await new Promise((done) => setImmediate(done));
    goOn.open();
    const all = await Promise.all([first, ...others]);
    for (const reply of all) assert.deepEqual(reply.body, all[0]!.body);
    assert.equal(all.filter((reply) => shared(reply) === "COALESCED").length, 20);
    assert.equal(rigged.upstream.requests.length, 1);
  });

  for (const stream of [false, true]) {
    it(`polls go to the cheaper model, ${stream ? "streamed" : "whole"}, and the client finds its own name; a subscription's do not`, async () => {
      await using rigged = await rig('patterns = ["ping *"]\nheartbeat_model = "small"');
      const answer = (model: string): string =>
        stream
          ? `event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"${model}","usage":{"input_tokens":3,"output_tokens":1}}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\"model\\":\\"small\\""}}\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":4}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n`
          : `{"model":"${model}","content":[],"usage":{"input_tokens":3,"output_tokens":4}}`;
      rigged.upstream.script(async (call) => {
        await call.received;
        const { model } = call.request.json() as { readonly model: string };
        const type = stream ? "text/event-stream" : "application/json";
        await call.reply({ status: 200, headers: ["Content-Type", type], body: answer(model) });
      });
      const more = { stream };
      const first = await rigged.say("ping 1", { more });
      const second = await rigged.say("ping 2", { more });
      assert.equal(String(first.body), answer("big"));
      assert.deepEqual(second.body, first.body);
      assert.equal(shared(second), "HIT");
      await rigged.say("no poll", { more });
      const oauth = ["Authorization", "Bearer sk-ant-oat01-x", "anthropic-beta", "oauth-2025-04-20"];
      await sendRequest(`${rigged.tokenman.proxy}/v1/messages`, {
        headers: ["Content-Type", "application/json", ...oauth],
        body: JSON.stringify({
          model: "big",
          max_tokens: 99,
          stream,
          messages: [{ role: "user", content: "ping 9" }],
        }),
      });
      assert.deepEqual(
        rigged.upstream.requests.map((request) => (request.json() as { model: string }).model),
        ["small", "big", "big"],
      );
    });
  }

  it("goes with the cache before it, and odd bodies pass as they are", async () => {
    await using rigged = await rig('patterns = ["*"]', true);
    await rigged.say("a");
    assert.equal(shared(await rigged.say("a")), "HIT");
    assert.equal(shared(await rigged.say("b")), "HIT", "by the pattern");
    const before = rigged.upstream.requests.length;
    const odd = [
      "",
      "{",
      "[]",
      "null",
      '{"messages":7}',
      '{"messages":[]}',
      '{"messages":[{"role":"x","content":[{"type":"y"}]}]}',
      '{"messages":[{"role":"user","content":[]}]}',
    ];
    for (const body of odd)
      await sendRequest(`${rigged.tokenman.proxy}/v1/messages`, {
        headers: ["Content-Type", "application/json", "x-api-key", "k"],
        body,
      });
    assert.equal(rigged.upstream.requests.length, before + odd.length);
    assert.deepEqual(
      rigged.upstream.requests.slice(before).map(({ body }) => String(body)),
      odd,
    );
  });
});
