import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { recordedCalls } from "../../scripts/bench/recorded-calls.ts";
import { parseSession, type SessionTurn } from "../../scripts/bench/session.ts";

/** Dollars a million tokens of claude-opus-4-5: input, output, cache read, cache write for five minutes. */
const RATES = { input: 5, output: 25, cacheRead: 0.5, cacheWrite: 6.25 };

type Step =
  | "tool"
  | "ask"
  /** Six minutes go by first. */
  | "pause"
  | "think"
  | "compact"
  /** Broken off after the usage of the input was known, and before. */
  | "cut"
  | "unsaid";

const STEPS: readonly Step[] = [
  ...Array<Step>(12).fill("tool"),
  "ask",
  "tool",
  "pause",
  "tool",
  "think",
  "tool",
  "tool",
  "unsaid",
  "ask",
  "tool",
  "compact",
  "tool",
  "cut",
  "ask",
  "tool",
];

/**
 * A session as an agent would have recorded it, made up, with the usage that a provider would have billed by the plainest
 * reading of its rules: it reads what was sent the turn before, unless that is more than five minutes ago, was
 * compacted since, or was asked with other thinking; and writes the rest. Four bytes are a token.
 */
export function syntheticSession(): SessionTurn[] {
  return parseSession(syntheticRecording(), "synthetic");
}

/** The same, as the lines of a recording. */
export function syntheticRecording(): string {
  const bare = parseSession(
    linesOf(() => undefined),
    "synthetic",
  );
  const usages = new Map<number, Record<string, unknown>>();
  let before: { readonly turn: SessionTurn; readonly tokens: number } | undefined;
  for (const { turn, body } of recordedCalls(bare, { dialect: "anthropic-messages", hints: true })) {
    const step = STEPS[turn.index]!;
    const tokens = readAnthropic(JSON.parse(body.toString("utf8"))).blocks.reduce(
      (sum, each) => sum + each.tokens,
      0,
    );
    const isWarm =
      before !== undefined &&
      step !== "pause" &&
      turn.compaction === before.turn.compaction &&
      turn.thinking === before.turn.thinking;
    const read = isWarm ? before!.tokens : 0;
    before = { turn, tokens };
    if (step === "unsaid") continue;
    usages.set(
      turn.index,
      usageOf({ input: 0, output: 40 + turn.index, cacheRead: read, cacheWrite: tokens - read }),
    );
  }
  return linesOf((index) => usages.get(index));
}

function usageOf(tokens: Record<keyof typeof RATES, number>): Record<string, unknown> {
  const total = Object.entries(RATES).reduce(
    (sum, [kind, rate]) => sum + (tokens[kind as keyof typeof RATES] * rate) / 1e6,
    0,
  );
  return { ...tokens, cost: { total } };
}

/** The recording's lines, with the usage of each call. */
function linesOf(usage: (index: number) => Record<string, unknown> | undefined): string {
  const lines: object[] = [{ type: "session", thinkingLevel: "off" }];
  let at = Date.parse("2025-12-09T00:00:00Z");
  let calls = 0;
  const add = (message: object, ms: number): void => {
    at += ms;
    lines.push({ type: "message", timestamp: new Date(at).toISOString(), message });
  };
  const text = (value: string) => [{ type: "text", text: value }];
  const ask = (words: string): void => add({ role: "user", content: text(words) }, 5_000);
  ask(`Please mend the tests. ${"They are many, and each fails in its own way. ".repeat(400)}`);
  STEPS.forEach((step, index) => {
    if (step === "pause") at += 360_000;
    if (step === "think") lines.push({ type: "thinking_level_change", thinkingLevel: "high" });
    if (step === "compact")
      lines.push({
        type: "compaction",
        summary: `Tests were mended. ${"Some are left. ".repeat(1_500)}`,
        firstKeptEntryIndex: lines.length - 2,
      });
    if (step === "compact" || step === "pause" || step === "think") ask(`Go on with part ${index}.`);
    const isCut = step === "cut" || step === "unsaid";
    const isTool = step === "tool";
    const id = `toolu_${index}`;
    const content = isTool
      ? [
          ...text(`I read part ${index}.`),
          { type: "toolCall", id, name: "read", arguments: { path: `${index}.ts` } },
        ]
      : isCut
        ? []
        : text(`Part ${index} is done.`);
    const sentAt = at + 100;
    add(
      {
        role: "assistant",
        content,
        model: "claude-opus-4-5",
        timestamp: sentAt,
        stopReason: isCut ? "aborted" : isTool ? "toolUse" : "stop",
        usage: usage(index) ?? { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, cost: { total: 0 } },
      },
      3_000,
    );
    calls++;
    if (isTool)
      add(
        {
          role: "toolResult",
          toolCallId: id,
          content: text(`export const part = ${calls};\n`.repeat(120)),
          isError: false,
        },
        500,
      );
    else ask(`Well, what about part ${index}?`);
  });
  return lines.map((line) => JSON.stringify(line)).join("\n");
}
