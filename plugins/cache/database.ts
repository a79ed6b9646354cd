import { closeSync, existsSync, mkdirSync, openSync, readSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { DiskPlace, DiskRow, FullRow } from "./messages.ts";

/** Marks the file as TokenMan's response cache: "tkmc". */
const APPLICATION_ID = 0x746b6d63;
const SCHEMA_VERSION = 2;
const SCHEMA = `CREATE TABLE entry (
  hash INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  project TEXT NOT NULL,
  at INTEGER NOT NULL,
  head TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT`;
const BUSY_MS = 1_000;
const MAGIC = "SQLite format 3\0";

/** SQLite's BUSY and LOCKED: another process has the file, and it may be given back. */
const BUSY: ReadonlySet<number> = new Set([5, 6]);
/** SQLite's CORRUPT and NOTADB (https://sqlite.org/rescode.html). */
const CORRUPT: ReadonlySet<number> = new Set([11, 26]);

export function isCorrupt(cause: unknown): boolean {
  const { errcode } = (cause ?? {}) as { readonly errcode?: unknown };
  return cause instanceof Foreign || (typeof errcode === "number" && CORRUPT.has(errcode & 0xff));
}

export function isBusy(cause: unknown): boolean {
  const { errcode } = (cause ?? {}) as { readonly errcode?: unknown };
  return typeof errcode === "number" && BUSY.has(errcode & 0xff);
}

/** The file is none of this program's: another one's database, or a newer version's. */
class Foreign extends Error {}

/** The database of stored replies. Synchronous: lives in a thread of its own. */
export class CacheDatabase {
  readonly #db: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #select: StatementSync;
  readonly #delete: StatementSync;

  /** Creates what is missing. Throws what SQLite or the file system throws; see {@link isCorrupt}. */
  constructor(file: string) {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // SQLite would write over a file that is none of its own, and gives -wal and -shm the mode of the database.
    if (!isDatabase(file)) throw new Foreign("it is no SQLite database");
    closeSync(openSync(file, "a", 0o600));
    this.#db = new DatabaseSync(file, { timeout: BUSY_MS });
    try {
      // What is deleted is a prompt's answer: its bytes are overwritten.
      this.#db.exec("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA secure_delete = ON");
      this.#db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2000");
      this.#migrate();
      this.#insert = this.#db.prepare(
        "INSERT OR REPLACE INTO entry (hash, id, project, at, head, body) VALUES (?, ?, ?, ?, ?, ?)",
      );
      this.#select = this.#db.prepare("SELECT hash, id, project, at, head, body FROM entry WHERE hash = ?");
      this.#delete = this.#db.prepare("DELETE FROM entry WHERE hash = ?");
    } catch (cause) {
      this.#db.close();
      throw cause;
    }
  }

  /** Oldest first. */
  places(): DiskPlace[] {
    const rows = this.#db
      .prepare("SELECT hash, project, at, length(body) AS bytes FROM entry ORDER BY at")
      .all() as unknown as { hash: number; project: string; at: number; bytes: number }[];
    return rows.map(({ hash, project, at, bytes }) => [hash, project, at, bytes]);
  }
  read(hash: number): FullRow | undefined {
    return this.#select.get(hash) as unknown as FullRow | undefined;
  }
  /** All of it, or nothing. What is deleted goes before what is written. */
  write(rows: readonly DiskRow[], bodies: readonly Uint8Array[], deleted: readonly number[]): void {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      for (const hash of deleted) this.#delete.run(hash);
      for (const [index, { hash, id, project, at, head }] of rows.entries())
        this.#insert.run(hash, id, project, at, head, bodies[index]!);
      this.#db.exec("COMMIT");
    } catch (cause) {
      // A full disk has rolled it back already.
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw cause;
    }
    if (deleted.length > 0) this.#db.exec("PRAGMA incremental_vacuum");
  }
  /** Takes the entries of a project, or all, out of the file and its journal. */
  purge(project: string | undefined): void {
    if (project === undefined) this.#db.exec("DELETE FROM entry");
    else this.#db.prepare("DELETE FROM entry WHERE project = ?").run(project);
    this.#db.exec("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)");
  }
  close(): void {
    this.#db.close();
  }

  #migrate(): void {
    const version = this.#pragma("user_version");
    const owner = this.#pragma("application_id");
    if (version === SCHEMA_VERSION && owner === APPLICATION_ID) return;
    // What an earlier version stored, nobody could ask for: its keys are made otherwise now.
    if (owner === APPLICATION_ID && version < SCHEMA_VERSION)
      this.#db.exec("DELETE FROM entry; DROP TABLE entry");
    else if (version !== 0 || owner !== 0) {
      throw new Foreign(
        owner === APPLICATION_ID
          ? `it has schema version ${version}, and this TokenMan knows ${SCHEMA_VERSION}`
          : "it is another program's database",
      );
    }
    this.#db.exec(
      `BEGIN; ${SCHEMA}; PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`,
    );
  }
  #pragma(name: string): number {
    return Number(Object.values(this.#db.prepare(`PRAGMA ${name}`).get() ?? {})[0] ?? 0);
  }
}

function isDatabase(file: string): boolean {
  if (!existsSync(file)) return true;
  const descriptor = openSync(file, "r");
  try {
    const head = Buffer.alloc(MAGIC.length);
    return readSync(descriptor, head) === 0 || head.toString("latin1") === MAGIC;
  } finally {
    closeSync(descriptor);
  }
}

/** Renames a file that cannot be used, with its journal; the one that was set aside before it goes. Gives its new name. */
export function setAside(file: string): string {
  const target = `${file}.unusable`;
  // The journal first: a new database must never meet the old one's.
  for (const suffix of ["-wal", "-shm", "-journal", ""]) {
    rmSync(target + suffix, { force: true, recursive: true });
    if (existsSync(file + suffix)) renameSync(file + suffix, target + suffix);
  }
  return target;
}
