/**
 * `node scripts/bench/fill-ledger.ts FILE [COUNT] [DAYS]`: makes a ledger of COUNT requests (1 million) spread over the
 * last DAYS (30), through the writer that TokenMan itself uses.
 */
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import type { LedgerAttempt, LedgerBegin, LedgerEnd } from "@tokenman/plugin-sdk";
import { RowReceiver } from "../../plugins/store/received-rows.ts";
import { RowPacker } from "../../plugins/store/row-packer.ts";
import { Writer } from "../../plugins/store/writer.ts";

const DAY_MS = 86_400_000;
const GROUP = 5_000;
const PROJECTS = 20;
const MODELS: readonly (readonly [model: string, provider: string])[] = [
  ["claude-sonnet-4-5", "anthropic"],
  ["claude-opus-4-1", "anthropic"],
  ["claude-haiku-4-5", "anthropic"],
  ["gpt-5.1", "openai"],
  ["gpt-5-mini", "openai"],
  ["llama-4-70b", "local"],
];
const ERRORS: readonly (readonly [status: number, text: string])[] = [
  [429, "rate_limit_error: This request would exceed your account's rate limit"],
  [529, "overloaded_error: Overloaded"],
  [400, "invalid_request_error: messages.14: tool_use ids were found without tool_result blocks"],
  [502, "TM_UPSTREAM_CONNECT: The provider could not be reached"],
];
const TIMED = ["recorder", "cache", "pii", "injection", "budget", "dedup", "rules", "router"] as const;

/** A request as it might have been, the same for the same number but for its id. */
export function madeUp(number: number, at: number): { readonly begin: LedgerBegin; readonly end: LedgerEnd } {
  // A generator of one multiplication is random enough for figures.
  const dice = (number * 2_654_435_761) % 4_294_967_296;
  const pick = <T>(list: readonly T[], salt: number): T => list[Math.floor(dice / salt) % list.length]!;
  const [model, provider] = pick(MODELS, 7);
  const isFailure = dice % 20 === 0;
  const [status, error] = isFailure ? pick(ERRORS, 11) : [200, undefined];
  const id = randomBytes(16);
  id.writeUIntBE(at, 0, 6);
  id[6] = (id[6]! & 0x0f) | 0x70;
  const exchangeId = id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  const usage = {
    source: "provider",
    inputTokens: dice % 900,
    cacheReadTokens: dice % 150_000,
    cacheWrite5mTokens: dice % 4_000,
    cacheWrite1hTokens: 0,
    outputTokens: dice % 2_000,
    reasoningTokens: 0,
    serverTools: {},
    serviceTier: "standard",
    model,
    complete: true,
  } as const;
  const cost = {
    input: usage.inputTokens * 3_000,
    cacheRead: usage.cacheReadTokens * 300,
    cacheWrite5m: usage.cacheWrite5mTokens * 3_750,
    cacheWrite1h: 0,
    output: usage.outputTokens * 15_000,
    serverTools: 0,
  };
  const total = Object.values(cost).reduce((sum, part) => sum + part, 0);
  const durationMs = 500 + (dice % 40_000) / 2;
  const attempt: LedgerAttempt = {
    number: 1,
    at: at + 2,
    provider,
    model,
    result: { kind: "reply", status, body: "complete" },
    headMs: 300 + (dice % 900),
    firstByteMs: 310 + (dice % 900),
    durationMs,
    usage: isFailure ? undefined : usage,
    cost: isFailure ? undefined : { ...cost, total },
    estimated: false,
    unpriced: undefined,
  };
  return {
    begin: {
      exchangeId,
      at,
      project: `project-${Math.floor(dice / 13) % PROJECTS}`,
      session: `session-${Math.floor(number / 40)}`,
      client: "claude-cli/2.1.330 (external, cli)",
      method: "POST",
      path: "/v1/messages",
      dialect: "anthropic-messages",
      model,
      stream: true,
    },
    end: {
      exchangeId,
      at: at + durationMs,
      outcome: {
        kind: "answered",
        status,
        origin: "provider",
        code: undefined,
        message: undefined,
        bytesSent: 2_000 + (dice % 90_000),
        durationMs,
        firstByteMs: 320 + (dice % 900),
      },
      provider,
      cache: "MISS",
      attempts: [attempt],
      savings: isFailure
        ? []
        : [{ kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: usage.cacheReadTokens * 2_700 }],
      timings: TIMED.flatMap((plugin) =>
        (["request", "response"] as const).map((hook) => ({
          plugin,
          hook,
          durationMs: (dice % 300) / 1_000,
        })),
      ),
      bodies: undefined,
      error,
    },
  };
}

export function fillLedger(
  file: string,
  count: number,
  days: number,
  say: (line: string) => void = () => {},
): void {
  const writer = new Writer({
    file,
    bootId: "fill",
    synchronous: "normal",
    retention: { days: 0, bodyDays: 0 },
    tell: (message) => {
      if (message.kind === "log") throw new Error(`${message.message} ${JSON.stringify(message.facts)}`);
    },
  });
  writer.open();
  const now = Date.now();
  const packer = new RowPacker();
  const receiver = new RowReceiver();
  const began = performance.now();
  for (let number = 0; number < count; number++) {
    const { begin, end } = madeUp(number, Math.floor(now - (1 - number / count) * days * DAY_MS));
    packer.end({ ...end, mark: packer.begin(begin) });
    if (packer.count < GROUP && number + 1 < count) continue;
    writer.take([receiver.receive(packer.take()!, [])]);
    writer.commit();
    if ((number + 1) % (40 * GROUP) === 0)
      say(
        `${number + 1} requests, ${Math.round((number + 1) / ((performance.now() - began) / 1_000))} a second`,
      );
  }
  writer.close();
}

if (import.meta.main) {
  const [file, count = "1000000", days = "30"] = process.argv.slice(2);
  if (file === undefined) throw new Error("which file?");
  fillLedger(file, Number(count), Number(days), (line) => console.log(line));
  const { size } = statSync(file);
  console.log(`${(size / 2 ** 20).toFixed(0)} MiB, ${Math.round(size / Number(count))} bytes a request`);
}
