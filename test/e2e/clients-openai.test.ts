import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import OpenAI from "openai";
import { chunked, type Relay, startRelay } from "../support/relay.ts";
import { gate, type Script } from "../support/upstream.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 } },
  required: ["city", "days"],
};
const say = (content: string) => [{ role: "user" as const, content }];
const SSE_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNK =
  'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"half"},"finish_reason":null}]}\n\n';

function failing(status: number, code: string, headers: readonly string[] = []): Script {
  return async (call) => {
    await call.received;
    await call.reply({
      status,
      headers: ["content-type", "application/json", "x-request-id", "req_9", ...headers],
      body: JSON.stringify({ error: { message: `it is ${code}`, type: "t", param: "p", code } }),
    });
  };
}

describe("openai through TokenMan", () => {
  let relay: Relay;
  let openai: OpenAI;
  before(async () => {
    relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
    openai = new OpenAI({ apiKey: "sk-x", baseURL: `${relay.tokenman.proxy}/v1`, maxRetries: 0 });
  });
  after(() => relay[Symbol.asyncDispose]());

  for (const [where, prefix] of [
    ["the embedded mock", ""],
    ["a vendor", REMOTE],
  ] as const) {
    describe(`to ${where}`, () => {
      before(() => relay.upstream.script(vendor));

      it("chats", async () => {
        const reply = await openai.chat.completions.create({
          model: `${prefix}mock`,
          messages: say("hello there"),
        });
        assert.equal(reply.choices[0]?.message.content, "hello there");
        assert.ok(reply.usage!.total_tokens > 0);
      });

      it("streams a chat, with usage only where it was asked for", async () => {
        for (const include_usage of [true, false]) {
          const stream = openai.chat.completions.stream({
            model: `${prefix}mock-chunked-7`,
            messages: say("one two three four five"),
            stream_options: { include_usage },
          });
          const chunks = [];
          for await (const chunk of stream) chunks.push(chunk);
          assert.equal(
            (await stream.finalChatCompletion()).choices[0]?.message.content,
            "one two three four five",
          );
          assert.equal(chunks.filter((chunk) => chunk.choices[0]?.delta.content).length, 7);
          assert.equal(chunks.at(-1)?.usage?.completion_tokens, include_usage ? 6 : undefined);
        }
      });

      it("goes through the whole loop of a tool, in a chat and in responses", async () => {
        const tools = [{ type: "function" as const, function: { name: "weather", parameters: SCHEMA } }];
        const model = `${prefix}mock-tools`;
        const chat = openai.chat.completions.stream({ model, messages: say("Rome"), tools });
        const { choices } = await chat.finalChatCompletion();
        const call = choices[0]!.message.tool_calls![0]!;
        assert.ok(call.type === "function");
        assert.deepEqual(JSON.parse(call.function.arguments), { city: "Rome", days: 3 });
        const answered = await openai.chat.completions.create({
          model,
          tools,
          messages: [
            ...say("Rome"),
            choices[0]!.message,
            { role: "tool", tool_call_id: call.id, content: "sunny" },
          ],
        });
        assert.equal(answered.choices[0]?.message.content, "weather answered: sunny");

        const functions = [{ type: "function" as const, name: "weather", parameters: SCHEMA, strict: false }];
        const { output } = await openai.responses
          .stream({ model, input: "Rome", tools: functions })
          .finalResponse();
        const [use] = output;
        assert.ok(use?.type === "function_call");
        const done = await openai.responses.create({
          model,
          tools: functions,
          input: [
            { role: "user", content: "Rome" },
            { type: "function_call", call_id: use.call_id, name: use.name, arguments: use.arguments },
            { type: "function_call_output", call_id: use.call_id, output: "sunny" },
          ],
        });
        assert.equal(done.output_text, "weather answered: sunny");
      });

      it("responds, and streams a response", async () => {
        const input = "a rather long text, for a mock ".repeat(4);
        const whole = await openai.responses.create({ model: `${prefix}mock`, input });
        assert.equal(whole.output_text, input);
        const stream = openai.responses.stream({ model: `${prefix}mock-bytes-5`, input });
        const numbers: number[] = [];
        for await (const event of stream) numbers.push(event.sequence_number);
        assert.equal((await stream.finalResponse()).output_text, input);
        assert.deepEqual(numbers, [...numbers.keys()]);
      });

      it("embeds, as base64 and as numbers", async () => {
        const params = { model: `${prefix}mock`, input: ["a", "b"], dimensions: 64 };
        const packed = await openai.embeddings.create(params);
        const plain = await openai.embeddings.create({ ...params, encoding_format: "float" });
        assert.equal(packed.data.length, 2);
        for (const [index, { embedding }] of packed.data.entries()) {
          assert.equal(embedding.length, 64);
          assert.deepEqual(embedding, plain.data[index]?.embedding);
        }
      });

      it("throws at an error, in its own class", async () => {
        const create = (model: string) =>
          openai.chat.completions.create({ model: prefix + model, messages: say("x") });
        await assert.rejects(create("mock-fail-400"), OpenAI.BadRequestError);
        await assert.rejects(create("mock-fail-401"), OpenAI.AuthenticationError);
        await assert.rejects(create("mock-fail-404"), OpenAI.NotFoundError);
        await assert.rejects(create("mock-fail-429"), OpenAI.RateLimitError);
        await assert.rejects(create("mock-fail-529"), OpenAI.InternalServerError);
      });

      it("throws where a reply breaks off or fails on its way, and never takes it for whole", async () => {
        const model = `${prefix}mock-fail-midstream`;
        const messages = say("x ".repeat(200));
        await assert.rejects(openai.chat.completions.create({ model, messages }));
        await assert.rejects(openai.responses.create({ model, input: "x ".repeat(200) }));
        const raw = async (): Promise<void> => {
          for await (const _ of await openai.chat.completions.create({ model, messages, stream: true }));
        };
        await assert.rejects(raw());
        const events = async (): Promise<void> => {
          for await (const _ of await openai.responses.create({
            model,
            input: "x ".repeat(200),
            stream: true,
          }));
        };
        await assert.rejects(events());
        const overloaded = openai.chat.completions.stream({ model: `${prefix}mock-overloaded`, messages });
        await assert.rejects(overloaded.finalChatCompletion(), /overloaded/);
      });
    });
  }

  it("lists models, with and without /v1 in its base URL", async () => {
    relay.upstream.script(vendor);
    // Both vendors have /v1/models: a key that looks like OpenAI's goes to the provider of that format.
    for (const base of ["/v1", "/p/side/v1"]) {
      const client = new OpenAI({ apiKey: "sk-x", baseURL: relay.tokenman.proxy + base, maxRetries: 0 });
      const ids: string[] = [];
      for await (const model of client.models.list()) ids.push(model.id);
      assert.ok(ids.includes("mock-tools"), base);
      await assert.rejects(client.models.retrieve("gpt-x"), OpenAI.NotFoundError);
    }
    const bare = new OpenAI({ apiKey: "sk-x", baseURL: relay.tokenman.proxy, maxRetries: 0 });
    const reply = await bare.chat.completions.create({ model: "mock", messages: say("bare") });
    assert.equal(reply.choices[0]?.message.content, "bare");
  });

  it("gets the vendor's error as it came: status, code, message, id and headers", async () => {
    for (const [status, code, kind] of [
      [400, "invalid", OpenAI.BadRequestError],
      [401, "invalid_api_key", OpenAI.AuthenticationError],
      [403, "forbidden", OpenAI.PermissionDeniedError],
      [404, "model_not_found", OpenAI.NotFoundError],
      [409, "conflict", OpenAI.ConflictError],
      [422, "unprocessable", OpenAI.UnprocessableEntityError],
      [429, "insufficient_quota", OpenAI.RateLimitError],
      [529, "overloaded", OpenAI.InternalServerError],
    ] as const) {
      relay.upstream.next(failing(status, code, ["x-ratelimit-remaining-tokens", "7"]));
      const failed = openai.chat.completions.create({ model: "gpt-x", messages: say("x") });
      await assert.rejects(failed, (error) => {
        assert.ok(error instanceof kind && error instanceof OpenAI.APIError);
        assert.equal(error.status, status);
        assert.equal(error.code, code);
        assert.equal(error.param, "p");
        assert.equal(error.requestID, "req_9");
        assert.equal(error.headers?.get("x-ratelimit-remaining-tokens"), "7");
        return true;
      });
    }
  });

  it("retries as the vendor's headers say, and TokenMan adds no retries of its own", async () => {
    const patient = openai.withOptions({ maxRetries: 2 });
    const create = () => patient.chat.completions.create({ model: "gpt-x", messages: say("x") });
    const asked = (): number => relay.upstream.requests.length;
    let before = asked();
    relay.upstream.next(
      failing(429, "rate_limit_exceeded", ["retry-after-ms", "1"]),
      failing(500, "server_error", ["retry-after", "0.001"]),
      async (call) => {
        await call.received;
        await call.reply({
          status: 200,
          headers: ["content-type", "application/json"],
          body: '{"id":"c","choices":[]}',
        });
      },
    );
    assert.equal((await create()).id, "c");
    assert.equal(asked() - before, 3);
    before = asked();
    relay.upstream.next(failing(429, "slow_down", ["x-should-retry", "false", "retry-after", "1"]));
    await assert.rejects(create(), OpenAI.RateLimitError);
    assert.equal(asked() - before, 1);
  });

  it("sees the whole of a stream that the upstream cuts, and then an exception", async () => {
    for (const end of ["reset", "end"] as const) {
      const arrived = gate();
      relay.upstream.next(async (call) => {
        await call.received;
        await call.write(SSE_HEAD);
        await call.write(chunked(Buffer.from(CHUNK), [50]).subarray(0, -5));
        await arrived.opened;
        if (end === "reset") call.reset();
        else await call.end();
      });
      let text = "";
      const read = async (): Promise<void> => {
        const stream = await openai.chat.completions.create({
          model: "gpt-x",
          messages: say("x"),
          stream: true,
        });
        for await (const chunk of stream) {
          text += chunk.choices[0]?.delta.content;
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
          await call.write(chunked(Buffer.from(CHUNK), [50]).subarray(0, -5));
        } else arrived.open();
        await call.closed;
      });
      const abort = new AbortController();
      const read = async (): Promise<void> => {
        const stream = await openai.chat.completions.create(
          { model: "gpt-x", messages: say("x"), stream: true },
          { signal: abort.signal },
        );
        for await (const _ of stream) arrived.open();
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
