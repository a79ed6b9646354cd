import { fstatSync } from "node:fs";
import { isatty } from "node:tty";
import type { Logger } from "@tokenman/plugin-sdk";
import pino from "pino";
import { createRedactor, type Redactor } from "./secrets.ts";
import { paint, takesColor } from "./terminal.ts";

export interface Log extends pino.Logger {
  flush(): void;
}

/** Levels of `server.log_level`. */
export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";

const SECRET_KEY =
  /(^|[_-])(token|secret|password|passphrase|credentials?|authorization|cookie|key|apikey)$/i;
const MAX_DEPTH = 6;

/**
 * The process's log, on stderr: one JSON object a line, or lines to read where stderr is a terminal. Facts whose name
 * says that they are secret are masked, as is text that looks like a credential.
 */
export function createLog(level: LogLevel): Log {
  const readable = isatty(2);
  const destination = pino.destination({ fd: 2, sync: isRegular(2) || readable });
  const redact = createRedactor();
  const color = takesColor(process.stderr);
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // An error is written as `mask` made it; pino would take it for one of a class "Object".
      serializers: { err: (masked: unknown) => masked },
      formatters: {
        level: (label) => ({ level: label }),
        log: (facts) => mask(facts, redact, 0) as Record<string, unknown>,
      },
      hooks: {
        streamWrite: (line) => (readable ? readableLine(line, color) : line),
        logMethod(args, method) {
          method.apply(
            this,
            args.map((each) => (typeof each === "string" ? redact(each) : each)) as typeof args,
          );
        },
      },
    },
    destination,
  );
  return log as Log;
}

/**
 * The same log, at the level that `level` gives at the time of each line: a reload may have changed it. What a line is
 * logged with is passed on as it is.
 */
export function atLevelOf(log: Log, level: () => LogLevel | undefined): Logger {
  const method = (name: keyof Logger) => (facts: object, message?: string) => {
    const wanted = level();
    if (wanted !== undefined && log.level !== wanted) log.level = wanted;
    log[name](facts, message);
  };
  return {
    trace: method("trace"),
    debug: method("debug"),
    info: method("info"),
    warn: method("warn"),
    error: method("error"),
  };
}

function isRegular(fd: number): boolean {
  try {
    return fstatSync(fd).isFile();
  } catch {
    return false;
  }
}

function mask(value: unknown, redact: Redactor, depth: number): unknown {
  if (typeof value === "string") return redact(value);
  if (depth >= MAX_DEPTH) return "[deep]";
  if (value instanceof Error) {
    const { message, stack = "", cause, code } = value as NodeJS.ErrnoException;
    return {
      type: classOf(value),
      ...(typeof code === "string" && { code: redact(code) }),
      message: redact(message),
      stack: redact(stack),
      ...(cause !== undefined && { cause: mask(cause, redact, depth + 1) }),
    };
  }
  if (
    typeof value !== "object" ||
    value === null ||
    typeof (value as { toJSON?: unknown }).toJSON === "function"
  ) {
    return value;
  }
  if (Array.isArray(value)) return value.map((each) => mask(each, redact, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      SECRET_KEY.test(key) && typeof each !== "boolean" && typeof each !== "number"
        ? "[redacted]"
        : mask(each, redact, depth + 1),
    ]),
  );
}

/** Its `name`, where that says more than "Error", else its class's. */
function classOf(error: Error): string {
  return error.name === "Error" ? error.constructor.name || error.name : error.name;
}

const STYLES = { warn: "yellow", error: "red", fatal: "red" } as const;

/** "10:15:02 warn  message  key=value …": the same line for a person. */
function readableLine(line: string, color: boolean): string {
  const {
    level,
    time,
    msg = "",
    err,
    ...facts
  } = JSON.parse(line) as Record<string, unknown> & {
    level: string;
    err?: { stack?: string };
  };
  const clock = String(time).slice(11, 19);
  const style = STYLES[level as keyof typeof STYLES];
  const label = style === undefined ? level.padEnd(5) : paint(color, style, level.padEnd(5));
  const rest = Object.entries(facts)
    .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
  const text = `${paint(color, "dim", clock)} ${label} ${printable(String(msg))}`;
  const stack = err?.stack === undefined ? "" : `\n${printable(err.stack)}`;
  return `${text}${rest === "" ? "" : ` ${paint(color, "dim", printable(rest))}`}${stack}\n`;
}

/** A terminal obeys control characters; those of a log line come from anywhere. Line breaks stay. */
function printable(text: string): string {
  return text.replace(/[^\P{Cc}\n]/gu, "\ufffd");
}
