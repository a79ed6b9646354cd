import assert from "node:assert/strict";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { AttemptResult } from "@tokenman/plugin-sdk";
import { Random } from "../../sdk/random.ts";
import { type RunningKernel, runKernel } from "../../support/running-kernel.ts";
import { actor, HOOK_MS, planned, router, witness } from "./actors.ts";
import { ask, type Seen } from "./client.ts";
import { type Expected, expectedOf } from "./model.ts";
import { ACTORS, type Actor, type Closed, FAILURES, failureOf, type Plan, Planner } from "./plan.ts";
import { type Run, Runs } from "./run.ts";
import { startUpstream, type Upstream } from "./upstream.ts";

export interface WorldOptions {
  readonly seed: number;
  /** How many exchanges. */
  readonly exchanges: number;
  readonly concurrency?: number;
  /** How long an exchange may take, and what is to be given back after the last one. */
  readonly patienceMs?: number;
}

/** What came of a seed's plans. */
export interface Verdict {
  /** What is not as the model says, each with its plan; after the first, no more plans are begun. */
  readonly problems: readonly string[];
  /** How many exchanges were settled once: those of the plans, and {@link SHUT_DOWN} that a shutdown ends. */
  readonly settled: number;
  /** What was still held when nobody asked any more. */
  readonly left: {
    readonly exchanges: number;
    readonly leases: number;
    readonly calls: number;
    readonly generations: number;
  };
  /** Generations that were never disposed of, after the shutdown. */
  readonly undisposed: number;
  /** What failed inside the kernel, as it was logged. */
  readonly inside: readonly string[];
}

/** Exchanges that are under way when a world is shut down. */
const SHUT_DOWN = 4;

/** The verdict where all went as the model says, and nothing was left. */
export const sound = (exchanges: number): Verdict => ({
  problems: [],
  settled: exchanges + SHUT_DOWN,
  left: { exchanges: 0, leases: 0, calls: 0, generations: 0 },
  undisposed: 0,
  inside: [],
});

/** Runs a seed's plans against a kernel, and compares with the model. */
export async function runSeed(options: WorldOptions): Promise<Verdict> {
  const { seed, exchanges, concurrency = 16, patienceMs = 10_000 } = options;
  const random = new Random(seed);
  const closed: Closed = new Set(ACTORS.filter(() => random.chance(0.4)));
  const planner = new Planner(random);
  const plans = Array.from({ length: exchanges }, (_, number) => planner.plan(number));
  const runs = new Runs();
  const generations = { made: new Set<number>(), gone: new Set<number>() };
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  await using upstream = await startUpstream(runs);
  const kernel = await runKernel(
    [
      witness(runs, generations),
      ...ACTORS.map((name) => actor(name, closed.has(name), runs)),
      planned(runs),
      router(runs, upstream.url),
    ],
    '[projects.none]\ndisable = ["policy"]\n',
  );
  const problems: string[] = [];
  let { left } = sound(exchanges);
  const isSound = () => problems.length === 0 && isNothing(left);
  /** Runs `test` of one run; what it says against it is a problem. */
  const judged = async (run: Run, test: () => unknown): Promise<void> => {
    try {
      await test();
    } catch (error) {
      problems.push(problemOf(seed, run, closed, error));
    }
  };
  try {
    const queue = plans.values();
    await Promise.all(
      Array.from({ length: concurrency }, async () => {
        for (const plan of queue) {
          const run = runs.add(plan);
          await judged(run, async () => {
            const seen = await ask(kernel.proxy, run);
            await within(patienceMs, run);
            await nextTurns();
            const slow = delay.max / 1e6 > HOOK_MS / 2;
            const failures = failuresOf(run, kernel);
            if (!(slow && timedOutByChance(run, failures))) check(run, seen, closed, failures);
          });
          if (problems.length > 0) return;
        }
      }),
    );
    if (problems.length === 0) left = await idle(kernel, upstream, generations, patienceMs);
    if (isSound()) await shutDown(kernel, runs, plans.length, patienceMs, judged);
    if (isSound())
      for (const run of runs.all) {
        await run.awake();
        await nextTurns();
        await judged(run, () => checkOnce(run));
      }
  } finally {
    delay.disable();
    const ended = kernel[Symbol.asyncDispose]();
    // What broke may keep it from ever ending, which says nothing more.
    if (isSound()) await ended;
    else ended.catch(() => {});
  }
  return {
    problems,
    settled: runs.all.filter(({ outcomes }) => outcomes.length === 1).length,
    left,
    undisposed: [...generations.made].filter((id) => !generations.gone.has(id)).length,
    inside: kernel.logged.flatMap(({ message = "" }) =>
      /inside the kernel|at the door/.test(message) ? [message] : [],
    ),
  };
}

