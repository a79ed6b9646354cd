import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import {
  chunkBytes,
  errorEvent,
  errorReply,
  faults,
  gate,
  headBytes,
  type Script,
  steps,
  streamReply,
  textEvents,
  textReply,
  type VendorDialect,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { type Farm, type Seen, startFarm, told } from "../support/farm.ts";
import { SDKS, type Sdk } from "../support/sdks.ts";

const TEXT = "Hello there.";
const SSE = ["Content-Type", "text/event-stream"];
const CHUNKED = [...SSE, "Transfer-Encoding", "chunked"];
const JSON_TYPE = ["Content-Type", "application/json"];
const MODELS = { anthropic: "claude-sonnet-4-5", openai: "gpt-4o" } as const;

/** One fault of one kind of client, and everything that must come of it. */
interface Case {
  /** The row of the list of faults that it is about. */
  readonly row: number;
  readonly what: string;
  readonly how: "stream" | "whole" | "both";
  /** Where it does not happen in every dialect. */
  readonly only?: readonly VendorDialect[];
  /** What the first provider does, one after the other; then it answers. */
  first(dialect: VendorDialect): readonly Script[];
  /** The same of the second one. */
  second?(dialect: VendorDialect): readonly Script[];
  /** May be sent a second time within the first attempt. */
  readonly resent?: true;
  /** A provider of the farm's that has no spare one. */
  readonly alone?: "tls" | "dns" | "idle";
  readonly sees: Seen | ((seen: Seen) => void);
  /** The attempts as the ledger tells them. */
  readonly attempts: readonly (string | RegExp)[];
  readonly outcome: string;
}

const texts = (dialect: VendorDialect) => Buffer.concat(textEvents(dialect, ["Hello", " there."]));
/** Up to the second of the two texts. */
const half = (dialect: VendorDialect) => {
  const reply = streamReply(dialect, ["Hello", " there."]);
  return { reply, at: texts(dialect).indexOf(" there.") };
};
const spendCap: Readonly<Record<VendorDialect, string>> = {
  "anthropic-messages":
    '{"type":"error","error":{"type":"rate_limit_error","message":"capped","details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"r"}',
  "openai-chat":
    '{"error":{"message":"capped","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
  "openai-responses":
    '{"error":{"message":"capped","type":"insufficient_quota","param":null,"code":"credit_balance_exhausted"}}',
};
const HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>";
const CODINGS = { gzip: gzipSync, br: brotliCompressSync, zstd: zstdCompressSync } as const;
const limited = (...headers: readonly string[]): Script => faults.status(429, { headers });
const times = (count: number, script: Script): Script[] => Array.from({ length: count }, () => script);
/** The events, written as `spelled`, in pieces of so many bytes. */
const spelled = (change: (text: string) => string, piece: number) => (dialect: VendorDialect) => {
  const bytes = Buffer.from(change(texts(dialect).toString("utf8")));
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += piece) pieces.push(chunkBytes(bytes.subarray(at, at + piece)));
  return [steps(headBytes(200, CHUNKED), ...pieces, chunkBytes(""))];
};
const PAID = ["it 200 paid"];
const ANSWERED = { sees: { text: TEXT }, attempts: PAID, outcome: "answered 200" } as const;

