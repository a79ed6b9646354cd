import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeSse } from "@tokenman/plugin-sdk";
import {
  errorEvent,
  errorReply,
  gate,
  type RecordingUpstream,
  steps,
  textEvents,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman } from "../support/kernel.ts";
import { ANTHROPIC, CHAT, SessionClient } from "../support/stream-session.ts";
import { ids, json, limits, names, STREAM_HEAD, turn, world } from "../support/stream-world.ts";

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
  /** A turn that a provider has begun to answer, and a reader who has seen as much. */
  async function begun(proxy: string, upstream: RecordingUpstream) {
    const { closed, go, script } = hanging();
    upstream.next(script);
    const session = await SessionClient.create(proxy, CHAT, { model: "m" });
    await session.send({ content: "hi" });
    const reader = session.events();
    await reader.until("message");
    return { closed, go, session, reader };
  }

  it("goes on when its reader leaves, and refuses another meanwhile", limits, async () => {
    await world(async ({ proxy }, upstream) => {
      const { go, session, reader } = await begun(proxy, upstream);
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
      const { closed, session, reader } = await begun(proxy, upstream);
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
      const { closed, session, ...begins } = await begun(proxy, upstream);
      await using reader = begins.reader;
      assert.equal((await session.delete()).status, 200);
      await closed.opened;
      const rest = await reader.rest();
      assert.deepEqual(names(rest), ["tokenman.closed"]);
      assert.equal(json(rest[0])["reason"], "deleted");
      assert.equal((await session.send({ content: "more" })).status, 404);
    });
  });
});
