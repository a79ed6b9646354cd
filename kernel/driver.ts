import type {
  AttemptDecision,
  AttemptHead,
  AttemptPolicy,
  AttemptView,
  Candidate,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { AttemptState } from "./attempt.ts";
import { checkDecision, singleAttempt } from "./attempt-policy.ts";
import type { ExchangeState } from "./exchange.ts";
import { HeldReply, type Judge } from "./held-reply.ts";
import type { VerdictOf } from "./hooks/hook-result.ts";
import { KernelReply } from "./reply/reply.ts";
import type { PushSource } from "./reply/source.ts";
import type { Launch, LaunchEvents } from "./upstream/launch.ts";
import { noReply } from "./upstream/no-reply.ts";
import { forwardedHeaders } from "./upstream/outgoing.ts";

/** An exchange has no more attempts than this, whatever its policy says: one that never stops would never answer. */
const MAX_ATTEMPTS = 100;

/**
 * Runs an exchange's attempts until one reply is the client's. The kernel owns the loop; whether, when and against whom
 * there is another attempt is the policy's. Before this resolves no byte was sent; after it, there is no attempt.
 */
export function drive(exchange: ExchangeState, launch: Launch): Promise<KernelReply> {
  return new Promise((resolve, reject) => new Driver(exchange, launch, resolve, reject).step());
}

/** What the policy sees is the driver itself; each fact is worked out when it looks. */
class Driver implements AttemptView, LaunchEvents, Judge {
  readonly #exchange: ExchangeState;
  readonly #policy: AttemptPolicy;
  readonly #send: Launch;
  readonly #resolve: (reply: KernelReply) => void;
  readonly #reject: (error: unknown) => void;
  // Arrays: they hold one or two, and a Set costs more than to look through them.
  readonly #tried: Candidate[] = [];
  #live: readonly AttemptState[] = NONE;
  /** The last reply that was not accepted: the client's, if nothing better comes. */
  #kept: KernelReply | undefined;
  /** Those that wait for their first event, or an error's body. */
  #held: readonly HeldReply[] = NONE;
  #lastError: TokenmanError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #starting = 0;
  #done = false;

  constructor(
    exchange: ExchangeState,
    launch: Launch,
    resolve: (reply: KernelReply) => void,
    reject: (error: unknown) => void,
  ) {
    this.#exchange = exchange;
    this.#policy = exchange.home.policy;
    this.#send = launch;
    this.#resolve = resolve;
    this.#reject = reject;
    exchange.cancellation.onCancel(() => this.#unwanted());
  }

  get exchange(): ExchangeState {
    return this.#exchange;
  }
  get attempts(): readonly AttemptState[] {
    return this.#exchange.attempts;
  }
  get live(): readonly AttemptState[] {
    return this.#live;
  }
  get untried(): readonly Candidate[] {
    if (this.#tried.length === 0) return this.#exchange.candidates;
    if (this.#spent) return [];
    return this.#exchange.candidates.filter((candidate) => !this.#tried.includes(candidate));
  }
  get elapsedMs(): number {
    return this.#exchange.attempts[0]?.elapsedMs() ?? 0;
  }

  /** Asks the policy for the next step, and takes it. */
  step(): void {
    if (this.#done) return;
    // What was decided before this step, a delayed attempt included, is decided anew.
    this.#unset();
    let decision: AttemptDecision;
    try {
      decision = checkDecision(this.#policy.next(this));
    } catch (error) {
      this.#finish(undefined, error);
      return;
    }
    if (decision.kind === "try" && this.#exchange.attempts.length < MAX_ATTEMPTS && !this.#spent)
      this.#try(decision.candidate, decision.delayMs ?? 0);
    else if (this.#live.length > 0 || this.#starting > 0) {
      // Live attempts are left to run, whether the policy waits for them or has no further one to begin.
      if (decision.kind === "wait" && decision.forMs !== undefined)
        this.#later(decision.forMs, () => this.step());
      this.late();
    } else this.#stop();
  }

  /** A body that streams through is not kept: once an attempt had it, there is none for another one. */
  get #spent(): boolean {
    const { request, attempts } = this.#exchange;
    return request.rawBody === undefined && attempts.some(({ result }) => result?.kind !== "skipped");
  }
  #later(ms: number, run: () => void): void {
    this.#unset();
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      run();
    }, ms);
  }
  #unset(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
  #try(candidate: Candidate, delayMs: number): void {
    // While a delay runs, live attempts may still win.
    if (delayMs > 0) this.#later(delayMs, () => this.#begin(candidate));
    else this.#begin(candidate);
  }
  #begin(candidate: Candidate): void {
    if (this.#done) return;
    this.#tried.push(candidate);
    const exchange = this.#exchange;
    const attempt = new AttemptState(
      exchange,
      exchange.attempts.length + 1,
      candidate,
      forwardedHeaders(exchange.request.headers),
    );
    exchange.attempts.push(attempt);
    const verdict = exchange.home.pipeline.beforeUpstream(exchange, attempt);
    if (!(verdict instanceof Promise)) {
      this.#judged(attempt, verdict);
      return;
    }
    this.#starting++;
    verdict
      .then((value) => {
        this.#starting--;
        this.#judged(attempt, value);
      })
      .catch((error: unknown) => this.#finish(undefined, error));
  }
  #judged(attempt: AttemptState, verdict: VerdictOf | undefined): void {
    if (this.#done) {
      if (verdict !== undefined && "answer" in verdict) verdict.answer.discard();
      return;
    }
    if (verdict === undefined) {
      this.#launch(attempt);
      return;
    }
    if ("skip" in verdict) {
      const { by, skip: reason, retryAfterMs } = verdict;
      const when = retryAfterMs === undefined ? undefined : { retryAfterMs };
      attempt.end({ kind: "skipped", by: by.name, reason, ...when });
      this.step();
      return;
    }
    attempt.end({ kind: "skipped", by: verdict.by.name, reason: "answered without the provider" });
    this.#exchange.answeredBy = verdict.by;
    this.#finish(verdict.answer);
  }
  /** Takes an attempt off the live ones; false where it was none. The list is replaced: a policy may have kept it. */
  #ended(attempt: AttemptState): boolean {
    if (!this.#live.includes(attempt)) return false;
    this.#live = this.#live.length === 1 ? NONE : this.#live.filter((other) => other !== attempt);
    return true;
  }
  #launch(attempt: AttemptState): void {
    this.#live = [...this.#live, attempt];
    this.#send(this.#exchange, attempt, this);
    // A policy that hedges wants to be asked again while this one waits.
    if (!this.#done && this.#live.includes(attempt) && this.#policy !== singleAttempt) this.step();
  }

  failed(attempt: AttemptState, error: TokenmanError, bytesSent: boolean): void {
    attempt.end(
      this.#done || error.code === "TM_CLIENT_GONE"
        ? { kind: "cancelled" }
        : { kind: "error", code: error.code, message: error.message, bytesSent },
    );
    if (!this.#ended(attempt) || this.#done) return;
    this.#lastError = error;
    this.step();
  }
  replied(attempt: AttemptState, reply: KernelReply, source: PushSource | undefined): void {
    if (this.#done) {
      reply.discard();
      return;
    }
    if (this.#policy === singleAttempt) {
      this.#ended(attempt);
      this.#finish(reply);
      return;
    }
    const held = new HeldReply(attempt, reply, this);
    const isError = reply.status >= 400;
    if (!isError && !(reply.streaming && this.#holdsFirstEvent())) {
      held.judge();
      return;
    }
    this.#held = [...this.#held, held];
    if (isError) held.awaitBody(source);
    else held.awaitEvent(this.#exchange, source);
  }
  judge(held: HeldReply, head: AttemptHead): void {
    const { attempt, reply } = held;
    // Called off: what it ended with is nobody's failure.
    if (this.#done) {
      reply.discard();
      return;
    }
    if (head.firstEvent?.kind === "error") {
      attempt.streamError ??= head.firstEvent;
      // One that was cut off before its first event said nothing.
      attempt.failedFirst = head.firstEvent.type !== "cut";
    }
    this.#held = this.#held.filter((other) => other !== held);
    this.#ended(attempt);
    let accepted: boolean;
    try {
      accepted = this.#policy.accept(this, attempt, head);
    } catch (error) {
      this.#finish(undefined, error);
      return;
    }
    if (accepted) {
      this.#finish(reply);
      return;
    }
    this.#kept?.discard();
    this.#kept = reply;
    this.step();
  }
  /**
   * A head that has waited for long enough goes on to the client, unless another attempt may still come before it: one
   * that is under way, or that the policy is about to begin.
   */
  late(): void {
    if (this.#done || this.#timer !== undefined || this.#starting > 0) return;
    const late = this.#held.filter(({ isLate }) => isLate);
    if (late.length >= this.#live.length) late[0]?.release();
  }
  #holdsFirstEvent(): boolean {
    try {
      return this.#policy.holdFirstEvent(this.#exchange);
    } catch (error) {
      this.#finish(undefined, error);
      return false;
    }
  }
  #stop(): void {
    if (this.#kept !== undefined) {
      this.#finish(this.#kept);
      return;
    }
    this.#finish(KernelReply.refusal(this.#exchange, noReply(this.#exchange, this.#lastError)));
  }
  #unwanted(): void {
    if (this.#done) return;
    this.#finish(
      KernelReply.refusal(this.#exchange, { code: "TM_CLIENT_GONE", message: "The client left." }),
    );
  }
  /** Commits: the other attempts are called off. */
  #finish(reply: KernelReply | undefined, error?: unknown): void {
    if (this.#done) {
      reply?.discard();
      return;
    }
    this.#done = true;
    this.#unset();
    const kept = this.#kept;
    this.#kept = undefined;
    if (kept !== reply) kept?.discard();
    // Those that have not got as far as being sent are called off, too: `settled` comes after every `attemptEnd`.
    for (const attempt of this.#exchange.attempts) {
      if (reply?.attempt === attempt || attempt.result !== undefined) continue;
      this.#held.find((held) => held.attempt === attempt)?.drop();
      attempt.cancel();
      attempt.end({ kind: "cancelled" });
    }
    this.#held = NONE;
    this.#live = NONE;
    if (reply === undefined) this.#reject(error);
    else this.#resolve(reply);
  }
}

const NONE: readonly never[] = [];
