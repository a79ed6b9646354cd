import { closeSync, existsSync, mkdirSync, openSync, readSync, renameSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { migrate } from "./migrate.ts";
import type { Migration } from "./schema.ts";
import { troubleOf } from "./sqlite-error.ts";

export interface OpenOptions {
  readonly file: string;
  /** How long to wait for another writer. */
  readonly busyMs: number;
  readonly synchronous: "normal" | "full";
  readonly migrations?: readonly Migration[];
}

export interface Opened {
  readonly db: DatabaseSync;
  /** Where a file that cannot be read was moved to. */
  readonly setAside: string | undefined;
}

/**
 * Opens the database for writing, creates it where it is missing, and brings its schema up to date. A file that is no
 * database any more is set aside with its -wal and -shm, and a new one begun. Throws TM_LEDGER_SCHEMA, and what SQLite
 * or the file system throws for a folder that cannot be used.
 */
export function openForWriting(options: OpenOptions): Opened {
  const { file } = options;
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // SQLite would remove the -wal of a file that is none of its own.
  if (mayBeDatabase(file)) {
    try {
      return { db: openAsItIs(options), setAside: undefined };
    } catch (cause) {
      if (troubleOf(cause) !== "corrupt") throw cause;
    }
  }
  const setAside = moveAside(file);
  return { db: openAsItIs(options), setAside };
}

const MAGIC = Buffer.from("SQLite format 3\0");

function mayBeDatabase(file: string): boolean {
  if (!existsSync(file)) return true;
  const descriptor = openSync(file, "r");
  try {
    const head = Buffer.alloc(MAGIC.length);
    return readSync(descriptor, head) === 0 || head.equals(MAGIC);
  } finally {
    closeSync(descriptor);
  }
}

/** As {@link openForWriting}, but throws for a file that is no database. */
export function openAsItIs({ file, busyMs, synchronous, migrations }: OpenOptions): DatabaseSync {
  // SQLite gives -wal and -shm the mode of the database, which must exist with its own before.
  closeSync(openSync(file, "a", 0o600));
  const db = new DatabaseSync(file, { timeout: busyMs });
  try {
    // Only a database without tables takes this; it lets pruning give space back to the file system.
    db.exec("PRAGMA auto_vacuum = INCREMENTAL");
    db.exec("PRAGMA journal_mode = WAL");
    db.exec(synchronousPragma(synchronous));
    db.exec("PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY");
    migrate(db, migrations);
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}

export function synchronousPragma(synchronous: OpenOptions["synchronous"]): string {
  return `PRAGMA synchronous = ${synchronous === "full" ? "FULL" : "NORMAL"}`;
}

/** Opens an existing database for queries; it cannot be written through this. */
export function openForReading(file: string): DatabaseSync {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 2_000 });
  try {
    db.exec("PRAGMA query_only = ON; PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY");
    return db;
  } catch (cause) {
    db.close();
    throw cause;
  }
}

/** Renames the database and what belongs to it; gives the new name of the database itself. */
export function moveAside(file: string, now: Date = new Date()): string {
  const stamp = now.toISOString().replace(/[-:]|\.\d+/g, "");
  let target = `${file}.corrupt-${stamp}`;
  for (let number = 2; existsSync(target); number++) target = `${file}.corrupt-${stamp}-${number}`;
  // The journal first: a new database must never meet the old one's.
  for (const suffix of ["-wal", "-shm", "-journal", ""]) {
    if (existsSync(file + suffix)) renameSync(file + suffix, target + suffix);
  }
  return target;
}
