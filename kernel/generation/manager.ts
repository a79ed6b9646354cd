import { basename } from "node:path";
import {
  formatPlace,
  type Logger,
  type ReloadEvent,
  TokenmanError,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import { within } from "./deadline.ts";
import type { Generation } from "./generation.ts";

/** How long exchanges may hold the last generations after `close`. */
const CLOSE_GRACE_MS = 5_000;

/** A generation, with what whoever serves it has made of it. */
export interface Held {
  readonly generation: Generation;
}

export interface GenerationManagerOptions<T extends Held> {
  /** Reads, loads and builds everything anew. Rejects with TokenmanErrors, with nothing left behind. */
  readonly build: (id: number) => Promise<T>;
  readonly log: Logger;
}

/** Holds the generation that serves, and replaces it. */
export class GenerationManager<T extends Held> {
  readonly #build: GenerationManagerOptions<T>["build"];
  readonly #log: Logger;
  readonly #retiring = new Set<Generation>();
  #current: T | undefined;
  #nextId = 1;
  #running: Promise<ReloadEvent> | undefined;
  #queued: Promise<ReloadEvent> | undefined;
  #lastReload: (ReloadEvent & { readonly at: number }) | undefined;
  #closed = false;

  constructor(options: GenerationManagerOptions<T>) {
    this.#build = options.build;
    this.#log = options.log;
  }

  /** The generation that serves. Lease it in the same turn of the loop in which it is read. */
  get current(): T {
    if (this.#current === undefined) throw new TokenmanError("TM_INTERNAL", "no generation serves yet");
    return this.#current;
  }
  /** The last reload that ended; undefined before the first. */
  get lastReload(): (ReloadEvent & { readonly at: number }) | undefined {
    return this.#lastReload;
  }
  /** How many old generations exchanges still hold. */
  get retiring(): number {
    return this.#retiring.size;
  }

  /** Builds the first generation. Rejects as the build does. */
  async start(): Promise<T> {
    this.#current = await this.#build(this.#nextId);
    this.#nextId++;
    return this.#current;
  }

  /**
   * Builds a new generation and swaps it in, or keeps the old one. Reloads run one at a time; all that are asked for
   * during one become one more, since a change may have come after the running one had read its file. Never rejects.
   */
  reload(reason: string): Promise<ReloadEvent> {
    if (this.#running === undefined) {
      this.#running = this.#reload(reason).finally(() => {
        this.#running = undefined;
      });
      return this.#running;
    }
    this.#queued ??= this.#running.then(() => {
      this.#queued = undefined;
      return this.reload(reason);
    });
    return this.#queued;
  }

  /** Tells the generation that serves, if any, that TokenMan is about to end. */
  async drain(): Promise<void> {
    await this.#current?.generation.drain();
  }

  /** Retires the serving generation and resolves when all are disposed of; by force where exchanges hold on. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#running;
    if (this.#current !== undefined) this.#retire(this.#current.generation);
    const generations = [...this.#retiring];
    const all = Promise.all(generations.map(({ disposed }) => disposed));
    try {
      await within(CLOSE_GRACE_MS, all, () => new Error("exchanges still hold a generation"));
    } catch {
      await Promise.all(generations.map((generation) => generation.dispose()));
    }
  }

  async #reload(reason: string): Promise<ReloadEvent> {
    const old = this.current.generation;
    let error: string | undefined;
    let brief: string | undefined;
    let files: readonly string[] = [];
    if (this.#closed) error = "TokenMan is shutting down";
    else {
      try {
        this.#current = await this.#build(this.#nextId);
        this.#nextId++;
      } catch (cause) {
        error = cause instanceof Error ? cause.message : String(cause);
        brief = briefOf(cause);
        files = filesOf(cause);
      }
    }
    const serving = this.current.generation;
    const event: ReloadEvent = Object.freeze({
      ok: error === undefined,
      generation: serving.id,
      error,
      ...(brief !== undefined && { brief }),
      ...(files.length > 0 && { files }),
    });
    this.#lastReload = Object.freeze({ ...event, at: Date.now() });
    if (error === undefined) this.#log.info({ generation: serving.id, reason }, "reloaded");
    else
      this.#log.error(
        { generation: serving.id, reason },
        `reload failed, generation ${serving.id} stays: ${error}`,
      );
    if (serving !== old) this.#retire(old);
    await serving.reloaded(event);
    return event;
  }

  #retire(generation: Generation): void {
    this.#retiring.add(generation);
    void generation.retire();
    void generation.disposed.then(() => this.#retiring.delete(generation));
  }
}

/** What is wrong and where, without anything that stands there. */
function briefOf(cause: unknown): string {
  if (!(cause instanceof TokenmanErrors)) return "TM_INTERNAL";
  const lines = cause.errors.map(({ code, place }) => {
    if (place === undefined) return code;
    return `${formatPlace({ file: basename(place.file), ...(place.line !== undefined && { line: place.line }) })}: ${code}`;
  });
  return lines.join("\n");
}

/** The files in which the problems are. */
function filesOf(cause: unknown): readonly string[] {
  if (!(cause instanceof TokenmanErrors)) return [];
  return [...new Set(cause.errors.flatMap(({ place }) => (place === undefined ? [] : [place.file])))];
}
