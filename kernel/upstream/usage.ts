import type { Dialect, ReplyObserver } from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import type { KernelReply } from "../reply/reply.ts";

/** Follows the reply's body for its usage, where somebody asked for it; else nothing is parsed. */
export function followUsage(exchange: ExchangeState, attempt: AttemptState, reply: KernelReply): void {
  const { dialect } = exchange;
  if (dialect === undefined || !exchange.usageTracked) return;
  try {
    reply.observe(usageObserver(dialect, attempt, reply));
  } catch {
    // A dialect is a plugin's: where it fails the usage is not known, and the client has its reply all the same.
  }
}

function usageObserver(dialect: Dialect, attempt: AttemptState, reply: KernelReply): ReplyObserver {
  const reader = dialect.usageReader();
  attempt.reader = reader;
  if (reply.streaming) {
    attempt.terminal = false;
    let hasBegun = false;
    return {
      event(event) {
        reader.event(event);
        if (attempt.terminal === true) return;
        const verdict = dialect.judgeEvent(event);
        if (verdict.kind === "content") hasBegun = true;
        else if (verdict.kind === "terminal") attempt.terminal = true;
        else if (verdict.kind === "error") {
          attempt.streamError ??= verdict;
          if (!hasBegun) attempt.failedFirst = true;
        }
      },
      end: (_end, truncated) => {
        // Nobody saw the end of a copy that stopped at its cap.
        if (truncated) attempt.terminal = undefined;
      },
    };
  }
  const chunks: Buffer[] = [];
  return {
    data: (chunk) => void chunks.push(chunk),
    end: (end, truncated) => {
      if (end === "complete" && !truncated) reader.body(whole(chunks), reply.status);
    },
  };
}

/** Most replies come in one chunk, which need not be copied to be read. */
function whole(chunks: readonly Buffer[]): Buffer {
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}
