import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** How often each phrase was heard, in the order in which they were first heard. */
export type Phrases = ReadonlyMap<string, number>;

/** Phrases in a file of the data folder. What was learnt is written soon after, and before `close` resolves. */
export class Memory {
  readonly #file: string;
  readonly #phrases: Map<string, number>;
  #writing: Promise<void> | undefined;
  #changed = false;

  private constructor(file: string, phrases: Phrases) {
    this.#file = file;
    this.#phrases = new Map(phrases);
  }
  static async open(dataDir: string): Promise<Memory> {
    return new Memory(fileIn(dataDir), await readPhrases(dataDir));
  }

  learn(phrase: string): void {
    this.#phrases.set(phrase, (this.#phrases.get(phrase) ?? 0) + 1);
    this.#changed = true;
    this.#writing ??= this.#write();
  }
  /** Rejects with what the last write failed for. */
  async close(): Promise<void> {
    await this.#writing;
  }

  /** Never two at once; what is learnt meanwhile is written in the next round. */
  async #write(): Promise<void> {
    try {
      while (this.#changed) {
        this.#changed = false;
        // Renamed into place: a reader never meets half a file.
        await writeFile(`${this.#file}.new`, JSON.stringify([...this.#phrases]), { mode: 0o600 });
        await rename(`${this.#file}.new`, this.#file);
      }
    } finally {
      this.#writing = undefined;
    }
  }
}

/** What has been learnt so far; nothing where there is no file. Rejects for one that cannot be read. */
export async function readPhrases(dataDir: string): Promise<Phrases> {
  let text: string;
  try {
    text = await readFile(fileIn(dataDir), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Map();
    throw error;
  }
  return new Map(JSON.parse(text) as [string, number][]);
}

function fileIn(dataDir: string): string {
  return join(dataDir, "parrot.json");
}
