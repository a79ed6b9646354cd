import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeSse, headerValue, type SseEvent } from "@tokenman/plugin-sdk";
import {
  errorEvent,
  errorReply,
  FakeClock,
  gate,
  headBytes,
  providersAt,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  steps,
  streamReply,
  textEvents,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "../support/kernel.ts";
import { ANTHROPIC, CHAT, post, SessionClient } from "../support/stream-session.ts";

const limits = { timeout: 20_000 };
const STREAM_HEAD = headBytes(200, ["Content-Type", "text/event-stream", "Connection", "close"]);
const json = (event: SseEvent | undefined): Record<string, unknown> =>
  event?.json() as Record<string, unknown>;
const names = (events: readonly SseEvent[]): string[] => events.map(({ event }) => event);
const ids = (events: readonly SseEvent[]): number[] => events.map(({ id }) => Number(id));

async function world(
  use: (tokenman: Tokenman, upstream: RecordingUpstream) => Promise<void>,
  config = "",
): Promise<void> {
  await using upstream = await recordingUpstream();
  await using tokenman = await startTokenman({ config: `${config}\n${providersAt(upstream.url)}` });
  await use(tokenman, upstream);
}

/** Sends, and reads the turn's events to its end. */
async function turn(session: SessionClient, body: string | object, after?: number): Promise<SseEvent[]> {
  const reply = await session.send(body);
  assert.equal(reply.status, 202, reply.body.toString());
  const { turn: number } = JSON.parse(reply.body.toString());
  await using events = session.events(after);
  for (const all: SseEvent[] = []; ; ) {
    const event = await events.next();
    if (event === undefined) assert.fail("the events ended");
    all.push(event);
    if (/^tokenman\.turn\.(completed|failed)$/.test(event.event) && json(event)["turn"] === number)
      return all;
  }
}

describe("a stream session's requests", () => {
  const cases: readonly {
    readonly dialect: VendorDialect;
    readonly headers: readonly string[];
    readonly list: string;
    readonly reply: string;
  }[] = [
    {
      dialect: "anthropic-messages",
      headers: ANTHROPIC,
      list: "messages",
      reply: '{"role":"assistant","content":[{"type":"text","text":"Hello there."}]}',
    },
    {
      dialect: "openai-chat",
      headers: CHAT,
      list: "messages",
      reply: '{"role":"assistant","content":"Hello there."}',
    },
    {
      dialect: "openai-responses",
      headers: CHAT,
      list: "input",
      reply:
        '{"id":"msg_test","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hello there.","annotations":[]}]}',
    },
  ];
  for (const { dialect, headers, list, reply } of cases) {
    it(`are the conversation so far, in ${dialect}`, limits, async () => {
      await world(async ({ proxy }, upstream) => {
        // So that nothing is added where usage is read.
        const usage = dialect === "openai-chat" ? '"stream_options":{"include_usage":true},' : "";
        const template = `{"dialect":"${dialect}", "model": "m-1",${usage}"temperature": 1.0,"seed":12345678901234567890,"x":{"__proto__":[ ]}}`;
        const session = await SessionClient.create(`${proxy}/v1`, headers, template);
        await turn(session, '{"content":"caf\\u00e9 1.0"}');
        const head = `{"model":"m-1",${usage}"temperature":1.0,"seed":12345678901234567890,"x":{"__proto__":[ ]}`;
        const first = `${head},"${list}":[{"role":"user","content":"caf\\u00e9 1.0"}`;
        assert.equal((await upstream.request(1)).body.toString(), `${first}],"stream":true}`);
        const events = await turn(session, '{"role": "user","content":[{"type":"text","text":"more"}]}');
        const second = `${first},${reply},{"role": "user","content":[{"type":"text","text":"more"}]}`;
        assert.equal((await upstream.request(2)).body.toString(), `${second}],"stream":true}`);
        assert.deepEqual(
          ids(events),
          events.map((_, index) => index + 1),
        );
      });
    });
  }

  it(
    "take the creator's headers, project and session along, and are rows of the ledger",
    limits,
    async () => {
      await world(async ({ proxy, dashboard }, upstream) => {
        const headers = [
          "X-Api-Key",
          "sk-ant-api-mine",
          "anthropic-version",
          "2023-06-01",
          "anthropic-beta",
          "a,b",
        ];
        const session = await SessionClient.create(`${proxy}/p/mine`, headers, { model: "m", max_tokens: 9 });
        const sent = await session.send({ content: "hi" }, ["X-Api-Key", "sk-ant-api-mine"]);
        const { request_id: id } = JSON.parse(sent.body.toString());
        await using events = session.events();
        const completed = (await events.until("tokenman.turn.completed")).at(-1);
        assert.equal(json(completed)["request_id"], id);
        const request = await upstream.request(1);
        assert.equal(request.target, "/v1/messages");
        assert.equal(request.header("anthropic-beta"), "a,b");
        assert.equal(request.header("x-api-key"), "sk-ant-api-mine");
        assert.equal(request.header("x-tokenman-project"), undefined);
        const more = json((await turn(session, { content: "more" })).at(-1));
        const rows: string[] = [];
        for (const each of [id, more["request_id"]]) {
          let row: Response;
          // Rows are gathered before they are written.
          do row = await fetch(`${dashboard}/api/requests/${each}`);
          while (row.status === 404);
          rows.push(await row.text());
        }
        const names = rows.map((row) => /"session":"([^"]+)"/.exec(row)?.[1]);
        assert.ok(names[0] !== undefined && names[0] === names[1], "both are of one conversation");
        for (const row of rows) {
          assert.match(row, /"project":"mine"/);
          // The id may be all that guards a session.
          assert.equal(row.includes(session.id), false);
        }
      });
    },
  );

  it("are the conversation as it is where it is only to be continued", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const opening = { role: "user", content: "hi" };
      const session = await SessionClient.create(proxy, ANTHROPIC, { model: "m", messages: [opening] });
      await turn(session, { continue: true });
      assert.deepEqual((await upstream.request(1)).json(), { model: "m", messages: [opening], stream: true });
      const empty = await SessionClient.create(proxy, ANTHROPIC, { model: "m" });
      assert.equal((await empty.send({ continue: true })).status, 400);
    });
  });

  it("answer from the mock without a key or a network", limits, async () => {
    for (const headers of [CHAT, ANTHROPIC]) {
      await using tokenman = await startTokenman();
      const session = await SessionClient.create(`${tokenman.proxy}/v1`, headers, {
        model: "mock",
        max_tokens: 99,
      });
      for (const text of ["one", "two"]) {
        const events = await turn(session, { content: text });
        assert.equal(events.at(-1)?.event, "tokenman.turn.completed");
      }
    }
  });
});

