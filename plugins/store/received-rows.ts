import type { Batch } from "./messages.ts";
import { ReceivedNames } from "./names.ts";
import { BEGIN, END, type RowBatch } from "./row-cells.ts";
import type { BodyBytes } from "./rows.ts";

/** A batch of rows as the writer reads it. */
export interface ReceivedRows extends Pick<RowBatch, "cells" | "texts"> {
  readonly names: ReceivedNames;
}

/** A row that begins, with its end where that is there, or the end of one. */
export interface RowOperation {
  readonly kind: "begin" | "end";
  readonly rows: ReceivedRows;
  /** Where it begins in them. */
  readonly at: number;
  readonly bodies: BodyBytes | undefined;
}

/** All rows of a batch, which mostly are written together: an object for each of them would be the writer's garbage. */
export interface RowsOperation extends Pick<RowBatch, "begun" | "ended"> {
  readonly kind: "rows";
  readonly rows: ReceivedRows;
  readonly bodies: Batch["bodies"];
}

/** Reads batches in the order in which they come: later ones mean names of earlier ones. */
export class RowReceiver {
  #names = new ReceivedNames();

  receive({ cells, begun, ended, texts, names }: RowBatch, bodies: Batch["bodies"]): RowsOperation {
    // Rows that could not be written yet still mean the old ones.
    if (names.anew) this.#names = new ReceivedNames();
    this.#names.add(names);
    return { kind: "rows", rows: { cells, texts, names: this.#names }, begun, ended, bodies };
  }
}

/** The rows of a batch one by one. */
export function eachRow({ rows, begun, ended, bodies }: RowsOperation): RowOperation[] {
  const { cells } = rows;
  return [
    ...begun.map((at): RowOperation => {
      const link = cells[at + BEGIN.LINK]!;
      const own = link === 0 ? undefined : bodiesAt(cells[link + END.BODIES]!, bodies);
      return { kind: "begin", rows, at, bodies: own };
    }),
    ...ended.map((at): RowOperation => {
      return { kind: "end", rows, at, bodies: bodiesAt(cells[at + END.BODIES]!, bodies) };
    }),
  ];
}

/** The bodies at a place that a row says; undefined for none, which is NaN. */
export function bodiesAt(place: number, bodies: Batch["bodies"]): BodyBytes | undefined {
  const own = bodies[place];
  return own && { request: own.request, response: own.response, truncated: own.truncated };
}
