/**
 * Estimates each request of a recorded agent session as the tokenizer plugin does: what a turn costs the event loop and the
 * clock, and how far the estimate is from what the provider billed, learning call by call.
 * Run: node scripts/bench/session-tokens.ts SESSION.jsonl [TURNS]
 */
import { messages } from "../../plugins/anthropic/dialects.ts";
import { Corrections } from "../../plugins/tokenizer/correction.ts";
import { Counter } from "../../plugins/tokenizer/counter.ts";
import { TokenCounter } from "../../plugins/tokenizer/estimate.ts";
import { CountingPool } from "../../plugins/tokenizer/pool.ts";
import { describedExchange } from "../../test/support/described.ts";
import { anthropicRequest, readSession } from "./session.ts";

const [path, limit = "200"] = process.argv.slice(2);
if (path === undefined) throw new Error("usage: session-tokens.ts SESSION.jsonl [TURNS]");

const session = readSession(path);
const crashes: unknown[] = [];
const pool = new CountingPool({ size: 2, idleMs: 60_000, onCrash: (error) => crashes.push(error) });
const counter = new Counter(pool, 20_000);
const service = new TokenCounter(counter, new Corrections(), () => {});
const rssBefore = process.memoryUsage().rss;

interface Turn {
  readonly bytes: number;
  /** Milliseconds of the event loop: hashing and copying to the threads. Listing the segments is the kernel's. */
  readonly loopMs: number;
  readonly totalMs: number;
  /** Relative; undefined where nothing was billed. */
  readonly error: number | undefined;
}
const turns: Turn[] = [];
for (const turn of session.slice(0, Number(limit))) {
  const body = Buffer.from(anthropicRequest(session, turn.index));
  const exchange = describedExchange(messages, body);
  const start = performance.now();
  const estimating = service.estimate(exchange, turn.model);
  const loopMs = performance.now() - start;
  const { tokens, uncorrected } = await estimating;
  const totalMs = performance.now() - start;
  const { input, cacheRead, cacheWrite } = turn.usage;
  const billed = input + cacheRead + cacheWrite;
  turns.push({
    bytes: body.length,
    loopMs,
    totalMs,
    error: billed > 0 ? (tokens - billed) / billed : undefined,
  });
  if (billed > 0) service.learn(turn.model, uncorrected, billed);
}
const rssMb = (process.memoryUsage().rss - rssBefore) / 1e6;
await pool.close();

const sorted = (values: readonly number[]) => [...values].sort((left, right) => left - right);
const at = (values: readonly number[], share: number) =>
  sorted(values)[Math.min(values.length - 1, Math.floor(values.length * share))]!;
const later = turns.slice(1);
const errors = turns.slice(10).flatMap(({ error }) => (error === undefined ? [] : [Math.abs(error)]));
const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
process.stdout.write(
  [
    `first turn: ${turns[0]!.bytes} bytes, loop ${turns[0]!.loopMs.toFixed(2)} ms, done after ${turns[0]!.totalMs.toFixed(0)} ms (threads start)`,
    `later turns: loop p50 ${at(
      later.map((turn) => turn.loopMs),
      0.5,
    ).toFixed(2)} p99 ${at(
      later.map((turn) => turn.loopMs),
      0.99,
    ).toFixed(2)} ms, done after p50 ${at(
      later.map((turn) => turn.totalMs),
      0.5,
    ).toFixed(2)} p99 ${at(
      later.map((turn) => turn.totalMs),
      0.99,
    ).toFixed(1)} ms`,
    `last turn: ${turns.at(-1)!.bytes} bytes, loop ${turns.at(-1)!.loopMs.toFixed(2)} ms, done after ${turns.at(-1)!.totalMs.toFixed(2)} ms`,
    `error after ten bills: p50 ${percent(at(errors, 0.5))}, p90 ${percent(at(errors, 0.9))}; ${counter.size} counts remembered, RSS +${rssMb.toFixed(0)} MB, ${crashes.length} crashes`,
    "",
  ].join("\n"),
);
