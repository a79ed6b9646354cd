import type { Batch } from "./messages.ts";
import { ReceivedNames } from "./names.ts";
import { BEGIN, END, type RowBatch } from "./row-cells.ts";
import type { BodyBytes } from "./rows.ts";
import type { Work } from "./writer.ts";

/** A batch of rows as the writer reads it. */
export interface ReceivedRows extends Pick<RowBatch, "cells" | "texts"> {
  readonly names: ReceivedNames;
}

/** Reads batches in the order in which they come: later ones mean names of earlier ones. */
export class RowReceiver {
  #names = new ReceivedNames();

  receive({ cells, begun, ended, texts, names }: RowBatch, bodies: Batch["bodies"]): Work[] {
    // Rows that could not be written yet still mean the old ones.
    if (names.anew) this.#names = new ReceivedNames();
    this.#names.add(names);
    const rows: ReceivedRows = { cells, texts, names: this.#names };
    const work: Work[] = [];
    for (const at of begun) {
      const link = cells[at + BEGIN.LINK]!;
      const own = link === 0 ? undefined : bodiesAt(cells[link + END.BODIES]!, bodies);
      work.push({ operation: { kind: "begin", rows, at }, bodies: own });
    }
    for (const at of ended)
      work.push({ operation: { kind: "end", rows, at }, bodies: bodiesAt(cells[at + END.BODIES]!, bodies) });
    return work;
  }
}

function bodiesAt(place: number, bodies: Batch["bodies"]): BodyBytes | undefined {
  const own = bodies[place];
  return own && { request: own.request, response: own.response, truncated: own.truncated };
}
