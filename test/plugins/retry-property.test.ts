import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type {
  Attempt,
  AttemptResult,
  AttemptView,
  Candidate,
  ErrorCode,
  Exchange,
  Slot,
} from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { RetryPolicy, type RetryRules } from "../../plugins/retry/policy.ts";
import { RetryBudget } from "../../plugins/retry/retry-budget.ts";

/** What may become of an attempt, and what the rules make of it. */
interface Fate {
  readonly status?: number;
  readonly error?: ErrorCode;
  readonly skipped?: true;
  /** Milliseconds that its Retry-After asks for. */
  readonly told?: number;
  /** "final" is the client's; "elsewhere" is for another candidate only. */
  readonly means: "fine" | "final" | "again" | "elsewhere" | "skipped";
}
const FATES: readonly Fate[] = [
  { status: 200, means: "fine" },
  { status: 400, means: "final" },
  { status: 529, means: "again" },
  { status: 529, means: "again" },
  { status: 429, told: 0, means: "again" },
  { status: 429, told: 300, means: "again" },
  { status: 503, told: 3_600_000, means: "again" },
  { error: "TM_UPSTREAM_CONNECT", means: "again" },
  { error: "TM_UPSTREAM_RESET", means: "again" },
  { error: "TM_UPSTREAM_TLS", means: "elsewhere" },
  { error: "TM_INTERNAL", means: "final" },
  { skipped: true, means: "skipped" },
];

type Step = { readonly candidate: string; readonly delayMs: number } | "stop";

/** The rules told plainly: the whole history is read anew at each question. */
class Model {
  readonly #rules: RetryRules;
  readonly #names: readonly string[];
  readonly #sends: number;
  readonly #budget: BudgetModel;
  readonly #draw: () => number;
  readonly history: { name: string; fate: Fate; notBefore: number }[] = [];
  readonly began: number;

