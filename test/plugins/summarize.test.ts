import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Rewrite, savingsOf } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual,
  assertPrefixStable,
  conversations,
  errorReply,
  gate,
  Random,
  type RecordedRequest,
  rewriteProblems,
  steps,
  textReply,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { ANTHROPIC, OPENAI } from "../support/client-heads.ts";
import {
  AGENT,
  body,
  inWorld,
  LONG,
  limits,
  MINUTE_MS,
  SUMMARY,
  summary,
} from "../support/summarize-world.ts";

const user = (text: string) => ({ role: "user", content: [{ type: "text", text }] });
const turn = (index: number): object[] => [
  user(`question ${index}`),
  {
    role: "assistant",
    content: [{ type: "tool_use", id: `toolu_${index}`, name: "read", input: { path: "a.ts" } }],
  },
  { role: "user", content: [{ type: "tool_result", tool_use_id: `toolu_${index}`, content: LONG }] },
  { role: "assistant", content: [{ type: "text", text: `answer ${index}` }] },
];
/** `count` turns of four messages, the last one of a question alone. */
const chat = (count: number): object[] => [
  ...Array.from({ length: count - 1 }, (_, index) => turn(index)).flat(),
  user(`question ${count - 1}`),
];
const cutAt = (messages: readonly object[], at: number): object[] => [
  messages[0]!,
  summary,
  ...messages.slice(4 * at),
];
const WARM = { input_tokens: 5, cache_read_input_tokens: 9_000, cache_creation_input_tokens: 90 };