/** What holds in every outcome. */
function checkOnce({ calls, outcomes, exchange, generations, observers, late, plan }: Run): void {
  assert.equal(outcomes.length, 1, "settled exactly once");
  assert.equal(calls[0], "start");
  assert.equal(calls.filter((call) => call === "start").length, 1, "begun once");
  const ends = calls.filter((call) => call.startsWith("attemptEnd")).sort();
  const attempts = exchange!.attempts.map(({ number }) => `attemptEnd ${number}`).sort();
  assert.deepEqual(ends, attempts, "every attempt ends once");
  assert.deepEqual(calls.slice(calls.indexOf("settled") + 1), [], "nothing comes after settled");
  for (const { result } of exchange!.attempts) assert.ok(result, "every attempt has a result");
  const firstResponse = calls.findIndex((call) => call.startsWith("response"));
  if (firstResponse >= 0) {
    const later = calls.slice(firstResponse).filter((call) => call.startsWith("before"));
    assert.deepEqual(later, [], "no attempt begins once there is a reply");
    assert.equal(calls.filter((call) => call === "response witness").length, 1);
  }
  assert.equal(generations.size, 1, "one generation serves an exchange");
  for (const { ends, dropped } of observers)
    if (!dropped && plan.leavesAfterMs === undefined)
      assert.equal(ends, 1, "an observer is told of the end once");
  assert.deepEqual(late, [], "a hook that was given up does nothing more");
}

function check(run: Run, seen: Seen, closed: Closed, failures: readonly Logged[]): void {
  checkOnce(run);
  const { plan, calls, exchange } = run;
  const [outcome] = run.outcomes;
  assert.ok(outcome !== undefined && exchange !== undefined);
  if (seen.requestId !== undefined) assert.equal(seen.requestId, exchange.id);
  if (plan.leavesAfterMs !== undefined) {
    // When it leaves, and how far all had come then, is a matter of chance.
    if (outcome.kind === "aborted") assert.equal(outcome.code, "TM_CLIENT_GONE");
    return;
  }
  const winner = seen.provider === undefined ? undefined : Number(seen.provider.slice(1));
  const expected = expectedOf(plan, closed, winner ?? winnerOf(run));
  const list = (hook: string) => ["witness", ...expected[hook as "request"]].map((name) => `${hook} ${name}`);
  assert.deepEqual(
    calls.filter((call) => call.startsWith("request")),
    list("request"),
  );
  assert.deepEqual(
    calls.filter((call) => call.startsWith("response")),
    [...expected.response.map((name) => `response ${name}`), "response witness"],
    "those that the request passed see the reply, last to first",
  );
  const unreadable = (failure: Logged) => {
    const [hook, name] = failure.split(" ") as [string, Actor];
    return hook === "response" && plan.response[name] === "read";
  };
  assert.deepEqual(
    failures.filter((failure) => !unreadable(failure)),
    plannedFailures(plan, expected),
    "every failure is told once, with its plugin and hook, and no other",
  );
  checkAttempts(run, expected);
  checkClient(seen, expected);
  assert.deepEqual([outcome.kind, outcome.code], [expected.kind, expected.code]);
  if (expected.kind === "aborted") assert.ok(outcome.status === 499 || outcome.status === expected.status);
  else assert.equal(outcome.status, expected.status);
  if (expected.kind !== "aborted") assert.equal(outcome.bytesSent >= Buffer.byteLength(seen.body), true);
}