  constructor(
    rules: RetryRules,
    names: readonly string[],
    clientTries: number,
    budget: BudgetModel,
    draw: () => number,
    now: number,
  ) {
    this.#rules = rules;
    this.#names = names;
    this.#sends = 1 + Math.max(0, rules.maxRetries - clientTries);
    this.#budget = budget;
    this.#draw = draw;
    this.began = now;
  }
  next(now: number): Step {
    const sent = this.history.filter(({ fate }) => fate.means !== "skipped");
    const last = sent.at(-1);
    const elapsed = now - this.began;
    const fresh = this.#names.find((name) => !this.history.some((each) => each.name === name));
    if (last !== undefined && (last.fate.means === "final" || sent.length >= this.#sends)) return "stop";
    if (fresh !== undefined) {
      if (last !== undefined && elapsed >= this.#rules.totalMs) return "stop";
      this.#budget.sent(fresh, this.#rules.budgetShare);
      return { candidate: fresh, delayMs: 0 };
    }
    if (last === undefined) return "stop";
    const again = this.#names
      .map((name) => this.history.findLast((each) => each.name === name)!)
      .filter(({ fate }) => fate.means === "again")
      .sort((left, right) => left.notBefore - right.notBefore)[0];
    if (again === undefined) return "stop";
    const delayMs = Math.max(0, again.notBefore - now);
    if (elapsed + delayMs >= this.#rules.totalMs || !this.#budget.take(again.name, now)) return "stop";
    return { candidate: again.name, delayMs };
  }
  ended(name: string, fate: Fate, now: number): "accepted" | undefined {
    const before = this.history.filter((each) => each.name === name && each.fate.means !== "skipped").length;
    const failures = before + 1;
    let notBefore = now;
    const isReply = fate.status !== undefined;
    const others = this.#names.some(
      (other) => other !== name && !this.history.some((each) => each.name === other),
    );
    if (
      isReply &&
      (fate.means === "fine" || fate.means === "final" || (fate.means === "elsewhere" && !others))
    )
      return "accepted";
    if (fate.means === "again" || fate.means === "elsewhere") {
      const { baseMs, maxMs } = this.#rules.limits;
      const draw = this.#draw();
      let wait = draw * Math.min(maxMs, baseMs * 2 ** (failures - 1));
      const { told = 0 } = fate;
      if (told > 0)
        wait = told >= maxMs ? maxMs - draw * Math.min(baseMs, maxMs) : Math.min(maxMs, told + draw * baseMs);
      assert.ok(wait >= 0 && wait <= maxMs, "never above the longest");
      if (told > 0 && told < maxMs) assert.ok(wait >= told, "never before it was asked for");
      notBefore = now + wait;
    }
    this.history.push({ name, fate, notBefore });
    return undefined;
  }
}

/** A hundred at most, ten a second, and a share of what is sent. */
class BudgetModel {
  readonly #left = new Map<string, { tokens: number; at: number }>();
  #of(name: string, now: number) {
    const found = this.#left.get(name) ?? { tokens: 100, at: now };
    this.#left.set(name, found);
    return found;
  }
  sent(name: string, share: number): void {
    const left = this.#of(name, this.now());
    left.tokens = Math.min(100, left.tokens + share);
  }
  take(name: string, now: number): boolean {
    const left = this.#of(name, now);
    left.tokens = Math.min(100, left.tokens + ((now - left.at) / 1_000) * 10);
    left.at = now;
    if (left.tokens < 1) return false;
    left.tokens--;
    return true;
  }
  readonly now: () => number;
  constructor(now: () => number) {
    this.now = now;
  }
}

/** As much of a note-taking object as a policy uses. */
function notes() {
  const values = new Map<symbol, unknown>();
  return {
    set: <T>(slot: Slot<T>, value: T) => void values.set(slot.key, value),
    get: <T>(slot: Slot<T>) => values.get(slot.key) as T | undefined,
  };
}

function resultOf({ status, error, skipped }: Fate): AttemptResult {
  if (skipped) return { kind: "skipped", by: "x", reason: "y" };
  if (error !== undefined) return { kind: "error", code: error, message: "", bytesSent: true };
  return { kind: "reply", status: status!, body: "aborted" };
}

describe("the policy", () => {
  for (const seed of [1, 2, 3, Math.floor(Math.random() * 2 ** 31)]) {
    it(`does what its model does: seed ${seed}`, () => {
      const random = new Random(seed);
      let now = random.below(10_000);
      const clock = () => now;
      const budget = new RetryBudget(clock);
      const budgetModel = new BudgetModel(clock);
      const draws = { policy: new Random(seed + 1), model: new Random(seed + 1) };
      let retries = 0;
      for (let run = 0; run < 400; run++) {
        const rules: RetryRules = {
          maxRetries: random.below(6),
          limits: { baseMs: random.below(400), maxMs: 1 + random.below(2_000) },
          statuses: new Set([429, 503, 529]),
          totalMs: random.pick([Number.POSITIVE_INFINITY, 50, 900, 5_000]),
          budgetShare: random.pick([0, 0.1, 1]),
        };
        const names = ["a", "b", "c"].slice(0, 1 + random.below(3));
        const candidates = names.map(
          (name) => ({ provider: { name }, credential: { kind: "client" } }) as Candidate,
        );
        const clientTries = random.pick([0, 0, 0, 1, 2]);
        const policy = new RetryPolicy({ rules, budget, now: clock, random: () => draws.policy.next() });
        const model = new Model(rules, names, clientTries, budgetModel, () => draws.model.next(), now);
        const attempts: (Attempt & { result: AttemptResult | undefined })[] = [];
        const exchange = {
          ...notes(),
          attempts,
          candidates,
          dialect: { judgeError: (status: number) => ({ retryable: status >= 429 }) },
          request: { method: "POST", header: () => String(clientTries), rawBody: Buffer.from("{}") },
        } as unknown as Exchange;
        const began = now;
        const view = (): AttemptView => ({
          exchange,
          attempts,
          live: [],
          untried: candidates.filter((each) => !attempts.some(({ candidate }) => candidate === each)),
          elapsedMs: now - began,
        });
        const fates = random.chance(0.3) ? FATES.slice(2, 8) : FATES;
        for (let step = 0; ; step++) {
          const where = `run ${run}, step ${step}`;
          const expected = model.next(now);
          const decision = policy.next(view());
          const found: Step =
            decision.kind === "try"
              ? { candidate: decision.candidate.provider.name, delayMs: decision.delayMs ?? 0 }
              : "stop";
          assert.deepEqual(found, expected, where);
          if (found === "stop") break;
          if (found.delayMs > 0) retries++;
          now += found.delayMs;
          const candidate = candidates[names.indexOf(found.candidate)]!;
          const attempt = {
            ...notes(),
            number: step + 1,
            candidate,
            provider: candidate.provider,
            result: undefined,
          };
          attempts.push(attempt as unknown as (typeof attempts)[number]);
          const fate = random.pick(fates);
          now += random.below(40);
          const current = attempts.at(-1)!;
          const accepted = model.ended(found.candidate, fate, now);
          if (fate.status === undefined) {
            current.result = resultOf(fate);
            continue;
          }
          const headers = fate.told === undefined ? [] : ["retry-after-ms", String(fate.told)];
          const head = { status: fate.status, headers, firstEvent: undefined, errorBody: undefined };
          const isAccepted = policy.accept(view(), current, head);
          assert.equal(isAccepted, accepted === "accepted", where);
          if (isAccepted) break;
        }
        now += random.below(100);
      }
      assert.ok(retries > 100, "there were some");
    });
  }
});
