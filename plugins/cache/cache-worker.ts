import { rmSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { CacheDatabase, isCorrupt, setAside } from "./database.ts";
import type { DiskSettings, FromDisk, ToDisk } from "./messages.ts";

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

/** Does something with the database; a second time with a new one where the first turned out damaged. */
function attempt<T>(run: (open: CacheDatabase) => T): T | undefined {
  try {
    let value: T;
    try {
      value = run(open());
    } catch (cause) {
      if (!isCorrupt(cause)) throw cause;
      startAnew(cause);
      value = run(open());
    }
    sayState(undefined, false);
    return value;
  } catch (cause) {
    sayState(messageOf(cause), false);
    return undefined;
  }
}

/** What cannot be deleted, on a full disk say, goes with the whole file: it must not be there after a restart. */
function purge(project: string | undefined): void {
  attempt((open) => open.purge(project));
  if (failing === undefined) return;
  try {
    database?.close();
  } catch {
    // It is removed all the same.
  }
  database = undefined;
  try {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
    tell({ kind: "state", failing, emptied: true });
  } catch {
    // The next write says what is wrong with the disk.
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

port.on("message", (message: ToDisk) => {
  switch (message.kind) {
    case "write":
      attempt((open) => open.write(message.rows, message.deleted));
      return;
    case "read":
      tell({ kind: "answer", call: message.call, row: attempt((open) => open.read(message.key)) });
      return;
    case "purge":
      purge(message.project);
      tell({ kind: "answer", call: message.call, row: undefined });
      return;
    case "close":
      try {
        database?.close();
      } finally {
        port.close();
      }
  }
});

tell({ kind: "open", places: attempt((open) => open.places()) ?? [] });
