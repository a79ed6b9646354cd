import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { chunked, type Relay, startRelay } from "../support/relay.ts";
import { gate, type Script } from "../support/upstream.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

/** A vendor's own client, and how that vendor says what the tests need it to say. */
interface Vendor {
  connect(proxy: string, maxRetries: number): Client;
  /** The client's class of errors of each status; what the vendor calls them. */
  readonly errors: readonly (readonly [status: number, kind: string, thrown: ErrorClass])[];
  /** Such an error as the vendor answers it, the header that names the request, and what the client's error has of it. */
  error(kind: string): { readonly body: object; readonly idHeader: string; readonly shown: object };
  /** A whole reply with the id "m". */
  readonly whole: string;
  /** A stream's beginning, with the text "half" in it. */
  readonly half: string;
}
interface Client {
  /** Resolves to the reply's id. */
  ask(model?: string): Promise<string>;
  /** The texts in a stream. */
  stream(signal?: AbortSignal): AsyncIterable<string>;
}
type ApiError = Error & {
  readonly status?: number | undefined;
  readonly requestID?: string | null | undefined;
  readonly headers?: Headers | undefined;
};
type ErrorClass = abstract new (...args: never[]) => ApiError;

const messages = [{ role: "user" as const, content: "x" }];

const VENDORS: Readonly<Record<string, Vendor>> = {
  "@anthropic-ai/sdk": {
    connect(proxy, maxRetries) {
      const client = new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: proxy, maxRetries });
      const params = (model: string) => ({ model, max_tokens: 9, messages });
      return {
        ask: async (model = "claude-x") => (await client.messages.create(params(model))).id,
        async *stream(signal) {
          const options = signal === undefined ? {} : { signal };
          for await (const event of await client.messages.create(
            { ...params("claude-x"), stream: true },
            options,
          ))
            if (event.type === "content_block_delta" && event.delta.type === "text_delta")
              yield event.delta.text;
        },
      };
    },
    errors: [
      [400, "invalid_request_error", Anthropic.BadRequestError],
      [401, "authentication_error", Anthropic.AuthenticationError],
      [403, "permission_error", Anthropic.PermissionDeniedError],
      [404, "not_found_error", Anthropic.NotFoundError],
      [413, "request_too_large", Anthropic.APIError],
      [429, "rate_limit_error", Anthropic.RateLimitError],
      [529, "overloaded_error", Anthropic.InternalServerError],
    ],
    error: (type) => ({
      body: { type: "error", error: { type, message: `it is ${type}` }, request_id: "req_9" },
      idHeader: "request-id",
      shown: { type },
    }),
    whole: '{"id":"m","content":[]}',
    half:
      'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n' +
      'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n' +
      'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"half"}}\n\n',
  },
  openai: {
    connect(proxy, maxRetries) {
      const client = new OpenAI({ apiKey: "sk-x", baseURL: `${proxy}/v1`, maxRetries });
      return {
        ask: async (model = "gpt-x") => (await client.chat.completions.create({ model, messages })).id,
        async *stream(signal) {
          const options = signal === undefined ? {} : { signal };
          for await (const { choices } of await client.chat.completions.create(
            { model: "gpt-x", messages, stream: true },
            options,
          ))
            yield choices[0]?.delta.content ?? "";
        },
      };
    },
    errors: [
      [400, "invalid", OpenAI.BadRequestError],
      [401, "invalid_api_key", OpenAI.AuthenticationError],
      [403, "forbidden", OpenAI.PermissionDeniedError],
      [404, "model_not_found", OpenAI.NotFoundError],
      [409, "conflict", OpenAI.ConflictError],
      [422, "unprocessable", OpenAI.UnprocessableEntityError],
      [429, "insufficient_quota", OpenAI.RateLimitError],
      [529, "overloaded", OpenAI.InternalServerError],
    ],
    error: (code) => ({
      body: { error: { message: `it is ${code}`, type: "t", param: "p", code } },
      idHeader: "x-request-id",
      shown: { code, type: "t", param: "p" },
    }),
    whole: '{"id":"m","choices":[]}',
    half: 'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"half"},"finish_reason":null}]}\n\n',
  },
};

