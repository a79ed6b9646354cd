import { statSync } from "node:fs";
import { basename, dirname, relative, sep } from "node:path";
import type { Logger } from "@tokenman/plugin-sdk";
import { type FSWatcher, watch } from "chokidar";
import { changesBetween, isOfInterest, type Snapshot, takeSnapshot } from "./snapshot.ts";

export interface FollowOptions {
  /** Absolute paths of files and of folders of plugins; they need not exist yet. */
  readonly files: readonly string[];
  readonly debounceMs: number;
  /** Called when their content has changed; not again until what it returned is settled. */
  readonly changed: (reason: string) => Promise<unknown>;
  readonly log: Logger;
}

/**
 * chokidar drops a change that comes within 50 ms of another one of the same file, and holds a removal back for 100 ms.
 * So there is one more look when all is quiet.
 */
const LAST_LOOK_MS = 250;

/**
 * Watches files by watching the folders that they are in, since editors replace files rather than write to them. What
 * counts is content: a file that was touched, or written with what it held before, has not changed.
 */
export class Follower {
  #watcher: FSWatcher | undefined;
  #options: FollowOptions | undefined;
  #files: ReadonlySet<string> = new Set();
  /** Folders that are watched as a whole. */
  #trees: readonly string[] = [];
  /** Folders that are watched for the sake of files in them. */
  #folders: ReadonlySet<string> = new Set();
  /** Both, as chokidar was told. */
  #watched: ReadonlySet<string> = new Set();
  #seen: Snapshot = new Map();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #closed = false;

  get following(): boolean {
    return this.#options !== undefined;
  }

  /** From now on these files, in the place of the earlier ones. Resolves when the system watches them. */
  async follow(options: FollowOptions): Promise<void> {
    if (this.#closed) return;
    this.#options = options;
    const added = options.files.filter((file) => !this.#files.has(file));
    this.#files = new Set(options.files);
    this.#folders = new Set(options.files.map((file) => dirname(file)));
    if (this.#watcher === undefined) await this.#start();
    else this.#retarget(this.#watcher);
    const fresh = await takeSnapshot(added);
    // What is known of a file stays known: it may have changed since, and that is still to be acted on.
    const known = [...this.#seen].filter(([file]) => this.#matters(file));
    this.#seen = new Map([...fresh, ...known]);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#watcher?.close();
  }

  async #start(): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#trees = [...this.#files].filter(isFolder);
    this.#watched = new Set([...this.#trees, ...this.#folders]);
    this.#watcher = watch([...this.#watched], {
      ignoreInitial: true,
      ignorePermissionErrors: true,
      ignored: (path) => !this.#matters(path),
    });
    this.#watcher.on("all", () => this.#stir());
    this.#watcher.on("ready", () => ready.resolve());
    this.#watcher.on("error", (error) => {
      this.#options?.log.warn(
        { err: error },
        "files cannot be watched; reload with `tokenman reload` instead",
      );
      ready.resolve();
    });
    await ready.promise;
  }

  /** Fits what the system watches to what is wanted now. True where that is more than before. */
  #retarget(watcher: FSWatcher): boolean {
    this.#trees = [...this.#files].filter(isFolder);
    const wanted = new Set([...this.#trees, ...this.#folders]);
    const gone = [...this.#watched].filter((path) => !wanted.has(path));
    const added = [...wanted].filter((path) => !this.#watched.has(path));
    this.#watched = wanted;
    if (gone.length > 0) watcher.unwatch(gone);
    if (added.length > 0) watcher.add(added);
    return added.length > 0;
  }

  /** Whether chokidar is to look at a path. */
  #matters(path: string): boolean {
    if (this.#files.has(path) || this.#folders.has(path)) return true;
    return this.#trees.some((tree) => {
      if (!path.startsWith(tree + sep)) return path === tree;
      return relative(tree, path).split(sep).every(isOfInterest);
    });
  }

  #stir(): void {
    this.#lookIn(this.#options?.debounceMs ?? 0, true);
  }

  #lookIn(ms: number, again: boolean): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#running = this.#running.then(() => this.#look());
      if (again) this.#lookIn(LAST_LOOK_MS, false);
    }, ms);
  }

  async #look(): Promise<void> {
    const options = this.#options;
    if (options === undefined || this.#watcher === undefined || this.#closed) return;
    try {
      // A folder of plugins may have come into being. What was put into it since tells nobody: look once more.
      if (this.#retarget(this.#watcher)) this.#stir();
      // Before the reload reads the files: what changes from now on makes another round.
      const now = await takeSnapshot(this.#files);
      const changes = changesBetween(this.#seen, now);
      this.#seen = now;
      if (changes.length === 0 || this.#closed) return;
      const reason = `${names(changes)} changed`;
      options.log.info({ files: changes }, `${reason}, reloading`);
      await options.changed(reason);
    } catch (error) {
      options.log.error({ err: error }, "a change could not be acted on");
    }
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function names(files: readonly string[]): string {
  const shown = files.slice(0, 3).map((file) => basename(file));
  const more = files.length - shown.length;
  return more === 0 ? shown.join(", ") : `${shown.join(", ")} and ${more} more`;
}
