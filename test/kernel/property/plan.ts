import type { Random } from "../../sdk/random.ts";

/** The plugins that act, in request order. The witness goes before them, policy and router behind. */
export const ACTORS = ["a", "b", "c", "d"] as const;
export type Actor = (typeof ACTORS)[number];

/** How a tap fails, and the code it is told by. */
export const FAILURES = {
  throw: "TM_PLUGIN_FAILED",
  reject: "TM_PLUGIN_FAILED",
  nonsense: "TM_PLUGIN_RESULT",
  hang: "TM_PLUGIN_TIMEOUT",
} as const;
export type Failure = keyof typeof FAILURES;

/** `change-…`: it edits, patches, sets a header or attaches a transform first, which must be undone. */
type Failing = Failure | `change-${Failure}`;
type Harmless = "pass" | "pass-async" | "change" | "change-async" | "wait";
export type RequestAction = Harmless | Failing | "answer" | "refuse" | "leave" | "reload";
export type BeforeAction = Harmless | Failing | "skip" | "answer";
export type ResponseAction =
  | Harmless
  | Failing
  | "map"
  | "map-throw"
  | "observe"
  | "observe-throw"
  | "replace"
  | "body"
  | "read";

/** What a provider does with a request. The ones that begin with "local" are in the kernel's process. */
export type Behaviour =
  | "ok"
  | "ping"
  | "error"
  | "first-error"
  | "reset"
  | "cut"
  /** No head; the client is told to leave where the plan says so. */
  | "silent"
  /** The head and one event; then the client is told to leave. */
  | "stall"
  | "local"
  | "local-throw"
  | "local-cut";

export type PolicyName = "none" | "walk" | "hold" | "hedge";

export interface Plan {
  readonly number: number;
  readonly policy: PolicyName;
  readonly stream: boolean;
  readonly providers: readonly Behaviour[];
  readonly request: Readonly<Record<Actor, RequestAction>>;
  /** By attempt, counted from 0. */
  readonly before: readonly Readonly<Record<Actor, BeforeAction>>[];
  readonly response: Readonly<Record<Actor, ResponseAction>>;
  /** Milliseconds after which the client leaves whatever happens; then little can be foretold. */
  readonly leavesAfterMs: number | undefined;
}

/** Which actors must not fail. */
export type Closed = ReadonlySet<Actor>;

/** Failures in a row of one hook that a generation's plugin may be planned: one fewer than put it into quarantine. */
const MAX_FAILURES = 9;
const MAX_WAITS = 1;

/** Makes plans for one kernel: what is rare or adds up is limited over all of them. */
export class Planner {
  readonly #random: Random;
  readonly #spent = new Map<string, number>();

  constructor(random: Random) {
    this.#random = random;
  }

