/** What an error of SQLite means for whoever writes. */
export type Trouble =
  /** Another writer holds the lock. */
  | "busy"
  /** Disk full, read-only, I/O errors: nothing of the database's own. */
  | "storage"
  /** The file is not a database, or its pages contradict each other. */
  | "corrupt"
  /** The statement's own fault. */
  | "statement";

const TROUBLE: Readonly<Record<number, Trouble>> = {
  5: "busy", // BUSY
  6: "busy", // LOCKED
  7: "storage", // NOMEM
  8: "storage", // READONLY
  10: "storage", // IOERR
  11: "corrupt", // CORRUPT
  13: "storage", // FULL
  14: "storage", // CANTOPEN
  15: "busy", // PROTOCOL
  23: "storage", // AUTH
  26: "corrupt", // NOTADB
};

/** Tells what went wrong by SQLite's primary result code (https://sqlite.org/rescode.html). */
export function troubleOf(error: unknown): Trouble {
  const { errcode, code } = (error ?? {}) as { errcode?: unknown; code?: unknown };
  if (typeof errcode === "number") return TROUBLE[errcode & 0xff] ?? "statement";
  return typeof code === "string" &&
    /^E(ACCES|PERM|NOSPC|ROFS|IO|NOTDIR|ISDIR|EXIST|NOENT|MFILE|NFILE|DQUOT|FBIG)$/.test(code)
    ? "storage"
    : "statement";
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