describe("what a stream session keeps of a reply", () => {
  it("is each block as it came: signatures, inputs, citations, spellings", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const data = (text: string): string => `event: ${JSON.parse(text).type}\ndata: ${text}\n\n`;
      const start = (index: number, block: string): string =>
        data(`{"type":"content_block_start","index":${index},"content_block":${block}}`);
      const delta = (index: number, part: string): string =>
        data(`{"type":"content_block_delta","index":${index},"delta":${part}}`);
      const stream = [
        data('{"type":"message_start","message":{"role":"assistant","content":[]}}'),
        start(0, '{"type":"thinking","thinking":"","signature":""}'),
        delta(0, '{"type":"thinking_delta","thinking":"a\\u00e9\\ud83d"}'),
        delta(0, '{"type":"thinking_delta","thinking":"\\ude00\\n"}'),
        delta(0, '{"type":"signature_delta","signature":"sig+/=="}'),
        data('{"type":"content_block_stop","index":0}'),
        start(1, '{"type":"redacted_thinking","data":"zz","n":1.0}'),
        start(2, '{"type":"text","text":"","citations":[]}'),
        delta(2, '{"type":"text_delta","text":"\\"quoted\\""}'),
        delta(2, '{"type":"citations_delta","citation":{"type":"c","at":1.50}}'),
        start(3, '{"type":"text","text":""}'),
        start(4, '{"type":"tool_use","id":"t1","name":"f","input":{}}'),
        delta(4, '{"type":"input_json_delta","partial_json":"{\\"n\\": 12345678901234567890,"}'),
        delta(4, '{"type":"input_json_delta","partial_json":" \\"x\\": 1.0}"}'),
        start(5, '{"type":"tool_use","id":"t2","name":"g","input":{}}'),
        delta(5, '{"type":"input_json_delta","partial_json":""}'),
        data('{"type":"message_delta","delta":{"stop_reason":"tool_use"}}'),
        data('{"type":"message_stop"}'),
      ];
      upstream.next(steps(STREAM_HEAD, stream.join(""), (call) => call.end()));
      const session = await SessionClient.create(proxy, ANTHROPIC, { model: "m" });
      const events = await turn(session, { content: "hi" });
      // The provider's events, byte for byte behind their numbers.
      const passed = events.slice(1, -1).map(({ raw }) => raw.toString().replace(/^id: \d+\n/, ""));
      assert.equal(passed.join(""), stream.join(""));
      await turn(session, { content: [{ type: "tool_result", tool_use_id: "t1", content: "ok" }] });
      const blocks = [
        '{"type":"thinking","thinking":"a\\u00e9\\ud83d\\ude00\\n","signature":"sig+/=="}',
        '{"type":"redacted_thinking","data":"zz","n":1.0}',
        '{"type":"text","text":"\\"quoted\\"","citations":[{"type":"c","at":1.50}]}',
        '{"type":"tool_use","id":"t1","name":"f","input":{"n": 12345678901234567890, "x": 1.0}}',
        '{"type":"tool_use","id":"t2","name":"g","input":{}}',
      ];
      const kept = `{"role":"assistant","content":[${blocks.join(",")}]}`;
      assert.ok((await upstream.request(2)).body.includes(kept), upstream.last().body.toString());
    });
  });

  it("is each tool call of a chat, with what only one vendor has", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const chunk = (delta: string): string => `data: {"choices":[{"index":0,"delta":${delta}}]}\n\n`;
      const stream = [
        chunk('{"role":"assistant","content":null}'),
        'data: {"choices":[{"index":1,"delta":{"content":"another"}}]}\n\n',
        chunk(
          '{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}',
        ),
        chunk('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":"}}]}'),
        chunk('{"tool_calls":[{"index":0,"function":{"arguments":" 1.0}"}}]}'),
        chunk(
          '{"tool_calls":[{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"},"extra_content":{"sig":"x"}}]}',
        ),
        "data: [DONE]\n\n",
      ];
      upstream.next(steps(STREAM_HEAD, stream.join(""), (call) => call.end()));
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await turn(session, { content: "hi" });
      await turn(session, { messages: [{ role: "tool", tool_call_id: "c1", content: "ok" }] });
      const kept =
        '{"role":"assistant","content":null,"tool_calls":[' +
        '{"type":"function","id":"c1","function":{"name":"f","arguments":"{\\"a\\": 1.0}"}},' +
        '{"type":"function","id":"c2","extra_content":{"sig":"x"},"function":{"name":"g","arguments":"{}"}}]}';
      assert.ok((await upstream.request(2)).body.includes(kept), upstream.last().body.toString());
    });
  });

  it("is nothing where it broke, failed, or cannot be put together", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const events = textEvents("anthropic-messages");
      const some = Buffer.concat(events.slice(0, 3));
      const block = encodeSse({
        event: "content_block_delta",
        data: '{"type":"content_block_delta","index":0,"delta":{"type":"new_delta","x":1}}',
      });
      const stop = events.at(-1)!;
      upstream.next(
        steps(STREAM_HEAD, some, (call) => call.end()),
        steps(STREAM_HEAD, some, (call) => call.reset()),
        steps(STREAM_HEAD, events[0]!, some, errorEvent("anthropic-messages"), (call) => call.end()),
        steps(STREAM_HEAD, some, block, stop, (call) => call.end()),
        wholeReply(errorReply("anthropic-messages", 400)),
        wholeReply({ status: 500, headers: ["Content-Type", "text/html"], body: "<p>no" }),
        wholeReply({ status: 200, headers: ["Content-Type", "application/json"], body: "{}" }),
      );
      const session = await SessionClient.create(proxy, ANTHROPIC, { model: "m" });
      let after = 0;
      const codes: unknown[] = [];
      for (let count = 0; count < 7; count++) {
        const seen = await turn(session, { content: "hi" }, after);
        after = ids(seen).at(-1)!;
        assert.equal(seen.at(-1)?.event, "tokenman.turn.failed");
        codes.push(json(seen.at(-1))["code"]);
        const errors = seen.filter(({ event }) => event === "error");
        assert.equal(errors.length, 1, names(seen).join());
        assert.equal(json(errors[0])["type"], "error");
      }
      assert.deepEqual(codes, [
        "TM_UPSTREAM_CUT",
        "TM_UPSTREAM_CUT",
        "overloaded_error",
        "TM_SESSION_REPLY",
        "invalid_request_error",
        "status_500",
        "TM_SESSION_REPLY",
      ]);
      const last = await turn(session, { content: "well?" }, after);
      assert.equal(last.at(-1)?.event, "tokenman.turn.completed");
      const { messages } = upstream.last().json() as { messages: unknown };
      assert.deepEqual(messages, [{ role: "user", content: "well?" }]);
    });
  });
});