  plan(number: number): Plan {
    const random = this.#random;
    const policy = random.pick(["none", "walk", "hold", "hedge"] as const);
    const stream = random.chance(0.6);
    // How eventful an exchange is: in one where everybody fails, nothing of the rest is seen.
    const unrest = random.pick([0, 0.1, 0.3]);
    const providers = this.#providers(policy, stream);
    return {
      number,
      policy,
      stream,
      providers,
      request: this.#each((actor) => this.#request(actor, unrest, number)),
      before: providers.map(() => this.#each((actor) => this.#before(actor, unrest, policy))),
      response: this.#each((actor) => this.#response(actor, unrest)),
      leavesAfterMs: random.chance(0.06) ? random.below(30) : undefined,
    };
  }

  #each<T>(make: (actor: Actor) => T): Record<Actor, T> {
    return Object.fromEntries(ACTORS.map((actor) => [actor, make(actor)])) as Record<Actor, T>;
  }
  #providers(policy: PolicyName, stream: boolean): Behaviour[] {
    const random = this.#random;
    if (policy === "hedge") {
      const other = random.pick<Behaviour>(["silent", "ok", "error", "reset", "local"]);
      const pair: Behaviour[] = [random.pick(["ok", "local", ...(stream ? (["ping"] as const) : [])]), other];
      return random.chance(0.5) ? pair : pair.toReversed();
    }
    const bad: Behaviour[] = ["error", "reset", "local-throw", ...(stream ? (["first-error"] as const) : [])];
    const last: Behaviour[] = ["ok", "ok", "local", "cut", "local-cut", "silent", ...bad];
    if (stream) last.push("ping", "stall");
    const count = random.below(policy === "none" ? 2 : 3);
    if (random.chance(0.03)) return [];
    return [...Array.from({ length: count }, () => random.pick(bad)), random.pick(last)];
  }
  #request(actor: Actor, unrest: number, number: number): RequestAction {
    const random = this.#random;
    if (random.chance(unrest)) {
      const action = this.#failing(actor, "request");
      if (action !== undefined) return action;
    }
    if (random.chance(unrest / 4)) return random.pick(["answer", "refuse"]);
    if (random.chance(0.02)) return "leave";
    if (number > 0 && number % 40 === 0 && actor === "b") return "reload";
    return this.#harmless();
  }
  #before(actor: Actor, unrest: number, policy: PolicyName): BeforeAction {
    const random = this.#random;
    // Beside a live attempt it would be a matter of chance which comes first.
    if (policy !== "hedge") {
      if (random.chance(unrest)) {
        const action = this.#failing(actor, "beforeUpstream");
        if (action !== undefined) return action;
      }
      if (random.chance(unrest / 3)) return random.pick(["skip", "skip", "answer"]);
    }
    return this.#harmless();
  }
  #response(actor: Actor, unrest: number): ResponseAction {
    const random = this.#random;
    if (random.chance(unrest)) {
      const action = this.#failing(actor, "response");
      if (action !== undefined) return action;
    }
    if (random.chance(unrest / 3) && this.#spend(`${actor} mapEvents`, MAX_FAILURES)) return "map-throw";
    if (random.chance(unrest / 3) && this.#spend(`${actor} observer`, MAX_FAILURES)) return "observe-throw";
    if (random.chance(unrest / 3)) return random.pick(["replace", "body", "read"]);
    return random.chance(0.4) ? random.pick(["map", "observe"]) : this.#harmless();
  }
  #harmless(): Harmless {
    if (this.#random.chance(0.01) && this.#spend("wait", MAX_WAITS)) return "wait";
    return this.#random.pick(["pass", "pass", "pass-async", "change", "change", "change-async"]);
  }
  #failing(actor: Actor, hook: string): Failing | undefined {
    if (!this.#spend(`${actor} ${hook}`, MAX_FAILURES)) return undefined;
    const failure = this.#random.pick(["throw", "reject", "nonsense", "hang"] as const);
    return this.#random.chance(0.5) ? failure : `change-${failure}`;
  }
  #spend(what: string, limit: number): boolean {
    const spent = this.#spent.get(what) ?? 0;
    if (spent >= limit) return false;
    this.#spent.set(what, spent + 1);
    return true;
  }
}

/** The failure in an action, without what it changes first; undefined for one that succeeds. */
export function failureOf(action: string): Failure | undefined {
  const plain = action.replace(/^change-/, "");
  return plain in FAILURES ? (plain as Failure) : undefined;
}
export function changes(action: string): boolean {
  return action.startsWith("change");
}

export function providerName(index: number): string {
  return `p${index}`;
}
/** The events of a stream of provider `index`. */
export function eventsOf(plan: Plan, index: number, behaviour: Behaviour): string[] {
  const events = [0, 1, 2].map((event) => `${plan.number}-${index}-${event}`);
  if (behaviour === "ping") return ["ping", ...events, "[DONE]"];
  if (behaviour === "first-error") return ["error", "[DONE]"];
  return [...events, "[DONE]"];
}
/** How many of them come when it is cut, or stalls. */
export const CUT_AFTER = 2;
export const STALL_AFTER = 1;
/** The event, counted from 0, at which a transform fails. */
export const MAP_FAILS_AT = 1;

export function bodyOf(plan: Plan, index: number): string {
  return `{ "case": ${plan.number}, "from": "${providerName(index)}", "n": 1.0 }`;
}
/** How much of a buffered body comes when it is cut. */
export const CUT_BYTES = 5;
export const ERROR_BODY = "not today";

export function requestBody(text: string, alias: string): string {
  return `{"texts": ["${text}"],\t"alias": "${alias}", "n": 1.0, "n": 2}`;
}
