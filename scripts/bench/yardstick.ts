/**
 * The yardstick of all savings: a recorded session replayed as it was, and what the simulated provider read from and wrote
 * to its prompt cache beside what the real one had.
 * Run: node scripts/bench/yardstick.ts SESSION.jsonl
 */
import { bytesPerToken, inputTokens, recordedCalls, restartsOf } from "./recorded-calls.ts";
import { readSession, type SessionTurn } from "./session.ts";
import { type CallUsage, MIN_TOKENS, simulate } from "./simulated.ts";

export interface CacheTotals {
  readonly read: number;
  readonly write: number;
}

export interface Yardstick {
  readonly simulated: CacheTotals;
  readonly recorded: CacheTotals;
  /** Turns at which one of the two read a part of the prompt from its cache that the other did not. */
  readonly different: readonly Difference[];
  /** Turns at which the client's prompt began anew for a reason that is not in the recording. */
  readonly restarts: readonly number[];
}

export interface Difference {
  readonly index: number;
  readonly simulated: CacheTotals;
  readonly recorded: CacheTotals;
  readonly because: string;
}

/** Of the prompt. Less than that is the difference between a rule for tokens and a tokenizer. */
const NOTABLE_SHARE = 0.05;

/** Compares with what was billed; calls whose usage never came are left out of both sides. */
export function compareWithRecording(
  turns: readonly SessionTurn[],
  usages: readonly Omit<CallUsage, "output">[],
): Yardstick {
  const simulated = { read: 0, write: 0 };
  const recorded = { read: 0, write: 0 };
  const different: Difference[] = [];
  for (const { index, input, read, write5m, write1h } of usages) {
    const turn = turns[index]!;
    if (inputTokens(turn) === 0) continue;
    const own = { read, write: write5m + write1h };
    const real = { read: turn.usage.cacheRead, write: turn.usage.cacheWrite };
    add(simulated, own);
    add(recorded, real);
    const share = own.read / (input + own.read + own.write) - real.read / inputTokens(turn);
    if (Math.abs(share) > NOTABLE_SHARE)
      different.push({ index, simulated: own, recorded: real, because: reasonFor(turns, index, own, real) });
  }
  return { simulated, recorded, different, restarts: [...restartsOf(turns)] };
}

function add(sum: { read: number; write: number }, { read, write }: CacheTotals): void {
  sum.read += read;
  sum.write += write;
}

function reasonFor(
  turns: readonly SessionTurn[],
  index: number,
  own: CacheTotals,
  real: CacheTotals,
): string {
  const before = turns[index - 1];
  if (before !== undefined && inputTokens(before) === 0) {
    return own.read > real.read
      ? "the call before was broken off: here it reached the provider's cache, there it had not"
      : "the call before was broken off: there it had reached the provider's cache";
  }
  return own.read > real.read ? "the provider's cache had lost it" : "the provider's cache still had it";
}

/** The relative difference, 0.01 being 1 % more than recorded. */
export function deviation(simulated: number, recorded: number): number {
  return recorded === 0 ? (simulated === 0 ? 0 : Number.POSITIVE_INFINITY) : simulated / recorded - 1;
}

export function renderYardstick({ simulated, recorded, different, restarts }: Yardstick): string {
  const line = (what: string, own: number, real: number) =>
    `${what}: simulated ${own}, recorded ${real}, ${signed(deviation(own, real))}`;
  return [
    line("cache reads", simulated.read, recorded.read),
    line("cache writes", simulated.write, recorded.write),
    ...(restarts.length > 0
      ? [
          `the client's own prompt changed (not in the recording, inferred from its usage) at turns ${restarts.join(", ")}`,
        ]
      : []),
    ...different.map(
      ({ index, simulated: own, recorded: real, because }) =>
        `turn ${index}: read ${own.read}, recorded ${real.read}: ${because}`,
    ),
    "",
  ].join("\n");
}

function signed(share: number): string {
  return `${share >= 0 ? "+" : ""}${(share * 100).toFixed(2)} %`;
}

if (import.meta.main) {
  const [path] = process.argv.slice(2);
  if (path === undefined) throw new Error("usage: yardstick.ts SESSION.jsonl");
  const turns = readSession(path);
  const dialect = "anthropic-messages";
  const rules = { bytesPerToken: bytesPerToken(turns), minTokens: MIN_TOKENS[dialect] };
  const compared = (restarts: boolean): Yardstick =>
    compareWithRecording(
      turns,
      simulate(recordedCalls(turns, { dialect, hints: true, restarts }), dialect, rules),
    );
  process.stdout.write(
    `${renderYardstick(compared(true))}\nwithout what was inferred:\n${renderYardstick(compared(false))}`,
  );
}