describe("a stream session's events", () => {
  it("resume behind any of them, and go to each reader", limits, async () => {
    await world(async ({ proxy }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using early = session.events();
      const all = await turn(session, { content: "hi" });
      assert.deepEqual(
        (await early.until("tokenman.turn.completed")).map(({ raw }) => raw.toString()),
        all.map(({ raw }) => raw.toString()),
      );
      for (let after = 0; after < all.length; after++) {
        await using late = session.events(after);
        const seen = await late.until("tokenman.turn.completed");
        assert.deepEqual(ids(seen), ids(all).slice(after));
      }
      for (const wrong of [all.length + 1, "x", "-1", "1e1"]) {
        await using refused = session.events(wrong);
        assert.equal(await refused.status(), 400);
      }
    });
  });

  it("that are too old are told to be missing", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const texts = Array.from({ length: 100 }, (_, index) => `${index} `.repeat(50));
      upstream.next(wholeReply(streamReply("openai-chat", texts)));
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      const sent = await session.send({ content: "hi" });
      assert.equal(sent.status, 202);
      // Without readers the newest push the oldest out; the turn's end is when sending is possible again.
      while ((await session.send({ content: "again" })).status === 409) await new Promise(setImmediate);
      await using late = session.events(1);
      const seen = await late.until("tokenman.turn.completed");
      assert.equal(seen[0]?.event, "tokenman.gap");
      const { missed_from: from, missed_to: to } = json(seen[0]) as {
        missed_from: number;
        missed_to: number;
      };
      assert.equal(from, 2);
      assert.equal(Number(seen[1]?.id), to + 1);
      assert.equal(seen[0]?.id, undefined);
    }, "[stream_sessions]\nreplay_bytes = 8192\n");
  });

  it("wait for a slow reader, who misses none", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const count = 400;
      const text = "x".repeat(50_000);
      upstream.next(
        wholeReply(
          streamReply(
            "openai-chat",
            Array.from({ length: count }, () => text),
          ),
        ),
      );
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using slow = session.events();
      await slow.status();
      await slow.pause();
      await session.send({ content: "hi" });
      await upstream.request(1);
      // As long as nobody reads on, the reply cannot come to its end: 20 MB do not fit into what is on the way.
      assert.equal((await session.send({ content: "more" })).status, 409);
      await slow.resume();
      const seen = await slow.until("tokenman.turn.completed");
      assert.deepEqual(
        ids(seen),
        seen.map((_, index) => index + 1),
      );
      assert.equal(names(seen).includes("tokenman.gap"), false);
    }, "[stream_sessions]\nreplay_bytes = 65536\n");
  });

  it("give a reader up that takes nothing for server.write_timeout, and go on", limits, async () => {
    using clock = new FakeClock();
    await world(async ({ proxy }, upstream) => {
      upstream.next(
        wholeReply(
          streamReply(
            "openai-chat",
            Array.from({ length: 400 }, () => "x".repeat(50_000)),
          ),
        ),
      );
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using stuck = session.events();
      await stuck.status();
      await stuck.pause();
      await session.send({ content: "hi" });
      let sent = await session.send({ content: "more" });
      for (; sent.status === 409; sent = await session.send({ content: "more" })) await clock.advance(5_000);
      assert.equal(sent.status, 202);
      await using again = session.events();
      await again.until("tokenman.turn.completed");
    }, "[server]\nwrite_timeout = 20\n[stream_sessions]\nreplay_bytes = 65536\n");
  });

  it("show that their connection lives", limits, async () => {
    using clock = new FakeClock();
    await world(async ({ proxy }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using reader = session.events();
      await reader.status();
      await clock.advance(15_000);
      assert.equal(await reader.comment(), "keep-alive");
    });
  });

  it("have a head of their own", limits, async () => {
    await world(async ({ proxy }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      const reply = await sendRequest(`${proxy}/stream/${session.id}/events`, {
        method: "HEAD",
        headers: CHAT,
      });
      assert.equal(reply.status, 200);
      assert.ok(reply.headers.includes("text/event-stream; charset=utf-8"));
    });
  });

  it("are not held up by one of several readers who does not read", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      upstream.next(
        wholeReply(
          streamReply(
            "openai-chat",
            Array.from({ length: 400 }, () => "x".repeat(50_000)),
          ),
        ),
      );
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using stuck = session.events();
      await stuck.status();
      await stuck.pause();
      await using quick = session.events();
      await quick.status();
      await session.send({ content: "hi" });
      const seen = await quick.until("tokenman.turn.completed");
      assert.equal(names(seen).includes("tokenman.gap"), false);
      await stuck.resume();
      assert.ok(names(await stuck.until("tokenman.turn.completed")).includes("tokenman.gap"));
    }, "[stream_sessions]\nreplay_bytes = 65536\n");
  });
});

