import type { DatabaseSync } from "node:sqlite";
import { TokenmanError } from "@tokenman/plugin-sdk";
import { MIGRATIONS, type Migration } from "./schema.ts";

/** Marks the file as TokenMan's, for `file` and for this check: "tkmn". */
export const APPLICATION_ID = 0x746b6d6e;

function pragma(db: DatabaseSync, name: string): number {
  const row = db.prepare(`PRAGMA ${name}`).get();
  return Number(Object.values(row ?? {})[0] ?? 0);
}

/** How many migrations the database has been through. */
export function schemaVersion(db: DatabaseSync): number {
  return pragma(db, "user_version");
}

/**
 * Brings the schema to the newest version, one transaction a step; several processes may do so at once. Throws
 * TM_LEDGER_SCHEMA, having changed nothing, where the database is newer than this program or not TokenMan's.
 */
export function migrate(db: DatabaseSync, migrations: readonly Migration[] = MIGRATIONS): void {
  for (;;) {
    const version = schemaVersion(db);
    const owner = pragma(db, "application_id");
    if (version > migrations.length) {
      throw new TokenmanError(
        "TM_LEDGER_SCHEMA",
        `${db.location()} has schema version ${version}, and this TokenMan knows ${migrations.length}: it was written by a newer one`,
      );
    }
    if (owner !== APPLICATION_ID && (owner !== 0 || version !== 0 || hasTables(db)))
      throw new TokenmanError("TM_LEDGER_SCHEMA", `${db.location()} is not TokenMan's database`);
    if (version === migrations.length) return;
    db.exec("BEGIN IMMEDIATE");
    try {
      // Another process may have been faster.
      if (schemaVersion(db) === version) {
        db.exec(migrations[version]!);
        db.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${version + 1}`);
      }
      db.exec("COMMIT");
    } catch (cause) {
      if (db.isTransaction) db.exec("ROLLBACK");
      throw cause;
    }
  }
}

function hasTables(db: DatabaseSync): boolean {
  return db.prepare("SELECT 1 FROM sqlite_schema LIMIT 1").get() !== undefined;
}
