import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

const FIXTURES = join(import.meta.dirname, "../fixtures");

/**
 * Compares a text with `test/fixtures/FILE`, which has a line break at its end. With UPDATE_GOLDEN=1 it is written
 * anew: read what changed before you commit it.
 */
export async function golden(file: string, text: string): Promise<void> {
  const path = join(FIXTURES, file);
  if (process.env["UPDATE_GOLDEN"] !== undefined) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${text}\n`);
  }
  assert.equal(`${text}\n`, await readFile(path, "utf8"), `${path} (UPDATE_GOLDEN=1 writes it anew)`);
}
