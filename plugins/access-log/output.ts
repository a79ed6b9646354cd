import { mkdirSync, openSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { isThere } from "@tokenman/plugin-sdk";
import pino from "pino";

/** An open access log. Writing never waits and never throws. */
export interface Output {
  write(entry: Readonly<Record<string, unknown>>): void;
  /** What could not be written since the last call; undefined where all was. */
  takeLost(): { readonly lines: number; readonly reason: string } | undefined;
  /** Resolves when all that was written has reached the file. `forget`: a file that was made here is removed again. */
  close(options?: { readonly forget?: boolean }): Promise<void>;
}

/** What may wait for a reader that is slow (a pipe, a full disk) before lines are dropped. */
const MAX_BUFFER_BYTES = 16 * 1024 * 1024;

/** How long a line waits for others: a write costs more than all else about it. */
const GATHER_MS = 50;
const GATHER_CHARACTERS = 128 * 1024;

/** Opens a file to append to, made with mode 0600, or the standard output for "". Throws where that cannot be. */
export function openOutput(file: string): Output {
  const made = file !== "" && !isThere(file);
  const destination = pino.destination({
    dest: file === "" ? 1 : openFile(file),
    sync: false,
    maxLength: MAX_BUFFER_BYTES,
  });
  let lines = 0;
  let reason = "";
  destination.on("drop", (dropped: string) => {
    lines += dropped.split("\n").length - 1;
    reason = "they come faster than they can be written";
  });
  destination.on("error", (error: Error) => {
    lines++;
    reason = error.message;
  });
  let gathered = "";
  let timer: NodeJS.Timeout | undefined;
  const handOver = (): void => {
    clearTimeout(timer);
    timer = undefined;
    const text = gathered;
    gathered = "";
    if (text !== "") destination.write(text);
  };
  return {
    // In the place of a level, which says nothing here, what tells these lines from others in the same stream.
    write(entry) {
      gathered += `{"log":"access","time":"${isoTime()}",${JSON.stringify(entry).slice(1)}\n`;
      if (gathered.length >= GATHER_CHARACTERS) handOver();
      else timer ??= setTimeout(handOver, GATHER_MS);
    },
    takeLost() {
      if (lines === 0) return undefined;
      const lost = { lines, reason };
      lines = 0;
      return lost;
    },
    async close({ forget = false } = {}) {
      handOver();
      const closed = Promise.withResolvers<void>();
      // A destination that cannot write any more says "error" instead.
      destination.once("close", closed.resolve).once("error", () => closed.resolve());
      destination.end();
      await closed.promise;
      if (forget && made) rmSync(file, { force: true });
    },
  };
}

let second = 0;
let written = "";

/** Now, as ISO 8601 with milliseconds. All but those is put together once a second. */
function isoTime(): string {
  const now = Date.now();
  const ms = now % 1_000;
  if (now - ms !== second) {
    second = now - ms;
    written = new Date(second).toISOString().slice(0, -4);
  }
  return `${written}${String(ms).padStart(3, "0")}Z`;
}

function openFile(file: string): number {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  return openSync(file, "a", 0o600);
}