/** Where a hedge's reply was not the client's in the end, the attempt that had it knows. */
function winnerOf({ exchange }: Run): number | undefined {
  const index = exchange!.attempts.findIndex(
    ({ result, status }) => result?.kind === "reply" && status === 200,
  );
  return index < 0 ? undefined : index;
}

function checkAttempts({ plan, calls, arrivals, exchange }: Run, expected: Expected): void {
  const { attempts } = expected;
  assert.equal(exchange!.attempts.length, attempts.length, "number of attempts");
  for (const [index, { provider, before, result, sent, tags }] of attempts.entries()) {
    const number = index + 1;
    const actual = exchange!.attempts[index]!;
    assert.equal(actual.provider.name, `p${provider}`);
    const all = ["witness", ...before].map((name) => `before ${number} ${name}`);
    const asked = calls.filter((call) => call.startsWith(`before ${number} `));
    // A hedge that is called off is not asked about any further.
    const due = result === "cancelled" && plan.policy === "hedge" ? all.slice(0, asked.length) : all;
    assert.deepEqual(asked, due, "every attempt is asked about anew");
    const arrived = arrivals.filter((arrival) => arrival.provider === provider);
    if (sent === undefined) assert.deepEqual(arrived, [], "what is skipped is not sent");
    for (const arrival of arrived)
      assert.deepEqual(arrival, { provider, body: sent, tags }, "the provider gets the edits, and its own");
    if (plan.policy === "hedge") {
      checkHedged(actual.result, result);
      continue;
    }
    assert.equal(actual.result?.kind, result);
    if (sent !== undefined) assert.ok(arrived.length > 0);
  }
}

function checkHedged(actual: AttemptResult | undefined, expected: string): void {
  if (expected === "reply") assert.equal(actual?.kind, "reply");
  else assert.notEqual(actual?.kind, "skipped");
  if (expected === "cancelled" && actual?.kind === "reply")
    assert.equal(actual.body, "aborted", "the reply that lost is called off");
}

function checkClient(seen: Seen, expected: Expected): void {
  if (expected.status === undefined) {
    assert.equal(seen.whole, false);
    return;
  }
  assert.deepEqual([seen.status, seen.provider], [expected.status, expected.provider]);
  assert.deepEqual(seen.tags, expected.tags);
  const broken = expected.kind === "partial" || expected.kind === "aborted";
  assert.equal(seen.whole, !broken, broken ? "a break stays visible" : "the reply comes whole");
  if (expected.body === undefined) assert.equal(JSON.parse(seen.body).error.code, expected.code);
  else if (expected.whole) assert.equal(seen.body, expected.body);
  else assert.ok(expected.body.startsWith(seen.body), `${seen.body} begins ${expected.body}`);
}

/** A plugin's failure in a hook, as it was logged: "request a TM_PLUGIN_TIMEOUT". */
type Logged = `${string} ${Actor} ${string}`;

function failuresOf({ exchange }: Run, { logged }: RunningKernel): Logged[] {
  return logged.flatMap(({ facts, message }): Logged[] => {
    const { plugin, hook, exchange: id, err } = facts as Record<string, unknown>;
    if (message !== "plugin failed" || id !== exchange?.id) return [];
    const code = (err as { readonly code?: string }).code ?? "TM_PLUGIN_FAILED";
    return [`${hook as string} ${plugin as Actor} ${code}`];
  });
}

/** What must be logged of the taps that ran. */
function plannedFailures(plan: Plan, expected: Expected): Logged[] {
  const of = (hook: string, name: Actor, action: string): Logged[] => {
    const failure = failureOf(action);
    return failure === undefined ? [] : [`${hook} ${name} ${FAILURES[failure]}`];
  };
  return [
    ...expected.request.flatMap((name) => of("request", name, plan.request[name])),
    ...expected.attempts.flatMap(({ before }, index) =>
      before.flatMap((name) => of("beforeUpstream", name, plan.before[index]![name])),
    ),
    ...expected.response.flatMap((name) => of("response", name, plan.response[name])),
  ];
}

