import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FakeClock, sendRequest, streamReply, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { CHAT, SessionClient } from "../support/stream-session.ts";
import { ids, json, limits, names, turn, world } from "../support/stream-world.ts";

describe("a stream session's events", () => {
  /** A reply of 20 MB in 400 events: more than fits into what is on the way to a reader. */
  const flood = () =>
    wholeReply(
      streamReply(
        "openai-chat",
        Array.from({ length: 400 }, () => "x".repeat(50_000)),
      ),
    );

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
      upstream.next(flood());
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
      upstream.next(flood());
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
      upstream.next(flood());
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