describe("a turn of a stream session", () => {
  /** A provider that begins to answer and then waits; `closed` opens when it is called off. */
  function hanging() {
    const closed = gate();
    const go = gate();
    const script = steps(
      STREAM_HEAD,
      textEvents("openai-chat")[0]!,
      (call) => void call.closed.then(() => closed.open()),
      go.opened,
      Buffer.concat(textEvents("openai-chat").slice(1)),
      (call) => call.end(),
    );
    return { closed, go, script };
  }

  it("goes on when its reader leaves, and refuses another meanwhile", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const { go, script } = hanging();
      upstream.next(script);
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await session.send({ content: "hi" });
      const reader = session.events();
      await reader.until("message");
      reader.close();
      const busy = await session.send({ content: "more" });
      assert.equal(busy.status, 409);
      assert.equal(JSON.parse(busy.body.toString()).error.code, "TM_SESSION_BUSY");
      go.open();
      await using again = session.events();
      await again.until("tokenman.turn.completed");
    });
  });

  it("ends with its last reader where the config says so", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const { closed, script } = hanging();
      upstream.next(script);
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await session.send({ content: "hi" });
      const reader = session.events();
      await reader.until("message");
      reader.close();
      await closed.opened;
      await using again = session.events();
      assert.equal(json((await again.until("tokenman.turn.failed")).at(-1))["code"], "interrupted");
    }, "[stream_sessions]\ncancel_unread = true\n");
  });

  it("is interrupted, and the session lives on", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const { closed, script } = hanging();
      upstream.next(script);
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      assert.equal(JSON.parse((await session.delete("/turn")).body.toString()).interrupted, false);
      await session.send({ content: "hi" });
      await using reader = session.events();
      await reader.until("message");
      assert.equal(JSON.parse((await session.delete("/turn")).body.toString()).interrupted, true);
      await closed.opened;
      await reader.until("tokenman.turn.failed");
      await session.send({ content: "again" });
      await reader.until("tokenman.turn.completed");
      const { messages } = upstream.last().json() as { messages: unknown };
      assert.deepEqual(messages, [{ role: "user", content: "again" }]);
    });
  });

  it("is called off at once when its session is deleted", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const { closed, script } = hanging();
      upstream.next(script);
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await session.send({ content: "hi" });
      await using reader = session.events();
      await reader.until("message");
      assert.equal((await session.delete()).status, 200);
      await closed.opened;
      const rest = await reader.rest();
      assert.deepEqual(names(rest), ["tokenman.closed"]);
      assert.equal(json(rest[0])["reason"], "deleted");
      assert.equal((await session.send({ content: "more" })).status, 404);
    });
  });
});