/** Whether a hook that was to pass was cut off: on a machine that is too busy, that says nothing. */
function timedOutByChance({ plan }: Run, failures: readonly Logged[]): boolean {
  return failures.some((failure) => {
    const [hook, name, code] = failure.split(" ") as [string, Actor, string];
    const acts = hook === "request" ? [plan.request] : hook === "response" ? [plan.response] : plan.before;
    const planned = acts.filter((actions) => failureOf(actions[name]) === "hang").length;
    return code === "TM_PLUGIN_TIMEOUT" && failures.filter((each) => each === failure).length > planned;
  });
}

const isNothing = (left: Verdict["left"]): boolean => Object.values(left).every((count) => count === 0);

/** What is held when nobody asks any more: given time, nothing. */
async function idle(
  { kernel }: RunningKernel,
  upstream: Upstream,
  generations: { readonly made: Set<number>; readonly gone: Set<number> },
  patienceMs: number,
): Promise<Verdict["left"]> {
  const until = performance.now() + patienceMs;
  for (;;) {
    const left = {
      exchanges: kernel.status().activeExchanges,
      leases: kernel.generation.leases,
      calls: upstream.busy,
      // All but the one that serves.
      generations: generations.made.size - 1 - generations.gone.size,
    };
    if (isNothing(left) || performance.now() > until) return left;
    await nextTurns();
  }
}

/** Exchanges that are under way in a shutdown without a drain are broken off, and settled as such. */
async function shutDown(
  { kernel, proxy }: RunningKernel,
  runs: Runs,
  from: number,
  patienceMs: number,
  judged: (run: Run, test: () => unknown) => Promise<void>,
): Promise<void> {
  const calm = Object.fromEntries(ACTORS.map((name) => [name, "pass"])) as Record<Actor, "pass">;
  const silent: Omit<Plan, "number"> = {
    policy: "hedge",
    stream: true,
    providers: ["silent", "silent"],
    request: calm,
    before: [calm, calm],
    response: calm,
    leavesAfterMs: undefined,
  };
  const hanging = runs.add({ ...silent, number: from, request: { ...calm, c: "hang" } });
  const under = Array.from({ length: SHUT_DOWN - 1 }, (_, index) =>
    runs.add({ ...silent, number: from + 1 + index }),
  );
  const all = [hanging, ...under];
  const replies = all.map((run) => ask(proxy, run));
  while (under.some(({ arrivals }) => arrivals.length < 2) || !hanging.calls.includes("request c"))
    await nextTurns();
  await kernel.shutdown({ drainMs: 0, reason: "planned" });
  for (const [index, run] of all.entries())
    await judged(run, async () => {
      const { whole } = await replies[index]!;
      assert.equal(whole, false, "broken off visibly");
      await within(patienceMs, run);
      const { kind, code } = run.outcomes[0]!;
      assert.deepEqual([kind, code], ["failed", "TM_SHUTTING_DOWN"], "a shutdown is what ended it");
    });
}

async function within(ms: number, run: Run): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: "is never settled" })), ms);
  });
  try {
    await Promise.race([run.settled, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets the event loop go round: what comes a turn after `settled`, and should not, is seen by then. */
async function nextTurns(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** What is wrong with a run, in words: with all that it takes to see it again. */
function problemOf(seed: number, run: Run, closed: Closed, error: unknown): string {
  const said = error instanceof Error ? error.message : String(error);
  const { plan, calls, outcomes, exchange, arrivals } = run;
  const results = exchange?.attempts.map(({ result }) => result);
  const facts = JSON.stringify({ plan, calls, outcomes, results, arrivals }, null, 1);
  return `seed ${seed}, closed: ${[...closed].join(" ") || "none"}: exchange ${plan.number}: ${said}\n${facts}`;
}
