import { closeSync, fchmodSync, fstatSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";

/** A log over this size is put aside at the next start: TokenMan itself never cuts it while it runs. */
const MAX_LOG_BYTES = 32 * 1024 * 1024;
const MAX_TAIL_BYTES = 8 * 1024;

/** What an instance in the background logs to, opened for one start. */
export class LogFile {
  readonly path: string;
  readonly fd: number;
  readonly #start: number;

  /** Throws TM_DATA_DIR. */
  constructor(dataDir: string) {
    this.path = join(dataDir, "tokenman.log");
    this.fd = openLog(this.path);
    this.#start = fstatSync(this.fd).size;
  }

  close(): void {
    closeSync(this.fd);
  }

  /** What was logged since it was opened, after a colon and a line break: its end, where it is long. */
  tail(): string {
    const log = openSync(this.path, "r");
    try {
      const { size } = fstatSync(log);
      const start = Math.max(this.#start, size - MAX_TAIL_BYTES);
      const buffer = Buffer.alloc(Math.max(0, size - start));
      readSync(log, buffer, 0, buffer.length, start);
      const said = buffer.toString().trimEnd();
      return said === "" ? "" : `:\n${said}`;
    } finally {
      closeSync(log);
    }
  }
}

function openLog(file: string): number {
  try {
    if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > MAX_LOG_BYTES) renameSync(file, `${file}.1`);
    const log = openSync(file, "a", 0o600);
    fchmodSync(log, 0o600);
    return log;
  } catch (cause) {
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}
