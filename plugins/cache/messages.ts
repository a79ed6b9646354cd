/** What goes between the thread that proxies and the one that has the database. */

/** An entry as it is on disk. */
export interface DiskRow {
  readonly key: string;
  readonly project: string;
  /** When it was complete, in whole milliseconds since the epoch. */
  readonly at: number;
  /** JSON of all of a stored reply but its body and time. */
  readonly head: string;
  readonly body: Uint8Array;
}

/** What is known of an entry without reading it. */
export type DiskPlace = readonly [key: string, project: string, at: number, bytes: number];

export type ToDisk =
  | { readonly kind: "write"; readonly rows: readonly DiskRow[]; readonly deleted: readonly string[] }
  | { readonly kind: "read"; readonly call: number; readonly key: string }
  /** Undefined: of all projects. Answered when nothing of it is left in the file. */
  | { readonly kind: "purge"; readonly call: number; readonly project: string | undefined }
  | { readonly kind: "close" };

export type FromDisk =
  /** It is open; what is in it, oldest first. */
  | { readonly kind: "open"; readonly places: readonly DiskPlace[] }
  | { readonly kind: "answer"; readonly call: number; readonly row: DiskRow | undefined }
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
