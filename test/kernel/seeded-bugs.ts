/** A bug to put into a copy of the kernel, where the property test of the hooks must notice it. */
export interface SeededBug {
  /** Relative to the repository. */
  readonly file: string;
  /** Occurs in it once. */
  readonly find: string;
  readonly replace: string;
  readonly why: string;
  /** A seed whose plans show it, the first of a few that are tried. */
  readonly seed: number;
}

export const SEEDED_BUGS: readonly SeededBug[] = [
  {
    file: "kernel/hooks/pipeline.ts",
    find: "for (let index = taps.length - 1; index >= 0; index--) {",
    replace: "for (let index = 0; index < taps.length; index++) {",
    why: "the reply passes the plugins in the request's order",
    seed: 1,
  },
  {
    file: "kernel/hooks/run-tap.ts",
    find: "if (index >= exchange.answeredAt || plugin === exchange.answeredBy) {",
    replace: "if (plugin === exchange.answeredBy) {",
    why: "plugins that the request did not reach see the reply",
    seed: 1,
  },
  {
    file: "kernel/hooks/run-tap.ts",
    find: "exchange.content.rollback(mark);",
    replace: "",
    why: "the edits of a failed request tap stay",
    seed: 1,
  },
  {
    file: "kernel/hooks/run-tap.ts",
    find: "attempt.rollback(mark);",
    replace: "",
    why: "what a failed beforeUpstream tap did to its attempt stays",
    seed: 1,
  },
  {
    file: "kernel/hooks/run-tap.ts",
    find: "reply.rollback(mark);",
    replace: "",
    why: "what a failed response tap attached stays",
    seed: 1,
  },
  {
    file: "kernel/hooks/guard.ts",
    find: "    if (call.over) return;\n",
    replace: "",
    why: "a hook that was given up goes on a second time when it ends",
    seed: 1,
  },
  {
    file: "kernel/hooks/tap-call.ts",
    find: "    if (this.#holds > 0) this.#clock.hold();\n",
    replace: "",
    why: "a hook that waits from its first turn on is timed out while it waits",
    seed: 2,
  },
  {
    file: "kernel/exchange.ts",
    find: "!call.over) return call;",
    replace: "true) return call;",
    why: "a hook that was given up can still edit",
    seed: 1,
  },
  {
    file: "kernel/attempt.ts",
    find: "    if (this.result !== undefined) return;\n    this.result = result;",
    replace: "    this.result = result;",
    why: "an attempt ends more than once",
    seed: 1,
  },
  {
    file: "kernel/driver.ts",
    find: "      attempt.cancel();\n",
    replace: "",
    why: "the attempt that lost is not called off",
    seed: 1,
  },
  {
    file: "kernel/driver.ts",
    find: "    if (this.#kept !== undefined) {",
    replace: "    if (this.#kept === null) {",
    why: "a reply that was kept back is forgotten when the policy stops",
    seed: 1,
  },
  {
    file: "kernel/exchange.ts",
    find: "      this.home.release();\n",
    replace: "      if (outcome.kind !== 'aborted') this.home.release();\n",
    why: "an exchange that was aborted keeps its generation",
    seed: 1,
  },
  {
    file: "kernel/respond.ts",
    find: "else response.destroy();",
    replace: "else response.end();",
    why: "a broken reply is ended as if it were whole",
    seed: 1,
  },
  {
    file: "kernel/intake.ts",
    find: "await exchange.settle(outcome);",
    replace: "if (outcome.kind !== 'refused') await exchange.settle(outcome);",
    why: "a refused exchange is never settled",
    seed: 1,
  },
  {
    file: "kernel/exchange.ts",
    find: "    if (this.#clientGone && this.#retained === 0) this.cancellation.cancel();\n",
    replace: "",
    why: "a client that left is not noticed before its reply is sent",
    seed: 1,
  },
  {
    file: "kernel/reply/steps.ts",
    find: 'if (step.plugin?.onError === "closed") {',
    replace: "if (step.plugin === null) {",
    why: "a transform that must not fail does, and the rest of the stream passes raw",
    seed: 1,
  },
  {
    file: "kernel/edits.ts",
    find: "const all = over === undefined ? this.#list : [...this.#list, ...over.#list];",
    replace: "const all = over === undefined ? this.#list : over.#list;",
    why: "an attempt's own edits take the place of the exchange's",
    seed: 1,
  },
];