describe("stream sessions", () => {
  it("are their creator's alone: any other sees what an unknown one shows", limits, async () => {
    await world(async ({ proxy }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      const shown = async (headers: readonly string[], id: string): Promise<string[]> => {
        const url = `${proxy}/v1/stream/${id}`;
        const replies = [
          await post(`${url}/send`, headers, { content: "hi" }),
          await session.delete("", headers),
          await session.delete("/turn", headers),
        ];
        const plain = (body: Buffer): string => body.toString().replace(/"request_id":"[^"]*"/, "");
        return replies.map(({ status, body }) => `${status} ${plain(body)}`);
      };
      for (const headers of [["Authorization", "Bearer sk-other"], [], ["X-Api-Key", "sk-mine2"]]) {
        const theirs = await shown(headers, session.id);
        assert.deepEqual(theirs, await shown(headers, "sess_unknown"));
        assert.ok(theirs.every((each) => each.startsWith("404 ") && each.includes("error")));
        await using events = session.events(undefined, headers);
        assert.equal(await events.status(), 404);
      }
      const anthropic = await post(`${proxy}/stream/x/send`, ANTHROPIC, { content: "hi" });
      assert.equal(JSON.parse(anthropic.body.toString()).type, "error");
      assert.equal((await session.send({ content: "hi" })).status, 202);
    });
  });

  it("are nobody's business but TokenMan's: a wrong method or id goes to no provider", limits, async () => {
    await world(async ({ proxy, dashboard }, upstream) => {
      for (const [method, path, allow] of [
        ["PUT", "/v1/stream/x", "DELETE"],
        ["GET", "/stream/x/send", "POST"],
        ["POST", "/p/mine/v1/stream/x/events", "GET, HEAD"],
        ["GET", "/v1/stream/create", "POST, DELETE"],
        ["OPTIONS", "/v1/stream/x/turn", "DELETE"],
        ["POST", "/health", "GET, HEAD"],
      ] as const) {
        const refused = await sendRequest(`${proxy}${path}`, { method, headers: CHAT });
        assert.deepEqual([refused.status, headerValue(refused.headers, "allow")], [405, allow], path);
        assert.match(refused.body.toString(), /TM_METHOD_NOT_ALLOWED/);
      }
      const own = await sendRequest(`${dashboard}/health`, { method: "DELETE" });
      assert.deepEqual([own.status, headerValue(own.headers, "allow")], [405, "GET, HEAD"]);
      assert.equal((await post(`${proxy}/v1/stream/%zz/send`, CHAT, { content: "hi" })).status, 404);
      assert.equal(upstream.requests.length, 0);
    });
  });

  it("are refused where the request makes no sense", limits, async () => {
    await world(async ({ proxy }) => {
      for (const body of [
        "",
        "[]",
        "{",
        "{}",
        '{"model":1}',
        '{"model":"m","messages":{}}',
        '{"model":"m","x":tru}',
      ]) {
        const reply = await post(`${proxy}/v1/stream/create`, CHAT, body);
        assert.equal(reply.status, 400, body);
        assert.equal(JSON.parse(reply.body.toString()).error.code, "TM_BAD_REQUEST", body);
      }
      const dialect = await post(`${proxy}/v1/stream/create`, CHAT, { model: "m", dialect: "gemini" });
      assert.equal(dialect.status, 400);
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      for (const body of [
        "",
        "{}",
        '{"content":1}',
        '{"messages":[]}',
        '{"messages":["x"]}',
        '{"content":"x"',
        "null",
      ])
        assert.equal((await session.send(body)).status, 400, body);
    });
  });

  it("are bounded in number and size", limits, async () => {
    await world(async ({ proxy }) => {
      const first = await SessionClient.create(proxy, CHAT, { model: "m" });
      await SessionClient.create(proxy, CHAT, { model: "m" });
      const refused = await post(`${proxy}/v1/stream/create`, ANTHROPIC, { model: "m" });
      assert.equal(refused.status, 429);
      assert.equal(JSON.parse(refused.body.toString()).type, "error");
      assert.ok(refused.headers.includes("Retry-After"));
      const large = await first.send({ content: "x".repeat(995) });
      assert.equal(large.status, 413);
      await first.delete();
      await SessionClient.create(proxy, CHAT, { model: "m" });
    }, "[server]\nmax_stream_sessions = 2\nmax_body_size = 1024\n");
  });

  it("expire when nobody uses them, and make room", limits, async () => {
    using clock = new FakeClock();
    await world(async ({ proxy }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await clock.advance(59_000);
      assert.equal((await session.delete("/turn")).status, 200);
      const reader = session.events();
      await reader.status();
      await clock.advance(120_000);
      assert.equal((await session.delete("/turn")).status, 200, "one that is read does not expire");
      reader.close();
      while ((await post(`${proxy}/stream/create`, CHAT, { model: "m" })).status === 429)
        await clock.advance(20_000);
      assert.equal((await session.send({ content: "hi" })).status, 404);
    }, "[server]\nmax_stream_sessions = 1\nsession_ttl = 60\n");
  });

  it("need TokenMan's token where it is on, and never take it along", limits, async () => {
    await using upstream = await recordingUpstream();
    const config = `[auth]\nenabled = true\nproxy = true\ntoken = "own-token"\n${providersAt(upstream.url, { auth: "none" })}`;
    await using tokenman = await startTokenman({ config });
    const refused = await post(`${tokenman.proxy}/stream/create`, CHAT, { model: "m" });
    assert.equal(refused.status, 401);
    const headers = ["Authorization", "Bearer own-token", "X-Tokenman-Token", "own-token"];
    const session = await SessionClient.create(tokenman.proxy, headers, { model: "m" });
    assert.equal((await turn(session, { content: "hi" })).at(-1)?.event, "tokenman.turn.completed");
    assert.equal((await upstream.request(1)).head.includes("own-token"), false);
  });

  it("are told when to come back by what refuses their turn", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      const [, events] = [await turn(session, { content: "hi" }), await turn(session, { content: "again" })];
      const failed = json(events.at(-1));
      assert.equal(failed["code"], "TM_RATE_LIMITED");
      assert.equal(failed["status"], 429);
      assert.ok(Number(failed["retry_after"]) >= 1);
      assert.equal(upstream.requests.length, 1);
    }, "[security.rate_limit]\nenabled = true\ndefault_rate = 0.001\ndefault_burst = 1\n");
  });

  it("outlive a reload, with their readers and what is under way", limits, async () => {
    await world(async ({ proxy, reload }, upstream) => {
      const go = gate();
      const events = textEvents("openai-chat");
      upstream.next(
        steps(STREAM_HEAD, events[0]!, go.opened, Buffer.concat(events.slice(1)), (call) => call.end()),
      );
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await session.send({ content: "hi" });
      await using reader = session.events();
      await reader.until("message");
      assert.equal((await reload("test")).ok, true);
      go.open();
      const rest = await reader.rest();
      assert.equal(rest.at(-1)?.event, "tokenman.turn.completed");
      const more = await turn(session, { content: "more" }, Number(rest.at(-1)?.id));
      assert.equal(more.at(-1)?.event, "tokenman.turn.completed");
      assert.equal((upstream.last().json() as { messages: unknown[] }).messages.length, 3);
    });
  });

  it("are told of a shutdown: at once where idle, else when their reply has ended", limits, async () => {
    await world(async ({ proxy, kernel }, upstream) => {
      const go = gate();
      const events = textEvents("openai-chat");
      upstream.next(
        steps(STREAM_HEAD, events[0]!, go.opened, Buffer.concat(events.slice(1)), (call) => call.end()),
      );
      const busy = await SessionClient.create(proxy, CHAT, { model: "m" });
      const idle = await SessionClient.create(proxy, CHAT, { model: "m" });
      await busy.send({ content: "hi" });
      await using busyReader = busy.events();
      await busyReader.until("message");
      await using idleReader = idle.events();
      await idleReader.status();
      const ending = kernel.shutdown({ drainMs: 15_000, reason: "test" });
      assert.deepEqual((await idleReader.rest()).map(json), [{ reason: "shutdown" }]);
      go.open();
      const rest = await busyReader.rest();
      assert.deepEqual(names(rest).slice(-2), ["tokenman.turn.completed", "tokenman.closed"]);
      await ending;
    });
  });

  it("do not hold a process that another one takes over from", limits, async () => {
    await world(async ({ proxy, kernel }) => {
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await using reader = session.events();
      await reader.status();
      const leaving = kernel.leave({ drainMs: 600_000, reason: "test" });
      assert.deepEqual((await reader.rest()).map(json), [{ reason: "shutdown" }]);
      await leaving;
    });
  });

  it("are broken off visibly when the drain is over", limits, async () => {
    await world(async ({ proxy, kernel }, upstream) => {
      upstream.next(steps(STREAM_HEAD, textEvents("openai-chat")[0]!, (call) => call.closed));
      const session = await SessionClient.create(proxy, CHAT, { model: "m" });
      await session.send({ content: "hi" });
      await using reader = session.events();
      await reader.until("message");
      await kernel.shutdown({ drainMs: 0, reason: "test" });
      assert.equal(names(await reader.rest()).includes("tokenman.turn.completed"), false);
    });
  });
});