describe("a summary", () => {
  it("is asked for beside the request, sent from the next turn on, and paid for", limits, async () => {
    await inWorld(async (world) => {
      for (const turns of [2, 3, 4]) {
        const sent = body(chat(turns));
        assertBytesEqual((await world.send(sent)).out, sent);
      }
      await world.summaries(1);
      assert.equal(world.own.length, 1, "more than twelve messages");
      const [own] = world.own as [RecordedRequest];
      assert.equal(own.header("x-api-key"), "sk-ant-api03-test");
      assert.equal(own.target, "/v1/messages");
      assert.equal(own.header("x-tokenman-nocompress"), undefined);
      const asked = own.json() as { model: string; max_tokens: number; messages: [{ content: string }] };
      assert.deepEqual([asked.model, asked.max_tokens, asked.messages.length], ["claude-opus-4-5", 100, 1]);
      const transcript = asked.messages[0].content;
      assert.ok(transcript.includes("## Result of read"), transcript);
      assert.ok(transcript.includes("## User\n\nquestion 1"), transcript);
      assert.ok(!transcript.includes("question 0"), "the opening stays, and is not summarised");
      assert.ok(!transcript.includes("question 2"));
      assert.ok(transcript.length < 5_000, "long results are shortened");
      assert.deepEqual(await world.metric("tokenman_summaries_total", "failed"), 0);
      const five = await world.send(body(chat(5)));
      assertBytesEqual(five.out, body(cutAt(chat(5), 2)));
      const [{ newTokens, knownTokens, breaksPrefix, spentNanoUsd }] = five.rewrites as [Rewrite];
      assert.equal(breaksPrefix, true);
      assert.ok(newTokens < 0 && newTokens > -30, String(newTokens));
      assert.ok(knownTokens > 1_000, String(knownTokens));
      // 12 tokens of input and 5 of output were billed, at $5 and $25 a million.
      assert.equal(spentNanoUsd, 12 * 5_000 + 5 * 25_000);
      assert.ok(
        savingsOf(five.exchange).some(({ plugin, nanoUsd }) => plugin === "summarize" && nanoUsd! > 0),
      );
      const six = await world.send(body(chat(6)));
      assertBytesEqual(six.out, body(cutAt(chat(6), 2)));
      assert.deepEqual(six.rewrites, [
        { plugin: "summarize", newTokens: 0, knownTokens: knownTokens + newTokens },
      ]);
      // Its call is an exchange of its own in the ledger, of the same session.
      for (let rows = ""; !rows.includes(AGENT); )
        rows = await (await fetch(`${world.tokenman.dashboard}/api/requests?session=s`)).text();
    });
  });

  it("takes the one before it in, when the conversation has grown again", limits, async () => {
    await inWorld(async (world) => {
      for (let turns = 2; turns <= 4; turns++) await world.send(body(chat(turns)));
      await world.summaries(1);
      for (let turns = 5; turns <= 5; turns++) await world.send(body(chat(turns)));
      await world.send(body(chat(6)));
      await world.summaries(2);
      assert.equal(world.own.length, 2);
      assert.ok(JSON.stringify(world.own[1]!.json()).includes(SUMMARY));
      assert.ok(!JSON.stringify(world.own[1]!.json()).includes("question 1"), "that is in the first summary");
      assertBytesEqual((await world.send(body(chat(7)))).out, body(cutAt(chat(7), 4)));
    });
  });

  it("is waited for by no request, and is missed by none that fails", limits, async () => {
    await inWorld(async (world) => {
      const late = gate();
      const { upstream } = world;
      for (let turns = 2; turns <= 3; turns++) await world.send(body(chat(turns)));
      // The turn itself, and then the call for the summary, which takes its time.
      upstream.next(
        wholeReply(textReply("anthropic-messages")),
        steps(late.opened, (call) => call.reply(textReply("anthropic-messages", SUMMARY))),
      );
      await world.send(body(chat(4)));
      while (world.own.length === 0) await upstream.arrival(upstream.requests.length + 1);
      for (const turns of [5, 6]) {
        const sent = body(chat(turns));
        assertBytesEqual((await world.send(sent)).out, sent);
      }
      assert.equal(world.own.length, 1, "one at a time");
      late.open();
      await world.summaries(1);
      const { out } = await world.send(body(chat(7)));
      assertBytesEqual(out, body(cutAt(chat(7), 2)));
    });
  });

  it("that fails leaves the conversation whole, and is not asked for again soon", limits, async () => {
    await inWorld(async (world) => {
      const { upstream } = world;
      for (const [index, reply] of [
        errorReply("anthropic-messages", 500),
        { status: 200, headers: ["Content-Type", "application/json"], body: "secret words" },
        textReply("anthropic-messages", "  "),
        {
          status: 200,
          headers: ["Content-Type", "application/json"],
          body: '{"content":[{"type":"thinking"}]}',
        },
      ].entries()) {
        const name = (messages: object[]): string => body([user(`chat ${index}`), ...messages.slice(1)]);
        await world.send(name(chat(3)));
        upstream.next(wholeReply(textReply("anthropic-messages")), wholeReply(reply));
        await world.send(name(chat(4)));
        await world.summaries(index + 1, "failed");
        const before = world.own.length;
        const sent = name(chat(5));
        assertBytesEqual((await world.send(sent)).out, sent);
        assert.equal(world.own.length, before);
      }
      assert.ok(world.tokenman.log.some(({ message }) => message?.includes("was not summarised")));
      assert.ok(!JSON.stringify(world.tokenman.log).includes("secret words"), "nothing of a reply is logged");
    });
  });

  it(
    "is not made while it would cost more than it saves, and made for those who come back again and again",
    limits,
    async () => {
      await inWorld(async (world) => {
        world.usage = WARM;
        // What is kept is long: it would have to be written to the cache anew.
        const late = (count: number): object[] => [...chat(count).slice(0, -1), user(LONG.repeat(6))];
        for (let turns = 2; turns <= 6; turns++) {
          const sent = body(late(turns));
          assertBytesEqual((await world.send(sent)).out, sent);
          world.at += MINUTE_MS;
        }
        assert.equal(world.own.length, 0);
        assert.ok((await world.metric("tokenman_summary_requests_total", "dear")) > 0);
        // Two pauses in which the cache ends: there will be a third.
        for (const turns of [7, 8]) {
          world.at += 10 * MINUTE_MS;
          await world.send(body(late(turns)));
        }
        world.at += MINUTE_MS;
        await world.send(body(late(9)));
        await world.summaries(1);
        const asked = JSON.stringify(world.own[0]!.json());
        const at = [...asked.matchAll(/question (\d+)/g)].length + 1;
        world.at += MINUTE_MS;
        const warm = body(late(10));
        assertBytesEqual((await world.send(warm)).out, warm, "the cache is warm, and it does not pay");
        world.at += 10 * MINUTE_MS;
        assertBytesEqual((await world.send(body(late(11)))).out, body(cutAt(late(11), at)));
      }, "max_messages = 12\nsummary_max_tokens = 300");
    },
  );

  it("stays over a reload; over a restart only where it may be written down", limits, async () => {
    for (const keeps of [false, true]) {
      await inWorld(async (world) => {
        for (let turns = 2; turns <= 4; turns++) await world.send(body(chat(turns)));
        await world.summaries(1);
        assertBytesEqual((await world.send(body(chat(5)))).out, body(cutAt(chat(5), 2)));
        assert.equal((await world.tokenman.reload("test")).ok, true);
        assertBytesEqual((await world.send(body(chat(5)))).out, body(cutAt(chat(5), 2)));
        await world.tokenman.stop();
        await world.start();
        const { out } = await world.send(body(chat(5)));
        assertBytesEqual(out, body(keeps ? cutAt(chat(5), 2) : chat(5)));
      }, `max_messages = 12\nsummary_max_tokens = 100\nkeep_summaries = ${keeps}`);
    }
  });

  it(
    "is none for a subscription, for whoever asks for none, nor for polling and what other plugins cut",
    limits,
    async () => {
      await inWorld(async (world) => {
        for (const more of [
          ["x-tokenman-nocompress", "true"],
          ["anthropic-beta", "oauth-2025-04-20"],
        ])
          for (const turns of [4, 5, 6]) {
            const sent = body(chat(turns));
            assertBytesEqual((await world.send(sent, { headers: [...ANTHROPIC, ...more] })).out, sent);
          }
        assert.equal(world.own.length, 0);
      });
      await inWorld(async (world) => {
        await world.tokenman.stop();
        await world.start(`${world.config}\n[compression.history]\nenabled = true\nwindow_size = 1`, true);
        for (const turns of [4, 5, 6]) await world.send(body(chat(turns)));
        assert.equal(world.own.length, 0);
        assert.ok((await world.metric("tokenman_summary_requests_total", "cut")) > 0);
      });
      await inWorld(async (world) => {
        await world.tokenman.stop();
        await world.start(
          `${world.config}\n[compression.heartbeat]\nenabled = true\nheartbeat_model = "claude-haiku-4-5"\npatterns = ["question *"]`,
          true,
        );
        for (const turns of [4, 5, 6]) await world.send(body(chat(turns)));
        assert.equal(world.own.length, 0);
      });
    },
  );

  it("works on Chat and Responses, with the model that is named for it", limits, async () => {
    await inWorld(async (world) => {
      const messages = (count: number): object[] => [
        { role: "system", content: "You help." },
        ...Array.from({ length: count - 1 }, (_, index) => [
          { role: "user", content: `question ${index}` },
          { role: "assistant", content: `answer ${index}: ${LONG}` },
        ]).flat(),
        { role: "user", content: "the last one" },
      ];
      const sent = (list: object[]) => JSON.stringify({ model: "gpt-5.6", messages: list });
      const options = { path: "/v1/chat/completions", headers: OPENAI };
      let found = 0;
      for (let turns = 2; turns < 40 && found === 0; turns++) {
        world.at += 61 * MINUTE_MS;
        const { out } = await world.send(sent(messages(turns)), options);
        if (!String(out).includes(SUMMARY)) {
          await world.idle();
          continue;
        }
        found = turns;
        assert.deepEqual(rewriteProblems("openai-chat", Buffer.from(sent(messages(turns))), out), []);
        const { messages: list } = JSON.parse(String(out)) as { messages: object[] };
        assert.deepEqual(list.slice(0, 3), [...messages(turns).slice(0, 2), summary]);
      }
      assert.ok(found > 0);
      const [own] = world.own.slice(-1) as [RecordedRequest];
      assert.deepEqual(Object.keys(own.json() as object), ["model", "max_completion_tokens", "messages"]);
      assert.equal((own.json() as { model: string }).model, "gpt-5.6-mini");
      const input = (count: number): object[] =>
        messages(count)
          .slice(1)
          .map((message) => ({ type: "message", ...message }));
      const asked = (list: object[]) => JSON.stringify({ model: "gpt-5.6", input: list });
      for (let turns = 2; turns < 40; turns++) {
        world.at += 61 * MINUTE_MS;
        const { out } = await world.send(asked(input(turns)), { path: "/v1/responses", headers: OPENAI });
        await world.idle();
        if (!String(out).includes(SUMMARY)) continue;
        assert.deepEqual(rewriteProblems("openai-responses", Buffer.from(asked(input(turns))), out), []);
        const { input: list } = JSON.parse(String(out)) as { input: object[] };
        assert.deepEqual(list[1], { type: "message", ...summary });
        return;
      }
      assert.fail("no summary on Responses");
    }, 'max_messages = 8\nsummary_max_tokens = 100\nsummary_model = "gpt-5.6-mini"');
  });
});

