import type { Logger } from "../src/log.ts";

export interface LogLine {
  readonly level: "trace" | "debug" | "info" | "warn" | "error";
  readonly facts: Readonly<Record<string, unknown>>;
  readonly message: string | undefined;
}

const LEVELS = ["trace", "debug", "info", "warn", "error"] as const;

/** A logger that keeps every line in `lines`, in order, and prints none. */
export function capturedLog(lines: LogLine[] = []): Logger & { readonly lines: readonly LogLine[] } {
  const log = { lines } as Logger & { readonly lines: LogLine[] };
  for (const level of LEVELS) {
    log[level] = (facts, message) => void lines.push({ level, facts: facts as LogLine["facts"], message });
  }
  return log;
}
