import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  chunkBytes,
  errorEvent,
  errorReply,
  gate,
  headBytes,
  sendRequest,
  steps,
  streamReply,
  textEvents,
  textReply,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { WITHOUT_USAGE } from "../../plugins/openai/include-usage.ts";
import { splitEvents } from "../support/events.ts";
import { ask, KEY, leaveAfter, type RecordedWorld, recordedWorld } from "../support/recorded-world.ts";

// test-model's prices, times the vendor reply's tokens.
const BILL = 12 * 1_000 + 5 * 10_000;

const MESSAGES = "/v1/messages";
const CHAT = "/v1/chat/completions";

describe("recorder", () => {
  for (const [path, dialect] of [
    [MESSAGES, "anthropic-messages"],
    [CHAT, "openai-chat"],
    ["/v1/responses", "openai-responses"],
  ] as const) {
    for (const stream of [false, true]) {
      test(`bills ${dialect}${stream ? ", streamed," : ""} by the provider's own usage`, async () => {
        await using it = await recordedWorld();
        const reply = await ask(it.tokenman.proxy, path, { stream, input: "hi" }, [
          "x-tokenman-project",
          "web",
        ]);
        assert.equal(reply.status, 200);
        const row = await it.ended();
        assert.equal(row.project, "web");
        assert.equal(row.client, "test/1.0");
        assert.equal(row.dialect, dialect);
        assert.equal(row.path, path);
        assert.equal(row.model, "test-model");
        assert.equal(row.stream, stream);
        assert.equal(row.outcome, "answered");
        assert.equal(row.status, 200);
        assert.equal(row.bytesSent, reply.body.length);
        assert.equal(row.costNanoUsd, BILL);
        assert.equal(row.estimated, false);
        assert.equal(row.unpriced, false);
        const [tried, ...rest] = row.tries;
        assert.deepEqual(rest, []);
        assert.deepEqual(tried?.usage?.source, "provider");
        assert.deepEqual([tried?.usage?.inputTokens, tried?.usage?.outputTokens], [12, 5]);
        assert.deepEqual(tried?.cost, {
          input: 12_000,
          cacheRead: 0,
          cacheWrite5m: 0,
          cacheWrite1h: 0,
          output: 50_000,
          serverTools: 0,
          total: BILL,
        });
        assert.ok((tried?.durationMs ?? 0) >= (tried?.headMs ?? 1));
        assert.ok(row.timings.some(({ plugin, hook }) => plugin === "router" && hook === "request"));
        const rows = JSON.stringify(await it.ledger.read("SELECT value FROM text"));
        assert.doesNotMatch(rows, /canary/);
      });
    }
  }

  test("the row is queued before anything is sent", async () => {
    await using it = await recordedWorld();
    const began: string[] = [];
    it.ledger.watch(({ kind }) => void began.push(`${kind} after ${it.upstream.requests.length} requests`));
    await ask(it.tokenman.proxy, MESSAGES, {});
    await it.ended();
    assert.deepEqual(began, ["begin after 0 requests", "end after 1 requests"]);
  });

  test("a client that leaves: 499, the input that was told, the output counted from what came, marked", async () => {
    await using it = await recordedWorld();
    const events = textEvents("anthropic-messages", ["one two three four five six seven", " eight"]);
    it.upstream.next(
      steps(
        headBytes(200, ["content-type", "text/event-stream", "transfer-encoding", "chunked"]),
        chunkBytes(Buffer.concat(events.slice(0, 3))),
        ({ closed }) => closed,
      ),
    );
    await leaveAfter("seven", it.tokenman.proxy, MESSAGES);
    const row = await it.ended();
    assert.equal(row.outcome, "aborted");
    assert.equal(row.code, "TM_CLIENT_GONE");
    assert.equal(row.estimated, true);
    const usage = row.tries[0]?.usage;
    assert.equal(usage?.source, "estimate");
    assert.equal(usage?.inputTokens, 12);
    assert.ok(
      usage !== undefined && usage.outputTokens >= 7 && usage.outputTokens <= 12,
      `${usage?.outputTokens}`,
    );
    assert.equal(row.costNanoUsd, 12_000 + usage.outputTokens * 10_000);
  });

  test("a client that leaves before the head: the cost is not known, and never 0", async () => {
    await using it = await recordedWorld();
    const came = it.upstream.request(1);
    it.upstream.next(async ({ received, closed }) => {
      await received;
      await closed;
    });
    const abort = new AbortController();
    const reply = ask(it.tokenman.proxy, MESSAGES, {}, [], abort.signal);
    await came;
    abort.abort();
    await assert.rejects(reply);
    const row = await it.ended();
    assert.equal(row.status, 499);
    assert.equal(row.outcome, "aborted");
    assert.equal(row.costNanoUsd, undefined);
    assert.equal(row.unpriced, true);
    assert.match(row.tries[0]?.unpriced ?? "", /called off/);
  });

  test("a stream that the provider breaks off is partial, with what is known of it", async () => {
    await using it = await recordedWorld();
    const [start, ...rest] = textEvents("openai-chat", ["a b c d e f", " g"]);
    it.upstream.next(
      steps(
        headBytes(200, ["content-type", "text/event-stream", "transfer-encoding", "chunked"]),
        chunkBytes(Buffer.concat([start!, rest[0]!])),
        (call) => call.reset(),
      ),
    );
    const reply = await ask(it.tokenman.proxy, CHAT, { stream: true });
    assert.equal(reply.complete, false);
    const row = await it.ended();
    assert.equal(row.outcome, "partial");
    assert.equal(row.estimated, true);
    assert.match(row.error ?? "", /TM_UPSTREAM_CUT/);
    assert.ok((row.tries[0]?.usage?.inputTokens ?? 0) > 0, "the input is counted");
  });

  test("an error inside a stream, and one in its place: its words are kept, and cost nothing", async () => {
    await using it = await recordedWorld();
    it.upstream.next(
      wholeReply({
        status: 200,
        headers: ["content-type", "text/event-stream"],
        body: errorEvent("anthropic-messages"),
      }),
      wholeReply(errorReply("anthropic-messages", 529)),
      wholeReply({ status: 401, headers: ["content-type", "text/html"], body: `<b>bad key ${KEY}</b>` }),
    );
    await ask(it.tokenman.proxy, MESSAGES, { stream: true });
    assert.match((await it.ended()).error ?? "", /overloaded_error: the test's error event/);
    await ask(it.tokenman.proxy, MESSAGES, {});
    const refused = await it.ended();
    assert.equal(refused.outcome, "answered");
    assert.equal(refused.status, 529);
    assert.equal(refused.error, "overloaded_error: the test's 529");
    assert.equal(refused.unpriced, false);
    assert.equal(refused.costNanoUsd, undefined);
    await ask(it.tokenman.proxy, MESSAGES, {});
    const html = await it.ended();
    assert.match(html.error ?? "", /bad key \[key\]/);
    assert.deepEqual(
      (await it.ledger.page({ text: "overloaded" })).rows.map(({ status }) => status),
      [529, 200],
    );
  });

  test("TokenMan's own refusals, opaque paths and unknown prices are rows like any other", async () => {
    await using it = await recordedWorld("[server]\nmax_body_size = 1000\n");
    await ask(it.tokenman.proxy, MESSAGES, { metadata: "x".repeat(2_000) });
    const refused = await it.ended();
    assert.deepEqual([refused.outcome, refused.status, refused.code], ["refused", 413, "TM_BODY_TOO_LARGE"]);
    assert.deepEqual(refused.tries, []);
    await sendRequest(`${it.tokenman.proxy}/v1/files/file-abc1234567890/content?key=canary`, {
      headers: ["anthropic-version", "2023-06-01", "x-api-key", KEY],
    });
    const opaque = await it.ended();
    assert.deepEqual(
      [opaque.method, opaque.path, opaque.dialect, opaque.model],
      ["GET", "/v1/files/:id/content", undefined, undefined],
    );
    assert.equal(opaque.unpriced, false);
    await ask(it.tokenman.proxy, MESSAGES, { model: "mock" });
    const unpriced = await it.ended();
    assert.equal(unpriced.provider, "mock");
    assert.equal(unpriced.unpriced, true);
    assert.equal(unpriced.costNanoUsd, undefined);
    assert.ok(unpriced.outputTokens > 0);
  });

  test("bodies are kept only where the config says so, in part, and without keys", async () => {
    await using without = await recordedWorld();
    await ask(without.tokenman.proxy, MESSAGES, {});
    assert.equal((await without.ended()).bodies, undefined);
    await using it = await recordedWorld("[server]\nstore_body = true\nmax_log_body = 300\n");
    const reply = await ask(it.tokenman.proxy, MESSAGES, { note: `my key is ${KEY}`, stream: true });
    const { bodies } = await it.ended();
    assert.match(bodies?.request?.toString() ?? "", /my key is \[key\]/);
    assert.equal(bodies?.response?.toString(), reply.body.subarray(0, 300).toString());
    assert.equal(bodies?.truncated, true);
    // A key that looks like none is known by the header that it came in.
    await sendRequest(`${it.tokenman.proxy}${MESSAGES}`, {
      headers: ["content-type", "application/json", "x-api-key", "open-sesame"],
      body: '{"model":"test-model","max_tokens":9,"messages":[{"role":"user","content":"it is open-sesame"}]}',
    });
    assert.match((await it.ended()).bodies?.request?.toString() ?? "", /"it is \[key\]"/);
  });

  test("a provider's prompt cache saves, or loses, what its tokens cost against plain input", async () => {
    await using it = await recordedWorld(
      '[pricing."cached"]\ninput = 10\noutput = 10\ncache_read = 1\ncache_write_5m = 12.5\n',
    );
    const body = (usage: object) =>
      wholeReply({
        status: 200,
        headers: ["content-type", "application/json"],
        body: JSON.stringify({
          id: "m",
          type: "message",
          role: "assistant",
          model: "cached",
          content: [],
          usage: { input_tokens: 1, output_tokens: 1, ...usage },
        }),
      });
    it.upstream.next(body({ cache_creation_input_tokens: 1_000 }), body({ cache_read_input_tokens: 1_000 }));
    await ask(it.tokenman.proxy, MESSAGES, { model: "cached" });
    assert.deepEqual((await it.ended()).savings, [
      { kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: -2_500_000 },
    ]);
    await ask(it.tokenman.proxy, MESSAGES, { model: "cached" });
    assert.deepEqual((await it.ended()).savings, [
      { kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: 9_000_000 },
    ]);
  });
});

test("a reload keeps the ledger open: what was under way is ended in it, and what comes goes on", async () => {
  await using it = await recordedWorld();
  const arrived = it.upstream.request(1);
  const go = gate();
  it.upstream.next(steps(go.opened, (call) => call.reply(textReply("anthropic-messages"))));
  const reply = ask(it.tokenman.proxy, MESSAGES, {});
  await arrived;
  const { ok, error = "" } = await it.tokenman.reload("the test asks");
  assert.equal(ok, true, error);
  await ask(it.tokenman.proxy, MESSAGES, {});
  const second = await it.ended();
  go.open();
  await reply;
  const first = await it.ended();
  assert.notEqual(first.id, second.id);
  assert.deepEqual([first.outcome, second.outcome], ["answered", "answered"]);
  const [row] = await it.ledger.read<{ n: number }>("SELECT count(*) AS n FROM boot");
  assert.equal(row?.n, 1);
});

describe("include_usage", () => {
  /** A stream as OpenAI sends it to who asked for usage. */
  const ASKED = [
    'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"test-model","choices":[{"index":0,"delta":{"role":"assistant","content":"\\"usage\\":null}"},"finish_reason":null}],"usage":null}\n\n',
    'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null,"obfuscation":"abc"}\n\n',
    'data: {"id":"c","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}\n\n',
    "data: [DONE]\n\n",
  ];
  const PLAIN = [
    'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"test-model","choices":[{"index":0,"delta":{"role":"assistant","content":"\\"usage\\":null}"},"finish_reason":null}]}\n\n',
    'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"obfuscation":"abc"}\n\n',
    "data: [DONE]\n\n",
  ].join("");
  const stream = (body: string) =>
    wholeReply({ status: 200, headers: ["content-type", "text/event-stream"], body });

  test("asks for the usage of a stream whose client did not, and hides it from the client to the byte", async () => {
    await using it = await recordedWorld();
    it.upstream.next(stream(ASKED.join("")));
    const reply = await ask(it.tokenman.proxy, CHAT, { stream: true }, ["accept-encoding", "gzip"]);
    assert.equal(reply.body.toString(), PLAIN);
    const sent = it.upstream.last();
    assert.deepEqual((sent.json() as Record<string, unknown>)["stream_options"], { include_usage: true });
    assert.equal(sent.header("accept-encoding"), "identity");
    assert.equal((await it.ended()).costNanoUsd, BILL);
  });

  test("keeps the client's other stream options, and an explicit no is still hidden", async () => {
    await using it = await recordedWorld();
    for (const options of [{ include_obfuscation: false }, { include_usage: false }, null]) {
      it.upstream.next(stream(ASKED.join("")));
      const reply = await ask(it.tokenman.proxy, CHAT, { stream: true, stream_options: options });
      assert.equal(reply.body.toString(), PLAIN);
      assert.deepEqual((it.upstream.last().json() as Record<string, unknown>)["stream_options"], {
        ...options,
        include_usage: true,
      });
    }
  });

  test("leaves alone whoever asked, does not stream, pays by subscription, or has it switched off", async () => {
    await using it = await recordedWorld();
    const untouched = async (
      base: RecordedWorld,
      body: object,
      headers: readonly string[] = [],
    ): Promise<void> => {
      base.upstream.next(stream(ASKED.join("")));
      const reply = await ask(base.tokenman.proxy, CHAT, body, headers);
      assert.equal(reply.body.toString(), ASKED.join(""));
      assert.equal(base.upstream.last().header("accept-encoding"), "gzip");
    };
    const gzip = ["accept-encoding", "gzip"];
    await untouched(it, { stream: true, stream_options: { include_usage: true } }, gzip);
    await untouched(it, { stream: false }, gzip);
    await untouched(it, { stream: true }, [...gzip, "chatgpt-account-id", "acc"]);
    await using off = await recordedWorld("[openai]\ninclude_usage = false\n");
    await untouched(off, { stream: true }, gzip);
    assert.equal((off.upstream.last().json() as Record<string, unknown>)["stream_options"], undefined);
  });

  test("asks only the providers that the config names", async () => {
    await using it = await recordedWorld('[openai]\ninclude_usage = ["another"]\n');
    it.upstream.next(stream(ASKED.join("")));
    await ask(it.tokenman.proxy, CHAT, { stream: true });
    assert.equal((it.upstream.last().json() as Record<string, unknown>)["stream_options"], undefined);
  });

  test("does not ask a server again that refused the field", async () => {
    await using it = await recordedWorld();
    const refusal =
      '{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}}';
    it.upstream.next(
      wholeReply({ status: 422, headers: ["content-type", "application/json"], body: refusal }),
    );
    const reply = await ask(it.tokenman.proxy, CHAT, { stream: true });
    assert.equal(reply.status, 422);
    assert.equal(reply.body.toString(), refusal);
    await it.ended();
    it.upstream.next(stream(ASKED.join("")));
    await ask(it.tokenman.proxy, CHAT, { stream: true });
    assert.equal((it.upstream.last().json() as Record<string, unknown>)["stream_options"], undefined);
  });

  test("the transform touches nothing but top-level usage", () => {
    const pass = (text: string): string =>
      splitEvents(text)
        .map((event) => WITHOUT_USAGE.event(event))
        .flatMap((out) =>
          out === undefined ? [] : [Buffer.isBuffer(out) ? out : (out as { raw: Buffer }).raw],
        )
        .join("");
    for (const [before, after] of [
      ['data: {"usage":null,"choices":[{}]}\n\n', 'data: {"choices":[{}]}\n\n'],
      ['data: {"a":1, "usage" : null , "choices":[{}]}\r\n\r\n', undefined],
      ['data: {"choices":[{"usage":null}]}\n\n', 'data: {"choices":[{"usage":null}]}\n\n'],
      [
        'data: {"choices":[{}],"usage":{"prompt_tokens":1}}\n\n',
        'data: {"choices":[{}],"usage":{"prompt_tokens":1}}\n\n',
      ],
      [
        'data: {"choices":[],"prompt_filter_results":[],"usage":null}\n\n',
        'data: {"choices":[],"prompt_filter_results":[]}\n\n',
      ],
      [": usage\n\n", ": usage\n\n"],
      ['data: "usage" is broken,"usage":null}\n\n', undefined],
      ['data: {"usage":null}\n\n', "data: {}\n\n"],
    ] as const) {
      const out = pass(before);
      if (after !== undefined) assert.equal(out, after);
      else assert.doesNotThrow(() => out);
    }
    assert.equal(pass(streamReply("openai-chat").body!.toString()).includes('"usage"'), false);
  });
});