describe("the prefix of random conversations", () => {
  it(
    "stays the same but at the summaries that are noted, over a reload and a restart, in every dialect",
    limits,
    async () => {
      const text = LONG.slice(0, 4_000);
      let cuts = 0;
      let repeated = 0;
      await inWorld(async (world) => {
        for (const turns of conversations(9, {
          turns: 14,
          seed: 3,
          texts: [text, "and then?", text, "go on"],
        })) {
          const { dialect } = turns[0]!;
          const random = new Random(turns[0]!.body.length);
          const session = `s-${random.below(1e9)}`;
          let isCut = false;
          await assertPrefixStable(
            turns,
            async ({ number, path, body: sent }) => {
              if (number === 9) assert.equal((await world.tokenman.reload("test")).ok, true);
              if (number === 13) {
                await world.tokenman.stop();
                await world.start();
              }
              world.at += random.pick([MINUTE_MS / 2, MINUTE_MS, 90 * MINUTE_MS]);
              const headers = [
                ...(dialect === "anthropic-messages" ? ANTHROPIC : OPENAI).slice(0, -1),
                session,
              ];
              const { out, rewrites } = await world.send(sent, { path, headers });
              await world.idle();
              isCut = rewrites.some(({ breaksPrefix }) => breaksPrefix === true);
              if (isCut) cuts++;
              else if (rewrites.some(({ knownTokens }) => knownTokens > 0)) repeated++;
              assert.deepEqual(rewriteProblems(dialect, sent, out), []);
              return out;
            },
            () => isCut,
          );
        }
      }, "max_messages = 8\nsummary_max_tokens = 60\nkeep_summaries = true");
      assert.ok(cuts > 8 && repeated > 20, `${cuts} cuts, ${repeated} repeated`);
    },
  );
});

