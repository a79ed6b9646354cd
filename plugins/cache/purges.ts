/** Projects whose purges are known one by one; a client names projects as it likes. */
const MAX_PROJECTS = 1_000;

/** Which requests were under way when a purge came, told by how many had begun until then. */
export class Purges {
  readonly #projects = new Map<string, number>();
  #all = 0;
  #count = 0;

  get count(): number {
    return this.#count;
  }
  /** `begun` requests had begun by now. */
  add(project: string | undefined, begun: number): void {
    this.#count++;
    // With too many, all of them were purged: what is not stored is asked for anew, which harms nobody.
    if (project === undefined || this.#projects.size >= MAX_PROJECTS) {
      this.#projects.clear();
      this.#all = begun;
    } else this.#projects.set(project, begun);
  }
  /** Whether a purge of the project, or of all, came after the request of that number had begun. */
  reach(number: number, project: string): boolean {
    return number < this.#all || (this.#projects.size > 0 && number < (this.#projects.get(project) ?? 0));
  }
}
