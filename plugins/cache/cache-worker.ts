import { existsSync, rmSync, truncateSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { CacheDatabase, isBusy, isCorrupt, setAside } from "./database.ts";
import type { DiskRow, DiskSettings, FromDisk, ToDisk } from "./messages.ts";

const port = parentPort!;
const { file } = workerData as DiskSettings;
let database: CacheDatabase | undefined;
let failing: string | undefined;

function tell(message: FromDisk): void {
  port.postMessage(message);
}
function sayState(now: string | undefined, emptied: boolean): void {
  if (now === failing && !emptied) return;
  failing = now;
  tell({ kind: "state", failing, emptied });
}

/** Opens the file, and sets one aside that cannot be used. Throws where the disk or its permissions do not let it. */
function open(): CacheDatabase {
  if (database !== undefined) return database;
  try {
    database = new CacheDatabase(file);
  } catch (cause) {
    if (!isCorrupt(cause)) throw cause;
    startAnew(cause);
    database = new CacheDatabase(file);
  }
  return database;
}
function startAnew(cause: unknown): void {
  try {
    database?.close();
  } catch {
    // What is damaged may not close; it is let go of all the same.
  }
  database = undefined;
  const aside = setAside(file);
  const facts = { file: aside, err: messageOf(cause) };
  tell({ kind: "log", level: "warn", facts, message: "the cache's file cannot be used: it was set aside" });
  sayState(undefined, true);
}

/** Does something with the database; a second time with a new one where the first turned out damaged. Throws the reason why not. */
function perform<T>(run: (open: CacheDatabase) => T): T {
  try {
    return run(open());
  } catch (cause) {
    if (!isCorrupt(cause)) throw cause;
    startAnew(cause);
    return run(open());
  }
}
/** The same, and says how it went. */
function attempt<T>(run: (open: CacheDatabase) => T): T | undefined {
  try {
    const value = perform(run);
    sayState(undefined, false);
    return value;
  } catch (cause) {
    sayState(messageOf(cause), false);
    return undefined;
  }
}

/** Gives whether the rows are written, and whether nothing is left of what was to be deleted. */
function write(
  rows: readonly DiskRow[],
  bodies: readonly Uint8Array[],
  deleted: readonly number[],
): { readonly rows: boolean; readonly deleted: boolean } {
  const isDone = attempt((open) => {
    open.write(rows, bodies, deleted);
    return true;
  });
  if (isDone === true) return { rows: true, deleted: true };
  return { rows: false, deleted: deleted.length === 0 || deleteAlone(deleted) };
}
/** A full disk may still take this; where it does not, the file goes with all that is in it. */
function deleteAlone(deleted: readonly number[]): boolean {
  try {
    perform((open) => open.write([], [], deleted));
    return true;
  } catch (cause) {
    // Another process has the file: it is asked again.
    return !isBusy(cause) && drop() === undefined;
  }
}

/** Why it could not be done; undefined: nothing of it is in the file. */
function purge(project: string | undefined): string | undefined {
  const isDone = attempt((open) => {
    open.purge(project);
    return true;
  });
  // What cannot be deleted must not be there after a restart.
  return isDone === true ? undefined : drop();
}
/** Does away with the file. Gives the reason why not. */
function drop(): string | undefined {
  try {
    database?.close();
  } catch {
    // It is removed all the same.
  }
  database = undefined;
  let reason: string | undefined;
  // A folder that lets nothing be removed may have a file that can be emptied.
  for (const end of [remove, empty]) {
    try {
      for (const suffix of ["-wal", "-shm", ""]) end(file + suffix);
      tell({ kind: "state", failing, emptied: true });
      return undefined;
    } catch (cause) {
      reason ??= messageOf(cause);
    }
  }
  return reason;
}
function remove(name: string): void {
  rmSync(name, { force: true });
}
function empty(name: string): void {
  if (existsSync(name)) truncateSync(name);
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

port.on("message", (message: ToDisk) => {
  switch (message.kind) {
    case "write": {
      const bodies: Uint8Array[] = [];
      let at = 0;
      for (const length of message.lengths) {
        bodies.push(new Uint8Array(message.bodies, at, length));
        at += length;
      }
      tell({ kind: "written", call: message.call, ...write(message.rows, bodies, message.deleted) });
      return;
    }
    case "read":
      tell({ kind: "answer", call: message.call, row: attempt((open) => open.read(message.hash)) });
      return;
    case "purge":
      tell({ kind: "purged", call: message.call, failure: purge(message.project) });
      return;
    case "close":
      try {
        if (message.deleted.length > 0) deleteAlone(message.deleted);
        database?.close();
      } finally {
        port.close();
      }
  }
});

tell({ kind: "open", places: attempt((open) => open.places()) ?? [] });