describe("odd requests", () => {
  it("pass untouched, and never are a failure", limits, async () => {
    await inWorld(async (world) => {
      const padding = { metadata: { padding: "x".repeat(5_000) } };
      const odd = (...extra: unknown[]): object => ({
        ...padding,
        model: "claude-opus-4-5",
        messages: [...chat(4).slice(0, 8), ...extra, ...chat(6).slice(8)],
      });
      const many = Array.from({ length: 10_001 }, (_, index) => ({
        role: index % 2 ? "assistant" : "user",
        content: index % 2 ? "m" : "",
      }));
      const bodies: unknown[] = [
        Buffer.from(`not json ${"{".repeat(5_000)}`),
        Buffer.from(`{"messages": [{"role":"user","content":"${"x".repeat(5_000)}`),
        { ...padding, messages: [] },
        { ...padding, messages: [null, 1, "x", []] },
        odd({ role: "wizard", content: LONG }),
        odd({ role: "user", content: "" }, { role: "assistant", content: [] }),
        odd({ role: "assistant", content: [{ type: "hologram", text: LONG }] }),
        odd(turn(77)[1]),
        odd(turn(77)[2]),
        odd(null, 7, "text", []),
        { model: "claude-opus-4-5", max_tokens: 1, messages: many },
      ];
      for (const each of bodies) {
        const sent = Buffer.isBuffer(each) ? each : Buffer.from(JSON.stringify(each));
        for (let round = 0; round < 2; round++) assertBytesEqual((await world.send(sent)).out, sent);
      }
      assert.equal(world.own.length, 0);
      assert.ok((await world.metric("tokenman_summary_requests_total", "unreadable")) > 0);
    });
  });
});