const STREAM_HEAD =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

for (const [name, { connect, errors, error, whole, half }] of Object.entries(VENDORS)) {
  const reply =
    (status: number, headers: readonly string[], body: string): Script =>
    async (call) => {
      await call.received;
      await call.reply({ status, headers: ["content-type", "application/json", ...headers], body });
    };
  const failing = (status: number, kind: string, headers: readonly string[] = []): Script => {
    const { idHeader, body } = error(kind);
    return reply(status, [idHeader, "req_9", ...headers], JSON.stringify(body));
  };
  /** The chunk of the last event stays open: what follows may be its end, or a break. */
  const beginning = chunked(Buffer.from(half), [50]).subarray(0, -5);

  describe(`${name}: what goes wrong behind TokenMan`, () => {
    let relay: Relay;
    let client: Client;
    before(async () => {
      relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
      client = connect(relay.tokenman.proxy, 0);
    });
    after(() => relay[Symbol.asyncDispose]());

    for (const [where, prefix] of [
      ["the embedded mock", ""],
      ["a vendor", REMOTE],
    ] as const) {
      it(`throws at an error of ${where}, in its own class`, async () => {
        relay.upstream.script(vendor);
        for (const status of [400, 401, 404, 429, 529]) {
          const thrown = errors.find(([each]) => each === status)![2];
          await assert.rejects(client.ask(`${prefix}mock-fail-${status}`), thrown);
        }
      });
    }

    it("gets the vendor's error as it came: status, kind, message, id and headers", async () => {
      for (const [status, kind, thrown] of errors) {
        relay.upstream.next(failing(status, kind, ["x-ratelimit-remaining-tokens", "7"]));
        await assert.rejects(client.ask(), (cause) => {
          assert.ok(cause instanceof thrown);
          assert.equal(cause.status, status);
          assert.partialDeepStrictEqual({ ...cause }, { ...error(kind).shown, requestID: "req_9" });
          assert.match(cause.message, new RegExp(`it is ${kind}`));
          assert.equal(cause.headers?.get("x-ratelimit-remaining-tokens"), "7");
          return true;
        });
      }
    });

    it("retries as the vendor's headers say, and TokenMan adds no retries of its own", async () => {
      const patient = connect(relay.tokenman.proxy, 2);
      const [limited, overloaded] = [429, 529].map((status) => errors.find(([each]) => each === status)!);
      const asked = (): number => relay.upstream.requests.length;
      let before = asked();
      relay.upstream.next(
        failing(429, limited![1], ["retry-after-ms", "1"]),
        failing(529, overloaded![1], ["retry-after", "0.001"]),
        reply(200, [], whole),
      );
      assert.equal(await patient.ask(), "m");
      assert.equal(asked() - before, 3);
      before = asked();
      relay.upstream.next(failing(429, limited![1], ["x-should-retry", "false", "retry-after", "1"]));
      await assert.rejects(patient.ask(), limited![2]);
      assert.equal(asked() - before, 1);
    });

    it("sees the whole of a stream that the upstream cuts, and then an exception", async () => {
      for (const end of ["reset", "end"] as const) {
        const arrived = gate();
        relay.upstream.next(async (call) => {
          await call.received;
          await call.write(STREAM_HEAD);
          await call.write(beginning);
          await arrived.opened;
          if (end === "reset") call.reset();
          else await call.end();
        });
        let text = "";
        const read = async (): Promise<void> => {
          for await (const part of client.stream()) {
            text += part;
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
            await call.write(STREAM_HEAD);
            await call.write(beginning);
          } else arrived.open();
          await call.closed;
        });
        const abort = new AbortController();
        const read = async (): Promise<void> => {
          for await (const _ of client.stream(abort.signal)) arrived.open();
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
}
