import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { headerValue } from "@tokenman/plugin-sdk";
import {
  FakeClock,
  gate,
  providersAt,
  recordingUpstream,
  sendRequest,
  steps,
  textEvents,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman } from "../support/kernel.ts";
import { ANTHROPIC, CHAT, post, SessionClient } from "../support/stream-session.ts";
import { json, limits, names, STREAM_HEAD, turn, world } from "../support/stream-world.ts";

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
