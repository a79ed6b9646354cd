import { closeSync, existsSync, mkdirSync, openSync, readSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { DiskPlace, DiskRow } from "./messages.ts";

/** Marks the file as TokenMan's response cache: "tkmc". */
const APPLICATION_ID = 0x746b6d63;
const SCHEMA_VERSION = 1;
const SCHEMA = `CREATE TABLE entry (
  key TEXT PRIMARY KEY,
  project TEXT NOT NULL,
  at INTEGER NOT NULL,
  head TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT`;
const BUSY_MS = 1_000;
const MAGIC = "SQLite format 3\0";

/** SQLite's CORRUPT and NOTADB (https://sqlite.org/rescode.html). */
const CORRUPT: ReadonlySet<number> = new Set([11, 26]);

export function isCorrupt(cause: unknown): boolean {
  const { errcode } = (cause ?? {}) as { readonly errcode?: unknown };
  return cause instanceof Foreign || (typeof errcode === "number" && CORRUPT.has(errcode & 0xff));
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
        "INSERT OR REPLACE INTO entry (key, project, at, head, body) VALUES (?, ?, ?, ?, ?)",
      );
      this.#select = this.#db.prepare("SELECT key, project, at, head, body FROM entry WHERE key = ?");
      this.#delete = this.#db.prepare("DELETE FROM entry WHERE key = ?");
    } catch (cause) {
      this.#db.close();
      throw cause;
    }
  }

  /** Oldest first. */
  places(): DiskPlace[] {
    const rows = this.#db
      .prepare("SELECT key, project, at, length(body) AS bytes FROM entry ORDER BY at")
      .all() as unknown as { key: string; project: string; at: number; bytes: number }[];
    return rows.map(({ key, project, at, bytes }) => [key, project, at, bytes]);
  }
  read(key: string): DiskRow | undefined {
    return this.#select.get(key) as unknown as DiskRow | undefined;
  }
  /** All of it, or nothing. */
  write(rows: readonly DiskRow[], deleted: readonly string[]): void {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      for (const key of deleted) this.#delete.run(key);
      for (const { key, project, at, head, body } of rows) this.#insert.run(key, project, at, head, body);
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
    if (version !== 0 || owner !== 0) {
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
