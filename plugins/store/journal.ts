import { fdatasync, ftruncate, write } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { basename } from "node:path";

/** A journal's files are beside the database; `number` counts them, from 1 on. */
export function journalFile(database: string, holder: string, number: number): string {
  return `${database}${INFIX}${holder}-${number}`;
}
const INFIX = "-holds-";

/** Whose journal a file beside the database is of, by its name; undefined for another file. */
export function holderOf(database: string, name: string): string | undefined {
  const prefix = basename(database) + INFIX;
  return name.startsWith(prefix) ? /^(.+)-\d+$/.exec(name.slice(prefix.length))?.[1] : undefined;
}

/**
 * A file that lines are appended to, by a thread of libuv's pool: the loop that proxies does not wait for it. What
 * write(2) has taken outlives a `kill -9`; a power failure, where it is flushed too.
 */
export class Journal {
  readonly #database: string;
  readonly #holder: string;
  #handle: FileHandle | undefined;
  #first = 1;
  /** Which file it is; 0 before the first is open. */
  number = 0;
  /** Bytes in the file. */
  size = 0;
  /** A part of a line may be at its end. */
  #isTorn = false;

  constructor(database: string, holder: string) {
    this.#database = database;
    this.#holder = holder;
  }

  /** Goes on with a new file. Not while something is being written. Rejects with what the file system says. */
  async next(): Promise<void> {
    const number = this.number + 1;
    const handle = await open(journalFile(this.#database, this.#holder, number), "a", 0o600);
    const last = this.#handle;
    this.#handle = handle;
    this.number = number;
    this.size = 0;
    this.#isTorn = false;
    await last?.close();
  }
  /** Appends whole lines, all or none where the file lets itself be cut; `done` is told when they are taken, or why not. One call at a time. */
  write(lines: string, isFlushed: boolean, done: (failed: Error | undefined) => void): void {
    const { fd } = this.#handle!;
    const bytes = Buffer.from(this.#isTorn ? `\n${lines}` : lines);
    const undo = (cause: Error, written: number): void =>
      ftruncate(fd, this.size, (failed) => {
        if (failed !== null) {
          this.size += written;
          this.#isTorn = true;
        }
        done(cause);
      });
    write(fd, bytes, 0, bytes.length, null, (cause, written = 0) => {
      if (cause !== null) undo(cause, 0);
      else if (written < bytes.length)
        undo(new Error(`${written} of ${bytes.length} bytes could be written`), written);
      else if (!isFlushed) this.#taken(written, done);
      else fdatasync(fd, (failed) => (failed === null ? this.#taken(written, done) : undo(failed, written)));
    });
  }
  #taken(bytes: number, done: (failed: undefined) => void): void {
    this.size += bytes;
    this.#isTorn = false;
    done(undefined);
  }
  /** Removes the files before that one, which are of no use any more. */
  async removeOlder(number: number): Promise<void> {
    for (; this.#first < number; this.#first++)
      await unlink(journalFile(this.#database, this.#holder, this.#first)).catch(() => undefined);
  }
  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }
}