const CASES: readonly Case[] = [
  {
    row: 1,
    what: "a reset in the middle of a stream",
    how: "stream",
    first: (dialect) => [faults.cutAfter(half(dialect).at, { reply: half(dialect).reply })],
    sees: { broken: "Hello" },
    attempts: ["it 200 upstream-cut estimated"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 1,
    what: "a reset in the middle of a reply",
    how: "whole",
    first: (dialect) => [faults.cutAfter(40, { reply: textReply(dialect) })],
    sees: (seen) => assert.ok("broken" in seen),
    attempts: ["it 200 upstream-cut unknown"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 2,
    what: "a clean end without the last event",
    how: "stream",
    // What the client makes of it is its own affair: it gets what there was, cleanly ended.
    first: () => [faults.endsEarly()],
    sees: (seen) => assert.ok(("text" in seen && seen.text === TEXT) || "broken" in seen),
    attempts: ["it 200 estimated"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 3,
    what: "a stream that falls silent",
    how: "stream",
    alone: "idle",
    first: (dialect) => [faults.stallAfter(half(dialect).at, { reply: half(dialect).reply })],
    sees: { broken: "Hello" },
    attempts: ["it-idle 200 upstream-cut estimated"],
    outcome: "partial 200 TM_UPSTREAM_IDLE",
  },
  ...(Object.keys(CODINGS) as (keyof typeof CODINGS)[]).flatMap((coding): Case[] =>
    (["stream", "whole"] as const).map((how) => ({
      row: 4,
      what: `a reply coded as ${coding}`,
      how,
      first: (dialect) => {
        const { body, headers = [] } = how === "stream" ? streamReply(dialect) : textReply(dialect);
        const coded = CODINGS[coding](body as Buffer | string);
        return [wholeReply({ status: 200, headers: [...headers, "Content-Encoding", coding], body: coded })];
      },
      ...ANSWERED,
    })),
  ),
  {
    row: 5,
    what: "events in pieces of a byte",
    how: "stream",
    first: spelled((text) => text, 1),
    ...ANSWERED,
  },
  {
    row: 5,
    what: "events with a mark at the beginning, comments, and lines that end in CRLF",
    how: "stream",
    first: spelled((text) => `\uFEFF: hello\r\n\r\n${text.replaceAll("\n", "\r\n")}`, 7),
    ...ANSWERED,
  },
  {
    row: 6,
    what: "an error after the first events of a stream",
    how: "stream",
    first: () => [faults.eventError({ after: 4 })],
    sees: (seen) => assert.ok(!("text" in seen), "the SDK throws"),
    attempts: ["it 200 estimated"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 6,
    what: "an overload as the first event of a stream",
    how: "stream",
    first: () => [faults.eventError()],
    sees: { text: TEXT },
    attempts: ["it 200 aborted free", "it-spare 200 paid"],
    outcome: "answered 200",
  },
  {
    row: 6,
    what: "a server's error as the first event of a stream",
    how: "stream",
    first: (dialect) => [
      faults.eventError({ type: dialect === "anthropic-messages" ? "api_error" : "server_error" }),
    ],
    sees: { text: TEXT },
    attempts: ["it 200 aborted free", "it-spare 200 paid"],
    outcome: "answered 200",
  },
  {
    row: 6,
    what: "a failed response as the first event of a stream",
    how: "stream",
    only: ["openai-responses"],
    first: () => [
      wholeReply({
        status: 200,
        headers: SSE,
        body: 'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}\n\n',
      }),
    ],
    sees: { text: TEXT },
    attempts: ["it 200 aborted free", "it-spare 200 paid"],
    outcome: "answered 200",
  },
  {
    row: 6,
    what: "a refusal as the first event of a stream",
    how: "stream",
    first: (dialect) => [
      wholeReply({ status: 200, headers: SSE, body: errorEvent(dialect, "invalid_request_error") }),
    ],
    sees: (seen) => assert.ok(!("text" in seen), "it is the client's"),
    attempts: ["it 200 free"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 7,
    what: "an error after a ping: what went to the client stays",
    how: "stream",
    first: (dialect) => {
      const ping = dialect === "anthropic-messages" ? 'event: ping\ndata: {"type":"ping"}\n\n' : ": ping\n\n";
      return [
        wholeReply({
          status: 200,
          headers: SSE,
          body: Buffer.concat([Buffer.from(ping), errorEvent(dialect)]),
        }),
      ];
    },
    sees: (seen) => assert.ok(!("text" in seen)),
    attempts: ["it 200 free"],
    outcome: "partial 200 TM_UPSTREAM_CUT",
  },
  {
    row: 8,
    what: "an answer before the request has come whole",
    how: "both",
    first: (dialect) => [(call) => call.reply(errorReply(dialect, 413))],
    sees: (seen) => assert.equal((seen as { status: number }).status, 413),
    attempts: ["it 413 free"],
    outcome: "answered 413",
  },
  {
    row: 8,
    what: "a reply of the 100s before the answer",
    how: "whole",
    first: (dialect) => [
      steps("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", (call) => call.reply(textReply(dialect))),
    ],
    ...ANSWERED,
  },
  {
    row: 9,
    what: "a redirect: relayed, and not followed",
    how: "both",
    first: () => [faults.redirect("http://127.0.0.1:9/elsewhere")],
    sees: (seen) => assert.equal((seen as { status: number }).status, 307),
    attempts: ["it 307 free"],
    outcome: "answered 307",
  },
  {
    row: 11,
    what: "an answer that broke off in its head is asked for once",
    how: "both",
    first: () => [steps("HTTP/1.1 200 OK\r\nContent-Ty", (call) => call.end())],
    sees: (seen) => assert.equal((seen as { status: number }).status, 502),
    attempts: ["it CUT unknown"],
    outcome: "refused 502 TM_UPSTREAM_CUT",
  },
  {
    row: 12,
    what: "a limit, told in milliseconds, as a date in the past, and absurdly",
    how: "both",
    first: () => [limited("retry-after-ms", "1"), limited("Retry-After", "9".repeat(30))],
    second: () => times(2, limited("Retry-After", "Mon, 01 Jan 2024 00:00:00 GMT")),
    sees: (seen) => assert.equal((seen as { status: number }).status, 429),
    attempts: ["it 429 free", "it-spare 429 free", /^it(?:-spare)? 429 free$/],
    outcome: "answered 429",
  },
  {
    row: 12,
    what: "a spent quota",
    how: "both",
    first: (dialect) => [faults.status(429, { headers: JSON_TYPE, body: spendCap[dialect] })],
    sees: (seen) => {
      assert.equal((seen as { status: number }).status, 429);
      assert.match((seen as { message: string }).message, /capped/);
    },
    attempts: ["it 429 free"],
    outcome: "answered 429",
  },
  {
    row: 13,
    what: "an error that is no JSON",
    how: "both",
    first: () => times(2, faults.status(502, { headers: ["Content-Type", "text/html"], body: HTML })),
    second: () => times(2, faults.status(502, { headers: ["Content-Type", "text/html"], body: HTML })),
    sees: (seen) => {
      assert.equal((seen as { status: number }).status, 502);
      assert.match((seen as { message: string }).message, /<h1>502 Bad Gateway/);
    },
    attempts: ["it 502 free", "it-spare 502 free", /^it(?:-spare)? 502 free$/],
    outcome: "answered 502",
  },
  ...[500, 503, 504, 529].map(
    (status): Case => ({
      row: 14,
      what: `a ${status}`,
      how: "both",
      first: () => [faults.status(status)],
      sees: { text: TEXT },
      attempts: [`it ${status} free`, "it-spare 200 paid"],
      outcome: "answered 200",
    }),
  ),
  {
    row: 14,
    what: "a reset before the first byte",
    how: "both",
    // A connection that had been used before is replaced once, within the attempt.
    first: () => times(2, faults.close()),
    resent: true,
    sees: { text: TEXT },
    attempts: ["it RESET unknown", "it-spare 200 paid"],
    outcome: "answered 200",
  },
  {
    row: 14,
    what: "something that is not HTTP, which is an answer that had begun",
    how: "both",
    first: () => [faults.notHttp()],
    sees: (seen) => assert.equal((seen as { status: number }).status, 502),
    attempts: ["it PROTOCOL unknown"],
    outcome: "refused 502 TM_UPSTREAM_PROTOCOL",
  },
  {
    row: 15,
    what: "a certificate that nobody trusts: once",
    how: "both",
    alone: "tls",
    first: () => [],
    sees: (seen) => assert.equal((seen as { status: number }).status, 502),
    attempts: ["it-tls TLS free"],
    outcome: "refused 502 TM_UPSTREAM_TLS",
  },
  {
    row: 15,
    what: "a name that does not resolve: again each time",
    how: "both",
    alone: "dns",
    first: () => [],
    sees: (seen) => assert.equal((seen as { status: number }).status, 502),
    attempts: Array(3).fill("it-dns CONNECT free"),
    outcome: "refused 502 TM_UPSTREAM_CONNECT",
  },
];

for (const [name, sdk] of Object.entries(SDKS)) {
  describe(`${name} before a farm of faulty providers`, () => {
    let farm: Farm;
    before(async () => {
      farm = await startFarm();
    });
    after(() => farm[Symbol.asyncDispose]());

    for (const each of CASES) {
      if (each.only !== undefined && !each.only.includes(sdk.dialect)) continue;
      const ways = { stream: [true], whole: [false], both: [true, false] }[each.how];
      for (const streamed of ways)
        it(
          `fault ${each.row}: ${each.what}${each.how === "both" && streamed ? ", streamed" : ""}`,
          {
            timeout: 10_000,
          },
          () => meet(farm, sdk, each, streamed),
        );
    }

    it("fault 10: a reset of a connection that had been used before", { timeout: 10_000 }, async () => {
      farm.play([wholeReply(textReply(sdk.dialect)), faults.reset()]);
      const before = farm.first.requests.length;
      const model = MODELS[sdk.provider];
      for (let request = 0; request < 2; request++) {
        assert.deepEqual(await farm.see(sdk, false, { model }), { text: TEXT });
        assert.deepEqual((await farm.recorded()).tries.map(told), PAID, "it is one attempt");
      }
      const [, broken, fresh] = farm.first.requests.slice(before);
      assert.deepEqual(broken?.body, fresh?.body);
      assert.notEqual(broken?.connection, fresh?.connection);
    });

    it("fault 16: a call that is silent for long", { timeout: 10_000 }, async () => {
      const long = gate();
      farm.play([faults.slowHead(long.opened)]);
      const number = farm.first.requests.length + 1;
      const seen = farm.see(sdk, false, { model: MODELS[sdk.provider] });
      await farm.first.request(number);
      long.open();
      assert.deepEqual(await seen, { text: TEXT });
      assert.deepEqual((await farm.recorded()).tries.map(told), PAID);
    });
  });
}

/** Asks once, and compares what the client and the ledger say with what they should. */
async function meet(farm: Farm, sdk: Sdk, { alone, ...each }: Case, streamed: boolean): Promise<void> {
  const { dialect, provider } = sdk;
  farm.play(each.first(dialect), each.second?.(dialect));
  const sent = farm.first.requests.length + farm.second.requests.length;
  const model = alone === undefined ? MODELS[provider] : `${provider}-${alone}`;
  const seen = await farm.see(sdk, streamed, { model });
  const record = await farm.recorded();
  if (typeof each.sees === "function") each.sees(seen);
  else assert.deepEqual(seen, each.sees);
  // An error is worded as the client's vendor would: TokenMan's own with its code, where the shape has a place for it.
  if ("status" in seen && !seen.message.includes("<html>") && seen.status >= 400) {
    assert.ok(typeof seen.type === "string" && seen.type.length > 0, "it has a type");
    if (record.outcome === "refused") assert.equal(seen.code, record.code);
  }
  const tries = record.tries.map(told);
  // Which of two providers may be asked again first is a matter of chance.
  const expected = each.attempts.map((attempt, index) =>
    attempt instanceof RegExp && attempt.test(tries[index] ?? "") ? tries[index] : attempt,
  );
  assert.deepEqual(tries, expected);
  const { outcome, status, code, stream, dialect: spoken } = record;
  const words = [outcome, status, code].filter((word) => word !== undefined);
  assert.equal(words.join(" "), each.outcome);
  assert.deepEqual([stream, spoken], [streamed, dialect]);
  const reached = farm.first.requests.length + farm.second.requests.length - sent;
  const wanted = alone === "tls" || alone === "dns" ? 0 : each.attempts.length;
  if (each.resent === true) assert.ok(reached - wanted === 0 || reached - wanted === 1);
  else assert.equal(reached, wanted, "sent once an attempt");
  // The bill is the sum of the attempts whose cost is known.
  const costs = record.tries.flatMap(({ cost }) => (cost === undefined ? [] : [cost.total]));
  assert.equal(
    record.costNanoUsd,
    costs.length === 0 ? undefined : costs.reduce((sum, cost) => sum + cost, 0),
  );
}
