/** What goes between the thread that proxies and the one that has the database. */

/** An entry as it is on disk, but for its body. */
export interface DiskRow {
  /** See `AnswerKey`. Of two entries with one hash, the one that came last is on disk. */
  readonly hash: number;
  readonly id: string;
  readonly project: string;
  /** When it was complete, in whole milliseconds since the epoch. */
  readonly at: number;
  /** JSON of all of a stored reply but its body and time. */
  readonly head: string;
}
export interface FullRow extends DiskRow {
  readonly body: Uint8Array;
}

/** What is known of an entry without reading it. */
export type DiskPlace = readonly [hash: number, project: string, at: number, bytes: number];

export type ToDisk =
  /** Answered by "written". The rows' bodies are side by side in `bodies`, `lengths` bytes each. */
  | {
      readonly kind: "write";
      readonly call: number;
      readonly rows: readonly DiskRow[];
      readonly lengths: readonly number[];
      readonly bodies: ArrayBuffer;
      readonly deleted: readonly number[];
    }
  | { readonly kind: "read"; readonly call: number; readonly hash: number }
  /** Undefined: of all projects. Answered by "purged". */
  | { readonly kind: "purge"; readonly call: number; readonly project: string | undefined }
  /** What is still to be deleted, and must not be there at the next start. */
  | { readonly kind: "close"; readonly deleted: readonly number[] };

export type FromDisk =
  /** It is open; what is in it, oldest first. */
  | { readonly kind: "open"; readonly places: readonly DiskPlace[] }
  | { readonly kind: "answer"; readonly call: number; readonly row: FullRow | undefined }
  /** Whether the rows are in the file, and whether nothing of what was to be deleted is. */
  | { readonly kind: "written"; readonly call: number; readonly rows: boolean; readonly deleted: boolean }
  /** Why it could not be done; undefined: nothing of it is left in the file. */
  | { readonly kind: "purged"; readonly call: number; readonly failure: string | undefined }
  /** What the last messages asked for could not be done; undefined: it can again. `emptied`: a new file was begun. */
  | { readonly kind: "state"; readonly failing: string | undefined; readonly emptied: boolean }
  | {
      readonly kind: "log";
      readonly level: "info" | "warn";
      readonly facts: object;
      readonly message: string;
    };

export interface DiskSettings {
  readonly file: string;
}
