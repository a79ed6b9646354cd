import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { chunked, type Relay, startRelay } from "../support/relay.ts";
import { gate, type Script } from "../support/upstream.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 } },
  required: ["city", "days"],
};
const say = (content: string) => [{ role: "user" as const, content }];
const SSE_HEAD =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nrequest-id: req_1\r\nTransfer-Encoding: chunked\r\n\r\n";
const START =
  'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n' +
  'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n' +
  'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"half"}}\n\n';

/** A vendor's error, with its headers. */
function failing(status: number, type: string, headers: readonly string[] = []): Script {
  return async (call) => {
    await call.received;
    await call.reply({
      status,
      headers: ["content-type", "application/json", "request-id", "req_9", ...headers],
      body: JSON.stringify({ type: "error", error: { type, message: `it is ${type}` }, request_id: "req_9" }),
    });
  };
}

describe("@anthropic-ai/sdk through TokenMan", () => {
  let relay: Relay;
  let anthropic: Anthropic;
  before(async () => {
    relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
    anthropic = new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: relay.tokenman.proxy, maxRetries: 0 });
  });
  after(() => relay[Symbol.asyncDispose]());

  for (const [where, prefix] of [
    ["the embedded mock", ""],
    ["a vendor", REMOTE],
  ] as const) {
    describe(`to ${where}`, () => {
      before(() => relay.upstream.script(vendor));

      it("chats, and counts tokens", async () => {
        const params = { model: `${prefix}mock`, messages: say("hello there \u00e9"), system: "be good" };
        const message = await anthropic.messages.create({ ...params, max_tokens: 100 });
        assert.deepEqual(message.content, [{ type: "text", text: "hello there \u00e9" }]);
        assert.equal(message.stop_reason, "end_turn");
        const counted = await anthropic.messages.countTokens(params);
        assert.equal(counted.input_tokens, message.usage.input_tokens);
      });

      it("streams, by events and by its helper", async () => {
        const text = "na\u00efve \u{1f600} ".repeat(20);
        const params = { model: `${prefix}mock-bytes-3`, max_tokens: 1000, messages: say(text) };
        let streamed = "";
        for await (const event of await anthropic.messages.create({ ...params, stream: true })) {
          if (event.type === "content_block_delta" && event.delta.type === "text_delta")
            streamed += event.delta.text;
        }
        assert.equal(streamed, text);
        const final = await anthropic.messages.stream(params).finalMessage();
        assert.equal(final.content[0]?.type === "text" && final.content[0].text, text);
        assert.ok(final.usage.output_tokens > 1);
      });

      it("goes through the whole loop of a tool", async () => {
        const tools = [{ name: "weather", input_schema: SCHEMA }];
        for (const isStream of [false, true]) {
          const params = { model: `${prefix}mock-tools`, max_tokens: 100, tools, messages: say("Rome") };
          const message = isStream
            ? await anthropic.messages.stream(params).finalMessage()
            : await anthropic.messages.create(params);
          assert.equal(message.stop_reason, "tool_use");
          const [use] = message.content;
          assert.ok(use?.type === "tool_use");
          assert.deepEqual(use.input, { city: "Rome", days: 3 });
          const answered = await anthropic.messages.create({
            ...params,
            messages: [
              ...say("Rome"),
              { role: "assistant", content: message.content as Anthropic.ContentBlockParam[] },
              { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] },
            ],
          });
          assert.equal(
            answered.content[0]?.type === "text" && answered.content[0].text,
            "weather answered: sunny",
          );
        }
      });

      it("throws at an error, in its own class", async () => {
        const create = (model: string) =>
          anthropic.messages.create({ model: prefix + model, max_tokens: 9, messages: say("x") });
        await assert.rejects(create("mock-fail-400"), Anthropic.BadRequestError);
        await assert.rejects(create("mock-fail-401"), Anthropic.AuthenticationError);
        await assert.rejects(create("mock-fail-404"), Anthropic.NotFoundError);
        await assert.rejects(create("mock-fail-429"), Anthropic.RateLimitError);
        await assert.rejects(create("mock-fail-529"), Anthropic.InternalServerError);
      });

      it("throws where a reply breaks off or fails on its way, and never takes it for whole", async () => {
        const params = { max_tokens: 1000, messages: say("x ".repeat(200)) };
        const model = `${prefix}mock-fail-midstream`;
        await assert.rejects(anthropic.messages.create({ ...params, model }));
        await assert.rejects(anthropic.messages.stream({ ...params, model }).finalMessage());
        const raw = async (): Promise<void> => {
          for await (const _ of await anthropic.messages.create({ ...params, model, stream: true }));
        };
        await assert.rejects(raw());
        const overloaded = anthropic.messages.stream({ ...params, model: `${prefix}mock-overloaded` });
        await assert.rejects(overloaded.finalMessage(), /overloaded/);
      });
    });
  }

  it("lists models, and names one that does not exist", async () => {
    relay.upstream.script(vendor);
    const ids: string[] = [];
    for await (const model of anthropic.models.list()) ids.push(model.id);
    assert.ok(ids.includes("mock-tools"));
    await assert.rejects(anthropic.models.retrieve("claude-x"), Anthropic.NotFoundError);
  });

  it("gets the vendor's error as it came: status, type, message, ids and headers", async () => {
    for (const [status, type, kind] of [
      [400, "invalid_request_error", Anthropic.BadRequestError],
      [401, "authentication_error", Anthropic.AuthenticationError],
      [403, "permission_error", Anthropic.PermissionDeniedError],
      [404, "not_found_error", Anthropic.NotFoundError],
      [413, "request_too_large", Anthropic.APIError],
      [429, "rate_limit_error", Anthropic.RateLimitError],
      [529, "overloaded_error", Anthropic.InternalServerError],
    ] as const) {
      relay.upstream.next(failing(status, type, ["anthropic-ratelimit-requests-remaining", "0"]));
      const failed = anthropic.messages.create({ model: "claude-x", max_tokens: 9, messages: say("x") });
      await assert.rejects(failed, (error) => {
        assert.ok(error instanceof kind && error instanceof Anthropic.APIError);
        assert.equal(error.status, status);
        assert.match(error.message, new RegExp(`it is ${type}`));
        assert.equal(error.requestID, "req_9");
        assert.equal(error.headers?.get("anthropic-ratelimit-requests-remaining"), "0");
        return true;
      });
    }
  });

  it("retries as the vendor's headers say, and TokenMan adds no retries of its own", async () => {
    const patient = anthropic.withOptions({ maxRetries: 2 });
    const create = () => patient.messages.create({ model: "claude-x", max_tokens: 9, messages: say("x") });
    relay.upstream.script(vendor);
    const asked = (): number => relay.upstream.requests.length;
    let before = asked();
    relay.upstream.next(failing(429, "rate_limit_error", ["retry-after-ms", "1"]));
    relay.upstream.next(failing(529, "overloaded_error", ["retry-after-ms", "1"]), async (call) => {
      await call.received;
      await call.reply({
        status: 200,
        headers: ["content-type", "application/json"],
        body: '{"id":"m","content":[]}',
      });
    });
    assert.equal((await create()).id, "m");
    assert.equal(asked() - before, 3);
    before = asked();
    relay.upstream.next(failing(429, "rate_limit_error", ["x-should-retry", "false", "retry-after", "1"]));
    await assert.rejects(create(), Anthropic.RateLimitError);
    assert.equal(asked() - before, 1);
  });

  it("sees the whole of a stream that the upstream cuts, and then an exception", async () => {
    for (const end of ["reset", "end"] as const) {
      const arrived = gate();
      relay.upstream.next(async (call) => {
        await call.received;
        await call.write(SSE_HEAD);
        await call.write(chunked(Buffer.from(START), [50]).subarray(0, -5));
        await arrived.opened;
        if (end === "reset") call.reset();
        else await call.end();
      });
      let text = "";
      const read = async (): Promise<void> => {
        const stream = await anthropic.messages.create({
          model: "claude-x",
          max_tokens: 9,
          messages: say("x"),
          stream: true,
        });
        for await (const event of stream) {
          if (event.type !== "content_block_delta" || event.delta.type !== "text_delta") continue;
          text += event.delta.text;
          arrived.open();
        }
      };
      await assert.rejects(read());
      assert.equal(text, "half");
    }
  });

  it("is heard at once where it aborts, while it waits and while it reads", async () => {
    for (const began of [false, true]) {
      const arrived = gate();
      const called = gate<Promise<void>>();
      relay.upstream.next(async (call) => {
        await call.received;
        called.open(call.closed);
        if (began) {
          await call.write(SSE_HEAD);
          await call.write(chunked(Buffer.from(START), [50]).subarray(0, -5));
        } else arrived.open();
        await call.closed;
      });
      const abort = new AbortController();
      const read = async (): Promise<void> => {
        const stream = await anthropic.messages.create(
          { model: "claude-x", max_tokens: 9, messages: say("x"), stream: true },
          { signal: abort.signal },
        );
        for await (const event of stream) if (event.type === "content_block_delta") arrived.open();
      };
      const reading = read().catch(() => undefined);
      const closed = called.opened;
      await arrived.opened;
      abort.abort();
      await closed;
      await reading;
    }
  });
});
