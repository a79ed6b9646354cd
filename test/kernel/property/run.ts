import type { Exchange, Outcome } from "@tokenman/plugin-sdk";
import type { Plan } from "./plan.ts";

/** One exchange under way: its plan, and what everybody saw of it. */
export class Run {
  readonly plan: Plan;
  /** What the plugins saw, in order: "request a", "before 1 a", "attemptEnd 1", "settled". */
  readonly calls: string[] = [];
  readonly generations = new Set<number>();
  readonly outcomes: Outcome[] = [];
  /** How often each attached observer was told of the end, and which were taken back before. */
  readonly observers: { ends: number; dropped: boolean }[] = [];
  /** What reached a provider. */
  readonly arrivals: { provider: number; body: string; tags: readonly string[] }[] = [];
  /** What hooks did after they had been given up, and should not have been able to. */
  readonly late: string[] = [];
  exchange: Exchange | undefined;
  /** Makes the client leave. */
  leave: () => void = () => {};
  readonly #wakes: Promise<void>[] = [];
  readonly #settled = Promise.withResolvers<void>();

  constructor(plan: Plan) {
    this.plan = plan;
  }
  /** Resolves when the exchange was settled for the first time. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }
  /** Does something later; `awake` resolves after it. */
  wake(when: Promise<unknown>, then: () => void): Promise<void> {
    const woken = when.then(then);
    this.#wakes.push(woken);
    return woken;
  }
  async awake(): Promise<void> {
    await Promise.all(this.#wakes);
  }
  settle(outcome: Outcome): void {
    this.outcomes.push(outcome);
    this.#settled.resolve();
  }
}

/** The runs of a world by their number, which requests carry in a header. */
export class Runs {
  readonly #runs = new Map<number, Run>();

  add(plan: Plan): Run {
    const run = new Run(plan);
    this.#runs.set(plan.number, run);
    return run;
  }
  get all(): readonly Run[] {
    return [...this.#runs.values()];
  }
  of(header: string | string[] | undefined): Run {
    const run = this.#runs.get(Number(header));
    if (run === undefined) throw new Error(`a request of no plan: ${String(header)}`);
    return run;
  }
}
